"""The one Markov kernel of the classical samplers: leapfrog steps and a Metropolis test."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.samplers.loss import reward_and_grad
from tiltbench.samplers.sampler import Unsupported
from tiltbench.targets.bases.noising import Known
from tiltbench.targets.problem import Problem

# Energies reach 1e3 to 1e6 nats, where float32 loses the tenths that decide a Metropolis test.
DTYPE = torch.float64

FAR = 1e8  # in spreads of the base: p* beyond is taken as zero, so that no trajectory overflows


class Points(NamedTuple):
    """Positions with their reward and its gradient, paid for once and kept."""

    x: Float[Tensor, "b d"]
    r: Float[Tensor, " b"]  # -inf: no density here
    g: Float[Tensor, "b d"]

    def where(self, mask: Tensor, other: Points) -> Points:
        """These points where the mask (B,) holds, `other` elsewhere."""
        return Points(
            torch.where(mask[:, None], self.x, other.x),
            torch.where(mask, self.r, other.r),
            torch.where(mask[:, None], self.g, other.g),
        )

    def at(self, index: Tensor) -> Points:
        return Points(self.x[index], self.r[index], self.g[index])


def known_base(problem: Problem) -> Known:
    """The base, whose end has a density and exact draws.  Raises Unsupported where it has not."""
    if isinstance(problem.base, Known):
        return problem.base
    raise Unsupported(
        f"classical samplers need a base with a known density; {type(problem.base).__name__} is "
        "known only through its paths: use a learned sampler"
    )


def unknown(x: Float[Tensor, "b d"]) -> Points:
    """Points not yet paid for."""
    return Points(x, torch.full_like(x[:, 0], -torch.inf), torch.zeros_like(x))


def evaluate(problem: Problem, x: Float[Tensor, "b d"]) -> Points:
    """Costs one value and one gradient a point."""
    return Points(x, *reward_and_grad(problem, x))


def score(base: Known, at: Points, beta: float | Tensor) -> Float[Tensor, "b d"]:
    """grad log (p_base exp(beta r)); one beta, or one a point (B,)."""
    tilt = beta[..., None] * at.g if isinstance(beta, Tensor) else beta * at.g
    return tilt + base.score(at.x, base.steps)


def move(
    problem: Problem,
    at: Points,
    beta: float,
    size: Tensor | float,
    leaps: int,
    generator: Generator,
) -> tuple[Points, Float[Tensor, ""]]:
    """One transition that leaves p_base exp(beta r) invariant, and its mean acceptance probability.

    Momentum v ~ N(0, I), then `leaps` times v += h/2 score(x), x += h v, v += h/2 score(x),
    accepted with probability min(1, exp(-change of |v|^2/2 - log p)) (Duane et al. 1987; Neal,
    arXiv 1206.1901).  One leap is MALA with proposal N(x + h^2/2 score(x), h^2 I) (Roberts
    and Tweedie 1996).  Every point draws its own h, log-uniform within a factor e of `size`,
    whatever its position: without it, points in narrow places never move again.  Costs `leaps`
    values and gradients a point.

    Points of zero density wander under the base until they meet support; they are left out of the
    mean, which is NaN where there are no others.
    """
    new, chance = move_each(problem, at, beta, size, leaps, generator)
    inside = at.r > -torch.inf
    return new, torch.where(inside, chance, 0.0).sum() / inside.sum()


def move_each(
    problem: Problem,
    at: Points,
    beta: Float[Tensor, " b"] | float,
    size: Float[Tensor, "b 1"] | Tensor | float,
    leaps: int,
    generator: Generator,
) -> tuple[Points, Float[Tensor, " b"]]:
    """`move` where every point may have its own beta > 0 and step size, with the acceptance
    probability of each point, those of zero density included."""
    base = known_base(problem)
    v = base.normal(at.x.shape, generator, DTYPE)
    spin = torch.rand((len(at.r), 1), generator=generator, device=at.x.device, dtype=DTYPE)
    size = size * (2 * spin - 1).exp()
    inside = at.r > -torch.inf
    start = _energy(base, at, v, torch.where(inside, beta * at.r, 0.0))
    lost = torch.zeros_like(at.r, dtype=torch.bool)
    new, half, pull = at, size / 2, score(base, at, beta)
    with problem.checks.together():
        for _ in range(leaps):
            v = v + half * pull
            x = new.x + size * v
            # A trajectory that leaves the ball is lost for good, there and back, so the kernel
            # stays reversible; it is evaluated where it started, where nothing can overflow.
            lost = lost | ~(x.square().mean(-1) < (FAR * base.spread) ** 2)
            new = evaluate(problem, torch.where(lost[:, None], at.x, x))
            pull = score(base, new, beta)
            v = v + half * pull
    change = _energy(base, new, v, torch.where(inside, beta * new.r, 0.0)) - start
    chance = torch.where(lost, 0.0, (-change).clamp(max=0).exp())
    coin = torch.rand(chance.shape, generator=generator, device=chance.device, dtype=DTYPE)
    return new.where(coin < chance, at), chance


def _energy(base: Known, at: Points, v: Tensor, tilt: Tensor) -> Float[Tensor, " b"]:
    return v.square().sum(-1) / 2 - base.log_end(at.x) - tilt


def adapted(log_size: Tensor, chance: Tensor, wanted: float, count: int) -> Tensor:
    """Robbins and Monro (1951): log size moves by count^-0.6 towards the wanted acceptance.

    The two sides are scaled to the same reach: an acceptance of 0 or 1 moves it by one gain, so
    that a first guess that is much too large does not end much too small.  Unchanged where the
    acceptance is NaN (no point with density has moved)."""
    reach = torch.where(chance < wanted, wanted, 1 - wanted)
    return log_size + ((chance - wanted) / reach).nan_to_num(0.0) / (1 + count / 8) ** 0.6


def spread_out(groups: int, each: int, n: int, generator: Generator) -> Tensor:
    """min(n, groups * each) distinct indices (group, member) -> group * each + member.

    Systematic, with a random offset in every group: each index is chosen with equal probability,
    and the choice is even over groups and over members."""
    total = groups * each
    if n >= total:
        return torch.arange(total, device=generator.device)
    device = generator.device
    start = torch.rand(1, generator=generator, device=device, dtype=DTYPE)
    k = torch.arange(n, dtype=DTYPE, device=device)
    flat = ((k + start) * (total / n)).long().clamp(max=total - 1)
    offset = torch.randint(each, (groups,), generator=generator, device=device)
    group = flat // each
    return (group * each + (flat + offset[group]) % each).sort().values
