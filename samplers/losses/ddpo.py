"""DDPO: policy gradients with PPO's clipping at every step of a path (arXiv 2305.13301).

    sum_k min(rho_k A, clip(rho_k, 1 - c, 1 + c) A),      rho_k = N_u(x_{k+1} | x_k) / N_old(...),

(math.md 3.1) is climbed for several steps of the optimiser on the paths of one control, `old`; at
u = old its gradient is that of REINFORCE.  Their reward is r - kl log dP^old/dP^base, brought to
mean 0 and to a standard deviation of at most 1 over the batch.  With kl = 1 all A are 0 at u*, path
by path.
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
    at_most_one,
    check_clip,
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
class Clipped(Options):
    """`clip_range`: what a step's ratio may be off 1 by; `kl`: the weight of the path KL in the
    reward, whose fixed point is the tilt p_base exp(r / kl)."""

    clip_range: float = 0.2
    kl: float = 1.0

    def __post_init__(self) -> None:
        check_clip(self.clip_range)
        check_kl(self.kl)

    def loss(self) -> Loss:
        return Loss("ddpo", self.label, self.value, price, biased=self.kl != 1, options=self)

    def label(
        self, problem: Problem, model: Model, path: Path, share: float, generator: Generator
    ) -> Batch:
        base = additive(problem.base, "ddpo")
        with torch.no_grad():
            score = kl_in_reward(problem, base, path, self.kl)
            return advantage_batch(path, at_most_one(score))

    def value(self, model: Model, process: Process, batch: Batch, generator: Generator) -> Tensor:
        return -climb(process, "ddpo", model, batch, self.clip_range).objective


@dataclass(frozen=True)
class Published(Options):
    """`clip_range` as there; `kl`: the weight of a KL loss at fixed states, 0 as published."""

    clip_range: float = 0.2
    kl: float = 0.0

    def __post_init__(self) -> None:
        check_clip(self.clip_range)
        check_kl(self.kl)

    def loss(self) -> Loss:
        return Loss("ddpo_published", label, self.value, price, biased=True, options=self)

    def value(self, model: Model, process: Process, batch: Batch, generator: Generator) -> Tensor:
        objective = climb(process, "ddpo_published", model, batch, self.clip_range)
        return self.kl * objective.fixed_state_kl - objective.objective


def label(problem: Problem, model: Model, path: Path, share: float, generator: Generator) -> Batch:
    """The path, with r standardised over the batch."""
    with torch.no_grad():
        r = reward_alone(problem, path)
        return advantage_batch(path, standardised(r, len(r)))


ddpo = Preset("ddpo", Diffusion(build_loss(Clipped()), repeats=4))
"""Clipped policy gradients with the path KL in the reward: four steps of the optimiser a batch."""

ddpo_published = Preset("ddpo_published", Diffusion(build_loss(Published()), repeats=4))
"""The published form (arXiv 2305.13301): r alone, standardised, and no KL.  Nothing holds it: the
reward is climbed as far as the noise of the chain lets it."""
