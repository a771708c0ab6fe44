"""The field E[T | X_t] that a loss regresses to, by twins and in closed form.

The current control is u_lambda, the optimum of the reward lambda r.  On a memoryless base its path
law is P_base exp(lambda r) / Z_lambda, so (X_t, X_1) is an exactly re-noised pair of the terminal
law q_lambda.  With a twin T' drawn independently of T given X_t,

    E |E[T | X_t] - u*(X_t)|^2 = E[(T - u*) . (T' - u*)]

without bias.  Where grad r is affine, with m = E[X_1 | X_t] under q_lambda, all is closed form:

    E[CSM | X_t] = u_lambda,    E[TSM | X_t] = u_lambda + (1 - lambda) sigma / alpha grad r(m),
    E[NSM | X_t] = their blend by w = alpha^2 s^2 / D,    E[AS | X_t] = sigma c_t grad r(m),

the second because grad log p* = grad log q_lambda + (1 - lambda) grad r, and for any reward

    E[sigma a_t | X_t] = u_lambda / lambda:

the lean adjoint is a functional of the path, a_t = (dX_1/dX_t)^T grad r(X_1) along the base's flow
with its noise held fixed, and E_base[e^(lambda r) a_t | x] / E_base[e^(lambda r) | x] is the
gradient in x of log E_base[e^(lambda r) | x], divided by lambda.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from tiltbench.samplers.losses._matching import share_of_signal
from tiltbench.studies.common.regression import sigmas
from tiltbench.studies.common.tilts import Tilting
from tiltbench.targets.bases.components import Components
from tiltbench.targets.bases.interpolant import Ancestral
from tiltbench.targets.bases.mixture_flow import MixtureFlow
from tiltbench.targets.bases.noising import pick


class Points(NamedTuple):
    """X_t of the current control, times ascending: (times, n, d), k (times, n)."""

    base: MixtureFlow
    x: Tensor
    k: Tensor
    now: Tensor  # the current control
    best: Tensor  # u*

    def first(self, n: int) -> Points:
        x, k, now, best = (v[:, :n] for v in (self.x, self.k, self.now, self.best))
        return Points(self.base, x, k, now, best)

    def field(self, law: Components) -> Tensor:
        """sigma (grad log q_t - grad log p_t): the control that ends in the law q."""
        alpha, beta, sigma = (pick(v, self.k, self.x) for v in self.levels())
        return sigma * (law.score(self.x, alpha, beta) - self.base.score(self.x, self.k))

    def ends(self, law: Components, draws: int, source: Generator) -> Tensor:
        """(draws, times, n, d) X_1 | X_t where the terminal law of the paths is `law`."""
        alpha, beta, _ = (pick(v, self.k, self.x) for v in self.levels())
        return law.posterior(self.x.expand(draws, *self.x.shape), alpha, beta, source)

    def means(self, law: Components) -> Tensor:
        """E[X_1 | X_t], likewise."""
        alpha, beta, _ = (pick(v, self.k, self.x) for v in self.levels())
        return law.denoise(self.x, alpha, beta)

    def levels(self) -> tuple[list[float], list[float], list[float]]:
        return self.base.signals, self.base.noises, sigmas(self.base)


def points(
    base: MixtureFlow,
    now: Components,
    best: Components,
    times: tuple[float, ...],
    n: int,
    source: Generator,
) -> Points:
    """n points at each of the times, on the way to `now`; the goal is `best`."""
    steps = [round(t * base.steps) for t in times]
    k = torch.tensor(steps, device=source.device)[:, None].expand(-1, n)
    x1 = now.sample(k.numel(), source).reshape(*k.shape, -1)
    bare = Points(base, base.renoise(x1, k, source), k, x1, x1)
    return bare._replace(now=bare.field(now), best=bare.field(best))


def closed(p: Points, tilting: Tilting, law: Components, strength: float) -> dict[str, Tensor]:
    """E[T | X_t] with end points of q_strength = `law`, for affine grad r; AS on Gaussian bases, AM
    where `law` is that of the current control."""
    alpha, beta, sigma = (pick(v, p.k, p.x) for v in p.levels())
    w = pick([*share_of_signal(p.base), 1.0], p.k, p.x)
    slope = sigma * tilting.slope(p.means(law))
    csm = p.field(law)
    tsm = csm + (1 - strength) / alpha * slope
    s2 = p.base.spread**2
    return {
        "CSM": csm,
        "TSM": tsm,
        "NSM": (1 - w) * csm + w * tsm,
        "AS": alpha * s2 / (alpha**2 * s2 + beta**2) * slope,
        "AM": csm / strength if strength else _first_order(p, tilting),
    }


def _first_order(p: Points, tilting: Tilting) -> Tensor:
    """sigma grad_x E_base[r(X_1) | X_t = x], the limit of u_lambda / lambda at 0."""
    alpha, beta, sigma = (pick(v, p.k, p.x) for v in p.levels())
    x, law = p.x.clone().requires_grad_(), p.base.law
    mean = law.denoise(x, alpha, beta)
    zero = x.new_zeros(x.shape[-1])
    bend = float((tilting.slope(zero) - tilting.slope(zero + 1)).mean())
    r = tilting.reward(mean) - bend / 2 * law.left(x, alpha, beta)
    return sigma * torch.autograd.grad(r.sum(), x)[0]


def continued(p: Points, tilting: Tilting, x1: Tensor, source: Generator) -> Tensor:
    """(draws, times, n, d) sigma a_t of adjoint matching along bridges from X_t to x1, which are
    those of every memoryless control: exact path law, Jacobians of the ancestral chain (O(1/K))."""
    base, begun = p.base, p.k[:, 0].tolist()
    x, path = p.x.repeat(len(x1), 1, 1, 1), []
    for k in range(base.steps):
        path.append(x.clone())
        live = slice(sum(start <= k for start in begun))  # times ascend: the first have begun
        gain, pull, var = Ancestral().parts(base, k)
        xi = torch.randn(x[:, live].shape, generator=source, device=x.device, dtype=x.dtype)
        x[:, live] = gain * x[:, live] + pull * x1[:, live] + math.sqrt(var) * xi
    a = tilting.slope(x1).clone()
    for k in reversed(range(begun[0], base.steps)):
        live = slice(sum(start <= k for start in begun))
        a[:, live] = base.pull_back(path[k][:, live], k, a[:, live])
    return pick(sigmas(base), p.k, p.x) * a


ROUNDING = 1e-9


class Share(NamedTuple):
    """What an exact regression leaves of int E|u_lambda - u*|^2 dt: a ratio of means of paths."""

    value: float
    se: float  # the delta method's

    def __str__(self) -> str:
        if max(abs(self.value), self.se) < ROUNDING:
            return "0"
        return f"{self.value:.3g} ± {self.se:.1g}" if self.se > ROUNDING else f"{self.value:.3g}"


def share(after: Tensor, before: Tensor) -> Share:
    """Both (times, n)."""
    ratio = float(after.mean() / before.mean())
    spread = float((after - ratio * before).mean(0).std() / before.mean())
    return Share(ratio, spread / math.sqrt(after.shape[1]))


class Bias(NamedTuple):
    """One loss at one stage: E|E[T|X_t] - u*|^2 by twins and from the closed form of E[T|X_t]."""

    world: str
    schedule: str
    strength: float  # lambda
    ends: str  # unweighted, tempered, full
    loss: str
    square: Tensor  # (times,) by twins, with its error
    se: Tensor
    exact: Tensor | None  # (times,)
    before: Tensor  # (times,) E|u_lambda - u*|^2
    left: Share  # from the closed form where there is one, else by twins
    late: Share  # the same over t > 1/2
    z: float  # twins against the closed form
    apart: float  # by how many errors the twins could tell the closed form from the control itself

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.world, self.schedule, self.loss, self.ends


Head = tuple[str, str, float, str, str]


def judged(
    head: Head, p: Points, twins: tuple[Tensor, Tensor], mean: Tensor | None, late: int
) -> Bias:
    """twins (times, m <= n, d): means of T over draws, given the first m points; mean (times, n, d)
    E[T | X_t] where it is known.  `late` is the index from which times are past 1/2."""
    m = twins[0].shape[1]
    product = ((twins[0] - p.best[:, :m]) * (twins[1] - p.best[:, :m])).sum(-1)
    before = (p.now - p.best).square().sum(-1)
    z, apart, known, after = math.nan, math.nan, None, product
    if mean is not None:
        after = (mean - p.best).square().sum(-1)
        known = after.mean(1)
        far = (product - after[:, :m]).mean(0)
        size = float(far.std()) / math.sqrt(m) + 1e-9 * float(before.mean())  # T may be constant
        z = float(far.mean()) / size
        apart = abs(float((before - after).mean())) / size
    se = product.std(1) / math.sqrt(m)
    shares = share(after, before), share(after[late:], before[late:])
    return Bias(*head, product.mean(1), se, known, before.mean(1), *shares, z, apart)
