"""The recipes that make an escort of a base: annealed, and transported."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.samplers.loss import Loss
from tiltbench.samplers.networks.model import Model
from tiltbench.samplers.recipes.annealing import Annealing, Ramp, ThroughFlow
from tiltbench.samplers.recipes.escort import (
    Divergence,
    Escort,
    EscortPath,
    KernelRatio,
    MeasuredPath,
    escorted,
)
from tiltbench.samplers.recipes.recipe import Recipe
from tiltbench.samplers.sampler import Unsupported
from tiltbench.targets.bases.noising import Noising
from tiltbench.targets.bases.process import Path, Process
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem, Reward


class _Annealed(Recipe):
    """What both recipes share: everything but how a path is weighed."""

    annealing: Annealing
    eps: float
    ratio: float

    def noise(self, flow: Noising) -> tuple[float, ...]:
        """eps_t = eps Var(X_t) ratio^(-2t) of every step, of the base at its earlier end."""
        here = zip(flow.times[:-1], flow.mean_squares[:-1], strict=True)
        return tuple(self.eps * variance * self.ratio ** (-2 * t) for t, variance in here)

    def simulate(self, problem: Problem, model: Model, n: int, generator: Generator) -> EscortPath:
        return _escort(problem).simulate(model, (n, problem.dim), generator, model.guided)

    def retrace(
        self, problem: Problem, model: Model, x: Float[Tensor, "n d"], generator: Generator
    ) -> EscortPath | None:
        return _escort(problem).retrace(model, x, generator, model.guided)

    def price(self, loss: Loss, paths: int, steps: int, guided: bool) -> Cost:
        """A value and a gradient at each of K + 1 points, hints included; differentiating through
        the path costs a second gradient at all but the first.  An upper bound: where r is
        linear there is none to take, and a learning rate that follows what was paid ends early;
        `batches` then says better how long training is."""
        points = paths * (steps + 1)
        again = paths * steps if loss.through_path else 0
        return loss.price(paths, steps, False).plus(Cost(points, points + again))


class Kernels(_Annealed):
    """Annealing whose weights are ratios of kernels, which need noise."""

    def __post_init__(self) -> None:
        _fallen(self.ratio)
        if not 0 < self.eps < math.inf:
            raise ValueError(f"eps is {self.eps}; it must be positive and finite")
        if self.eps < LEAST:
            raise ValueError(
                f"eps is {self.eps}; below {LEAST} the two kernels of a step hardly meet: use "
                "recipe=Transported, which takes any eps from 0 on"
            )
        end = self.eps * self.ratio**-2
        if end < LEAST:
            raise ValueError(
                f"eps / ratio^2, the noise at the end, is {end:.2g}; below {LEAST} the two kernels "
                "of a step hardly meet: lower ratio, or raise eps"
            )


@dataclass(frozen=True)
class Escorted(Kernels):
    """Annealing weighed by kernel ratios: tilted controlled Crooks (math.md 5.3), eps > 0.

    The noise is eps Var(X_t) ratio^(-2t), Var(X_t) of the base.  It has to fall: a step eps_t dt
    that is large beside the square of a mode's width overshoots, and one that is right for a mode
    at the end does not mix at the start.  CMCD (arXiv 2307.01050) on a static base.  grad r may be
    clipped: any drift has its exact ratio.
    Without the base's density the weights are off by O(dt / eps); eps below LEAST is refused."""

    name: ClassVar[str] = "Escorted"
    annealing: Annealing = ThroughFlow()
    eps: float = 1.0
    ratio: float = 4.0

    def process(self, problem: Problem, tamed: Reward) -> Escort:
        flow = started(problem.base)
        return Escort(flow, tamed, self.annealing, self.noise(flow), KernelRatio())


@dataclass(frozen=True)
class Transported(_Annealed):
    """Annealing weighed by the divergence of w: tilted escorted Jarzynski (math.md 5.2), eps >= 0.

    The noise is eps Var(X_t) ratio^(-2t), Var(X_t) of the base; eps = 0 is a flow.  NETS
    (arXiv 2410.02711).  Drawing takes the divergence exactly in any dimension: an estimate's noise
    would raise the mean of exp A.  grad r is never clipped: A needs it as it is.  Raises
    Unsupported where r = -inf is met: the identity needs a reward that is finite everywhere."""

    name: ClassVar[str] = "Transported"
    annealing: Annealing = Ramp()
    eps: float = 0.15
    ratio: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.eps < math.inf:
            raise ValueError(f"eps is {self.eps}; it must be 0 or more, and finite")
        _fallen(self.ratio)

    def process(self, problem: Problem, tamed: Reward) -> Escort:
        flow = started(problem.base)
        return Escort(flow, problem.reward, self.annealing, self.noise(flow), Divergence())

    def simulate(self, problem: Problem, model: Model, n: int, generator: Generator) -> EscortPath:
        return _finite(problem, super().simulate(problem, model, n, generator))

    def retrace(
        self, problem: Problem, model: Model, x: Float[Tensor, "n d"], generator: Generator
    ) -> EscortPath:
        path = _escort(problem).retrace(model, x, generator, model.guided)
        return _finite(problem, path)

    def weighed(self, problem: Problem, model: Model, path: Path) -> MeasuredPath:
        """With div w at every point."""
        here, growth = escorted(path), problem.base.spread * divergences(model, path)
        known = {part.name: getattr(here, part.name) for part in fields(EscortPath)}
        return MeasuredPath(**known, growth=growth)


def _finite(problem: Problem, path: EscortPath) -> EscortPath:
    """The path, if no wall was met: A would die there, where the law is reflected."""
    problem.checks.never((path.height == -torch.inf).any(), _wall)
    return path


def _wall() -> Unsupported:
    return Unsupported(
        "the divergence form needs a reward that is finite everywhere, and this one is -inf at "
        "points of the paths: use recipe=Escorted"
    )


def divergences(model: Model, path: Path) -> Float[Tensor, " k1 *b"]:
    """div u at every point of a path, exactly: a time, and DIRECTIONS of them, at once."""
    axes = torch.eye(path.x.shape[-1], dtype=path.x.dtype, device=path.x.device)
    totals = torch.zeros_like(path.x[..., 0])
    with torch.no_grad():
        for k, t in enumerate(path.t):
            for some in axes.split(DIRECTIONS):
                totals[k] += model.stretched(path.x[k], t, some)[1].sum(-1)
    return totals


DIRECTIONS = 64  # bounds the memory


LEAST = 1e-3  # Var(X_t)
STEEPEST = 1e3  # sqrt of the noise at the start beside that at the end


def _escort(problem: Problem) -> Escort:
    assert isinstance(problem.base, Escort)
    return problem.base


def _fallen(ratio: float) -> None:
    if not 1 / STEEPEST <= ratio <= STEEPEST:
        raise ValueError(f"ratio is {ratio}; it must be from {1 / STEEPEST:g} to {STEEPEST:g}")


def started(base: Process) -> Noising:
    """The base, if an escort can start on it."""
    if not isinstance(base, Noising):
        raise Unsupported("an escort needs a base whose score and velocity are known (Noising)")
    if base.noises[0] == 0:
        raise Unsupported(
            "an escort starts from the base's density at t = 0, and this base starts from a point: "
            "use reference=Stationary"
        )
    return base
