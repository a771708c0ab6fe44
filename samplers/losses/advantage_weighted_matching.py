"""Advantage-weighted matching: policy gradients whose log-likelihood is a matching loss.

The log-ratio of X_1 between the control and the one that drew it, `old`, is estimated at one noised
point by the difference of their denoising losses (arXiv 2509.25050; math.md 3.1),

    log rho = (|u_old - steer|^2 - |u - steer|^2) / 2,

and PPO's objective min(rho A, clip(rho) A) is climbed.  A is the log-weight of the path that led to
X_1 less the mean of the others, 0 on every path at u*; beside it the gradient is u - u* to first
order, as far as the terminal law goes: controls of one terminal law are distinguished by a plain
matching loss on the control's own draws, which is added (`match`) and leaves that law alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from tiltbench.samplers.diffusion import Diffusion, Preset
from tiltbench.samplers.loss import Batch, Loss, Options, build_loss
from tiltbench.samplers.losses._forward_process import (
    PUBLISHED_LR,
    check_match,
    control,
    price,
    weighed_points,
)
from tiltbench.samplers.losses._matching import noising, path_log_w
from tiltbench.samplers.losses._policy_gradient import (
    at_most_one,
    check_clip,
    check_group,
    check_kl,
    clipped,
    reward_alone,
    standardised,
)
from tiltbench.samplers.networks.model import Model
from tiltbench.targets.bases.process import Path, Process
from tiltbench.targets.problem import Problem


@dataclass(frozen=True)
class Weighted(Options):
    """`clip_range`: what the estimated ratio of an end point may be off 1 by; `match`: the weight
    of |u - steer|^2 / 2 without advantages."""

    clip_range: float = 0.5
    match: float = 0.5

    def __post_init__(self) -> None:
        check_clip(self.clip_range)
        check_match(self.match)

    def loss(self) -> Loss:
        return Loss("advantage_weighted_matching", label, self.value, price, options=self)

    def value(self, model: Model, process: Process, batch: Batch, generator: Generator) -> Tensor:
        u = control(model, process, batch)
        off = (u - batch["steer"]).square().sum(-1).mean() / 2
        return self.match * off - objective(u, batch, self.clip_range)


@dataclass(frozen=True)
class Published(Options):
    """`group`: end points that are compared with one another; `clip_range` as there; `kl`: the
    weight of |u|^2 / 2, the pull to the base."""

    group: int = 24
    clip_range: float = 0.5
    kl: float = 0.04

    def __post_init__(self) -> None:
        check_group(self.group)
        check_clip(self.clip_range)
        check_kl(self.kl)

    def loss(self) -> Loss:
        name = "advantage_weighted_matching_published"
        return Loss(name, self.label, self.value, price, biased=True, options=self)

    def label(
        self, problem: Problem, model: Model, path: Path, share: float, generator: Generator
    ) -> Batch:
        with torch.no_grad():
            weight = standardised(reward_alone(problem, path), self.group)
            return weighed_points(problem, model, path, weight, generator)

    def value(self, model: Model, process: Process, batch: Batch, generator: Generator) -> Tensor:
        u = control(model, process, batch)
        pull = u.square().sum(-1).mean() / 2
        return self.kl * pull - objective(u, batch, self.clip_range)


def label(problem: Problem, model: Model, path: Path, share: float, generator: Generator) -> Batch:
    """Noised end points, with the log-weights of their paths less the mean."""
    with torch.no_grad():
        r = problem.reward(path.x[-1])
        log_w = path_log_w(noising(problem.base), path, r, problem.checks)
        return weighed_points(problem, model, path, at_most_one(log_w), generator)


def objective(u: Tensor, batch: Batch, clip_range: float) -> Tensor:
    """PPO's, of u at the points of a batch."""
    steer, old = batch["steer"], batch["u"]
    log_ratio = ((old - steer).square() - (u - steer).square()).sum(-1) / 2
    return clipped(log_ratio, batch["weight"], clip_range).mean()


advantage_weighted_matching = Preset(
    "advantage_weighted_matching", Diffusion(build_loss(Weighted()), repeats=4)
)
"""Advantage-weighted matching with the log-weights of paths for advantages."""

advantage_weighted_matching_published = Preset(
    "advantage_weighted_matching_published",
    Diffusion(build_loss(Published()), repeats=4, lr=PUBLISHED_LR),
)
"""The published form (arXiv 2509.25050): r standardised within groups, and a pull to the base of
weight `kl`.  Its fixed point is u = sigma grad E[r | X_t] / (kl s), s the standard deviation of r
under the law it reaches: no tilt but for a linear r on a Gaussian base (math.md 3.1)."""
