"""Flow-GRPO: clipped policy gradients with advantages relative to a group (arXiv 2505.05470).

The paths of a group are compared with one another, A = (R - mean) / std over the group, and the
clipped objective of DDPO is climbed (math.md 3.1).  A flow gets its noise by an SDE of the same
marginals: the target's `stepping=Converted` with the published sigma, or any other, for a tilt
brings the noise of its base.  Without prompts a group is any paths of a batch.  Here R = r - kl log
dP^old/dP^base; with kl = 1 all R agree at u*.  Division by the standard deviation changes the size
of a step, not where it ends; as published it does, for there the KL is not divided.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from tiltbench.samplers.diffusion import Diffusion, Preset
from tiltbench.samplers.loss import Batch, Loss, Options, build_loss
from tiltbench.samplers.losses._additive import additive
from tiltbench.samplers.losses._policy_gradient import (
    advantage_batch,
    check_clip,
    check_group,
    check_kl,
    climb,
    kl_in_reward,
    price,
    reward_alone,
    standardised,
)
from tiltbench.samplers.networks.model import Model
from tiltbench.targets.bases.process import Path, Process
from tiltbench.targets.problem import Problem


@dataclass(frozen=True)
class Grouped(Options):
    """`group`: paths that are compared with one another; `clip_range`: what a step's ratio may be
    off 1 by; `kl`: the weight of the path KL in the reward, whose fixed point is the tilt
    p_base exp(r / kl)."""

    group: int = 24
    clip_range: float = 0.2
    kl: float = 1.0

    def __post_init__(self) -> None:
        check_group(self.group)
        check_clip(self.clip_range)
        check_kl(self.kl)

    def loss(self) -> Loss:
        return Loss("flow_grpo", self.label, self.value, price, biased=self.kl != 1, options=self)

    def label(
        self, problem: Problem, model: Model, path: Path, share: float, generator: Generator
    ) -> Batch:
        base = additive(problem.base, "flow_grpo")
        with torch.no_grad():
            score = kl_in_reward(problem, base, path, self.kl)
            return advantage_batch(path, standardised(score, self.group))

    def value(self, model: Model, process: Process, batch: Batch, generator: Generator) -> Tensor:
        return -climb(process, "flow_grpo", model, batch, self.clip_range).objective


@dataclass(frozen=True)
class Published(Options):
    """`group`, `clip_range` as there; `kl`: the weight of a KL loss at fixed states."""

    group: int = 24
    clip_range: float = 0.2
    kl: float = 0.04

    def __post_init__(self) -> None:
        check_group(self.group)
        check_clip(self.clip_range)
        check_kl(self.kl)

    def loss(self) -> Loss:
        return Loss("flow_grpo_published", self.label, self.value, price, biased=True, options=self)

    def label(
        self, problem: Problem, model: Model, path: Path, share: float, generator: Generator
    ) -> Batch:
        with torch.no_grad():
            return advantage_batch(path, standardised(reward_alone(problem, path), self.group))

    def value(self, model: Model, process: Process, batch: Batch, generator: Generator) -> Tensor:
        objective = climb(process, "flow_grpo_published", model, batch, self.clip_range)
        return self.kl * objective.fixed_state_kl - objective.objective


flow_grpo = Preset("flow_grpo", Diffusion(build_loss(Grouped()), repeats=4))
"""Group-relative policy gradients with the path KL in the reward."""

flow_grpo_published = Preset("flow_grpo_published", Diffusion(build_loss(Published()), repeats=4))
"""The published form (arXiv 2505.05470): r alone, standardised within groups, and a KL loss at
fixed states of weight `kl`.  Its temperature is kl times the standard deviation of r under the law
it reaches (math.md 3.1): the tilt by r is not among its fixed points but by chance."""
