"""Guidance by the reward of the denoised estimate: no training, a gradient at every step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.samplers.at_once import at_once
from tiltbench.samplers.baselines._pool import CHUNK
from tiltbench.samplers.sampler import Draws, Traced, TrainingFree, Unsupported
from tiltbench.targets.bases.linear import Linear
from tiltbench.targets.bases.noising import Noising
from tiltbench.targets.bases.process import Controlled, Path, Stepper, passing, retrace, simulate
from tiltbench.targets.bases.references import Brownian
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem, graded, log_weight


@dataclass(frozen=True)
class Guidance(TrainingFree):
    """The base's chain with u_k = strength std_k / sqrt(dt_k) grad_y r(E_base[X_1 | X_{k+1} = y]),
    y the base's mean of the step (in the manner of DPS, arXiv 2209.14687).

    It puts the reward of the mean in the place of log E_base[exp r(X_1) | y], which makes it exact
    for a Gaussian base with a linear reward and wrong elsewhere; path weights, log_w = r(x_K) -
    log dP^u/dP^base, are exact and repair it as far as their ess allows.  Nothing is spent in
    training; a draw costs a gradient a step, and a value more.  Raises Unsupported where the base
    has no denoiser.
    """

    name: ClassVar[str] = "guidance"
    reference: Linear = Brownian()
    strength: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.strength < math.inf:
            raise ValueError(f"strength is {self.strength}; it must be at least 0 and finite")

    def init(self, problem: Problem, budget: Cost, generator: Generator) -> None:
        noising(problem)

    @torch.no_grad()
    def draw(self, problem: Problem, state: None, n: int, generator: Generator) -> Draws:
        ahead, parts = Ahead(problem, self.strength), []
        most = at_once(CHUNK, problem.dim, generator.device)
        for start in range(0, n, most):
            shape = (min(most, n - start), problem.dim)
            with problem.checks.together():
                path = simulate(ahead.base, ahead, shape, generator)
                parts.append(_weighed(problem, path))
        xs, log_ws = zip(*parts, strict=True)
        return Draws(torch.cat(xs), torch.cat(log_ws))

    @torch.no_grad()
    def reverse(
        self, problem: Problem, state: None, x: Float[Tensor, "n d"], generator: Generator
    ) -> Traced:
        ahead = Ahead(problem, self.strength)
        parts = x.float().split(at_once(CHUNK, problem.dim, x.device))
        return _traced(problem, parts, lambda x: retrace(ahead.base, ahead, x, generator))

    @torch.no_grad()
    def along(
        self, problem: Problem, state: None, x: Float[Tensor, "k1 n d"], generator: Generator
    ) -> Traced:
        ahead = Ahead(problem, self.strength)
        parts = x.float().split(at_once(CHUNK, problem.dim, x.device), dim=1)
        return _traced(problem, parts, lambda x: passing(ahead.base, ahead, x))


def _traced(problem: Problem, parts: Sequence[Tensor], paths: Callable[[Tensor], Path]) -> Traced:
    log_ws, xs, us = [], [], []
    for part in parts:
        with problem.checks.together():
            path = paths(part)
            log_ws.append(_weighed(problem, path)[1])
        xs.append(path.x)
        us.append(path.u)
    return Traced(torch.cat(log_ws), path.t, torch.cat(xs, 1), torch.cat(us, 1))


def noising(problem: Problem) -> Noising:
    if not isinstance(problem.base, Noising):
        raise Unsupported("guidance needs a base with a denoiser (Noising)")
    return problem.base


def _weighed(problem: Problem, path: Path) -> tuple[Tensor, Tensor]:
    x = path.x[-1]
    return x, log_weight(problem, path)


class Ahead(Controlled):
    """The control of `Guidance`, for whoever looks at its paths."""

    def __init__(self, problem: Problem, strength: float) -> None:
        self.base, self.strength = noising(problem), strength
        self.reward = graded(problem.reward, problem.checks)

    def at(self, x: Float[Tensor, "*b d"], k: int) -> Float[Tensor, "*b d"]:
        """u(x, t_k)."""
        mean, std = self.base.base(x, k)
        with torch.enable_grad():
            y = mean.detach().requires_grad_()
            clean = self.base.denoise(y, k + 1) if self.base.noises[k + 1] else 1 * y
            _, slope = self.reward.value_and_grad(clean.detach())
            (g,) = torch.autograd.grad(clean, y, slope)
        dt = self.base.times[k + 1] - self.base.times[k]
        return self.strength * std / math.sqrt(dt) * g

    def on_grid(self, t: Float[Tensor, " k"]) -> Stepper:
        def step(x: Tensor, k: int | Tensor, hint: Tensor | None) -> Tensor:
            assert isinstance(k, int)
            return self.at(x, k)

        return step

    def control(
        self, x: Float[Tensor, "*b d"], t: Tensor, hint: Tensor | None = None
    ) -> Float[Tensor, "*b d"]:
        middle = self.base.grid(x)[:-1] + self.base.grid(x).diff() / 2
        k = torch.bucketize(t.expand(x.shape[:-1]).contiguous(), middle)
        u = torch.empty_like(x)
        for i in k.unique().tolist():
            u[k == i] = self.at(x[k == i], i)
        return u
