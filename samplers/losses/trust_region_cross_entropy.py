"""Cross-entropy towards a target within reach (trust regions for measures, arXiv 2508.12511).

P' is the law of `_trust_region` with KL(P' | P^v) <= radius, v the control that drew the batch, and

    KL(P' | P^u) = -E_P'[log dP^u/dP^base] + const,    E_P' by the weights softmax(beta log w),

so that u is fitted to P' by maximum likelihood: sum_k dt_k / 2 |u_k - z_k / sqrt(dt_k)|^2 along the
path, z_k the noise that would have driven the base there.  It covers all that P' covers, where
relative entropy seeks modes.  Values of the reward only; paths of another law than P^v are weighed
to it, and the weights of a kept batch stay what they were.  At beta = 1 the gradient vanishes at u*
in expectation but, unlike that of log-variance, not path by path: it wants many paths an iteration,
kept ones too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from tiltbench.samplers.diffusion import Diffusion, Preset
from tiltbench.samplers.loss import (
    Batch,
    Loss,
    Options,
    batch_path,
    build_loss,
    floored,
    path_batch,
)
from tiltbench.samplers.losses._additive import additive
from tiltbench.samplers.losses._trust_region import RADIUS, exponent
from tiltbench.samplers.losses.trust_region_log_variance import price
from tiltbench.samplers.networks.model import Model
from tiltbench.targets.bases.process import Path, Process, along
from tiltbench.targets.problem import Problem

NAME = "trust_region_cross_entropy"


@dataclass(frozen=True)
class Reach(Options):
    """`radius`: the most that KL(P' | P^v) may be for a batch, nats."""

    radius: float = RADIUS

    def __post_init__(self) -> None:
        if not 0 < self.radius < math.inf:
            raise ValueError(f"radius is {self.radius}; it must be positive and finite")

    def loss(self) -> Loss:
        return Loss(NAME, self.label, value, price, any_law=True, options=self)

    def label(
        self, problem: Problem, model: Model, path: Path, share: float, generator: Generator
    ) -> Batch:
        """The path, with the probability of each under P'."""
        base = additive(problem.base, NAME)
        with torch.no_grad():
            r = problem.reward(path.x[-1]).double()
            log_w = floored(r - base.log_ratio(path), problem.checks)
            log_q = None if path.excess is None else -path.excess
            tempered = exponent(log_w, self.radius, log_q) * log_w
            chance = torch.softmax(tempered if log_q is None else tempered + log_q, 0)
            return {**path_batch(path, r), "chance": chance}


def value(model: Model, process: Process, batch: Batch, generator: Generator) -> Tensor:
    path = batch_path(process, batch)
    ratio = process.log_ratio(replace(path, u=along(model, path)))
    return -(batch["chance"] * ratio).sum()


trust_region_cross_entropy = Preset(
    "trust_region_cross_entropy", Diffusion(build_loss(Reach()), repeats=8, memory=16)
)
"""Importance-weighted cross-entropy within a trust region (arXiv 2508.12511)."""
