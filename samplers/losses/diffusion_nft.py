"""DiffusionNFT: a positive and a negative policy on noised end points (arXiv 2509.16117).

With old the control that drew X_1, q in [0, 1] how good X_1 is, and b > 0,

    q |u+ - steer|^2 + (1 - q) |u- - steer|^2,     u+- = u_old +- b (u - u_old),

is b^2 |u - u_old - (2 q - 1) / b (steer - u_old)|^2 but for a constant: it takes u_old to u_old +
E[(2 q - 1)(steer - u_old) | X_t] / b, which where u_old is matched is Cov(2 q - 1, steer | X_t) / b
(math.md 3.1).  Here 2 q - 1 is `match` plus the log-weight of the path that led to X_1 less the
mean of the others, divided by its standard deviation where that is above 1; the regression does not
mind a q beyond [0, 1], and to cut it would bias by O(dt), where weights have tails.  At u* all
paths are alike.  What is equal for all, `match`, draws u to E[steer | X_t], a control of the same
terminal law: without it such controls are not distinguished, and their errors add up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
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
    check_group,
    check_kl,
    reward_alone,
    standardised,
)
from tiltbench.samplers.networks.model import Model
from tiltbench.targets.bases.process import Path, Process
from tiltbench.targets.problem import Problem


@dataclass(frozen=True)
class Negative(Options):
    """`strength`: b, by which the policies are mixed, the smaller, the longer a step; `match`:
    2 q - 1 of the mean path."""

    strength: float = 1.0
    match: float = 0.5

    def __post_init__(self) -> None:
        check_strength(self.strength)
        check_match(self.match)

    def loss(self) -> Loss:
        return Loss("diffusion_nft", self.label, self.value, price, options=self)

    def label(
        self, problem: Problem, model: Model, path: Path, share: float, generator: Generator
    ) -> Batch:
        """Noised end points, with the quality of their paths."""
        with torch.no_grad():
            r = problem.reward(path.x[-1])
            log_w = path_log_w(noising(problem.base), path, r, problem.checks)
            weight = (1 + self.match + at_most_one(log_w)) / 2
            return weighed_points(problem, model, path, weight, generator)

    def value(self, model: Model, process: Process, batch: Batch, generator: Generator) -> Tensor:
        return both(control(model, process, batch), batch, self.strength).mean()


@dataclass(frozen=True)
class Published(Options):
    """`strength` as there; `group`: end points that are compared with one another; `kl`: the weight
    of |u|^2, the pull to the base, 0 for none."""

    strength: float = 1.0
    group: int = 24
    kl: float = 0.0

    def __post_init__(self) -> None:
        check_strength(self.strength)
        check_group(self.group)
        check_kl(self.kl)

    def loss(self) -> Loss:
        name = "diffusion_nft_published"
        return Loss(name, self.label, self.value, price, biased=True, options=self)

    def label(
        self, problem: Problem, model: Model, path: Path, share: float, generator: Generator
    ) -> Batch:
        with torch.no_grad():
            advantage = standardised(reward_alone(problem, path), self.group)
            weight = ((1 + advantage) / 2).clamp(0, 1)
            return weighed_points(problem, model, path, weight, generator)

    def value(self, model: Model, process: Process, batch: Batch, generator: Generator) -> Tensor:
        u = control(model, process, batch)
        return (both(u, batch, self.strength) + self.kl * u.square().sum(-1)).mean()


def both(u: Float[Tensor, "n d"], batch: Batch, strength: float) -> Float[Tensor, " n"]:
    """The losses of the two policies, weighed."""
    steer, old, q = batch["steer"], batch["u"], batch["weight"]
    step = strength * (u - old)
    positive, negative = ((old + way - steer).square().sum(-1) for way in (step, -step))
    return q * positive + (1 - q) * negative


def check_strength(strength: float) -> None:
    """Raises ValueError."""
    if not 0 < strength < math.inf:
        raise ValueError(f"strength is {strength}; it must be positive and finite")


diffusion_nft = Preset("diffusion_nft", Diffusion(build_loss(Negative()), repeats=4))
"""DiffusionNFT by the log-weights of paths."""

diffusion_nft_published = Preset(
    "diffusion_nft_published", Diffusion(build_loss(Published()), repeats=4, lr=PUBLISHED_LR)
)
"""The published form (arXiv 2509.16117): r standardised and cut, and no weights of paths.  With
kl = 0 it climbs E[2 q - 1] and nothing holds it; with kl > 0 its fixed point is u = b sigma
grad E[2 q - 1 | X_t] / kl (math.md 3.1)."""
