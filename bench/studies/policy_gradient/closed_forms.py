"""The noise of gradients in closed form: linear rewards, and a control that is free at every step.

On a Gaussian base with r = c . x and u_k = theta_k + lambda u*_k, the theta_k in R^D free at each
of K steps and 0, a path has log w = (1 - lambda) sum_k sqrt(dt_k) u*_k . z_k but for a constant,
and the estimate of the gradient by theta_k from one path is, for REINFORCE, log w sqrt(dt_k) z_k.
So with V = sum_k dt_k |u*_k|^2, on a uniform grid and for any lambda other than 1 and any |c|,

    tr Cov / |E|^2 of a path = 1 + D V / sum_k dt_k^2 |u*_k|^2,      about D K + 1,

which n paths divide by n.  A forward-process loss of u = u_old has A (steer - u) from one noised
point of an end point: at step k

    tr Cov / |E|^2 of a point = 1 + D spread^2 / Var(X_1 | X_k),

D + 1 at the start, and unbounded at the end.  Adjoint matching regresses on u*_k itself: 0.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.samplers.diffusion import Diffusion
from tiltbench.samplers.networks.control import Control
from tiltbench.samplers.networks.model import Model
from tiltbench.targets.bases.linear import Linear
from tiltbench.targets.problem import Problem


class Free(Control):
    """u_k = share u*_k + theta_k for r = c . x: a parameter a step and coordinate, 0 at first."""

    guided = False

    def __init__(self, base: Linear, slope: Float[Tensor, " d"], share: float) -> None:
        super().__init__()
        self.base, self.slope, self.share = base, slope, share
        self.theta = torch.nn.Parameter(torch.zeros(base.steps, len(slope)))

    def control(
        self, x: Float[Tensor, "*b d"], t: Tensor, hint: Tensor | None = None
    ) -> Float[Tensor, "*b d"]:
        k = (t * self.base.steps).round().long().expand(x.shape[:-1])
        pull = self.base.pull(k, self.slope.to(x).expand_as(x))
        return self.share * pull + self.theta[k]


def linear(base: Linear, slope: Float[Tensor, " d"]) -> Problem:
    """r = c . x."""
    return Problem(len(slope), base, lambda x: (x * slope.to(x)).sum(-1))


def free_gradients(
    sampler: Diffusion,
    base: Linear,
    slope: Float[Tensor, " d"],
    share: float,
    batches: int,
    seed: int,
) -> Float[Tensor, "m k d"]:
    """Gradients by theta of fresh batches, float64."""
    problem, model = linear(base, slope), Model(Free(base, slope, share))
    rows = [
        sampler.gradient(problem, model, 1.0, Generator().manual_seed(seed + i))
        for i in range(batches)
    ]
    return torch.stack(rows).reshape(batches, base.steps, len(slope))


def reinforce_ratio(base: Linear, dim: int) -> float:
    """tr Cov / |E|^2 of a path, all steps together."""
    dt = [t - s for s, t in zip(base.times[:-1], base.times[1:], strict=True)]
    squares = [pull**2 for pull in base.pulls]
    power = sum(d * square for d, square in zip(dt, squares, strict=True))
    return 1 + dim * power / sum(d * d * square for d, square in zip(dt, squares, strict=True))


def forward_ratio(base: Linear, k: int, dim: int) -> float:
    """tr Cov / |E|^2 of a point at step k, of a forward-process loss on a memoryless base."""
    return 1 + dim * base.spread**2 / base.ahead[k][1]


def ratio(rows: Float[Tensor, "m p"]) -> float:
    """tr Cov / |E|^2 of independent gradients, both unbiased."""
    noise = float(rows.var(0).sum())
    signal = float(rows.mean(0).square().sum()) - noise / len(rows)
    return noise / signal
