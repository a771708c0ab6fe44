"""REINFORCE: E_u[A grad log dP^u], A the reward of a path less a baseline (math.md 3.1).

The reward of a path is r - kl log dP^u/dP^base, the baseline the mean of the other paths of the
batch (Williams, Mach. Learn. 8, 229, 1992; leave-one-out: Kool et al., ICLR 2019 workshop).  Its
expectation is kl times the negative KL(P^u | P_base exp(r / kl)), up to a constant: with kl = 1 the
optimum is u*, and the gradient is half that of log-variance on the same paths (arXiv 2010.10436),
zero path by path at u*.  A is that of the present control, so that kept batches and paths of any
law serve, as for log-variance.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from tiltbench.samplers.diffusion import Diffusion, Preset
from tiltbench.samplers.loss import Batch, Loss, Options, batch_path, build_loss
from tiltbench.samplers.losses._additive import additive
from tiltbench.samplers.losses._policy_gradient import (
    advantage_batch,
    centred,
    check_kl,
    price,
    reward_alone,
)
from tiltbench.samplers.losses.log_variance import log_variance
from tiltbench.samplers.networks.model import Model
from tiltbench.targets.bases.process import Path, Process, along
from tiltbench.targets.problem import Problem


@dataclass(frozen=True)
class Reinforce(Options):
    """`kl`: the weight of the path KL in the reward, whose fixed point is the tilt p_base
    exp(r / kl); at 0 there is none: the reward alone is climbed."""

    kl: float = 1.0

    def __post_init__(self) -> None:
        check_kl(self.kl)

    def loss(self) -> Loss:
        return log_variance._replace(
            name="reinforce",
            value=self.value,
            by_weights=False,
            biased=self.kl != 1,
            options=self,
        )

    def value(self, model: Model, process: Process, batch: Batch, generator: Generator) -> Tensor:
        """Not the objective: a number whose gradient is minus the estimate."""
        base, path = additive(process, "reinforce"), batch_path(process, batch)
        ratio = base.log_ratio(replace(path, u=along(model, path)))
        score = batch["r"].double() - self.kl * ratio.detach()
        return -(centred(score) * ratio).mean()


@dataclass(frozen=True)
class Dpok(Options):
    """`kl`: the weight of the KL as a loss, with the states of the paths held fixed."""

    kl: float = 1.0

    def __post_init__(self) -> None:
        check_kl(self.kl)

    def loss(self) -> Loss:
        return Loss("dpok", label, self.value, price, biased=True, options=self)

    def value(self, model: Model, process: Process, batch: Batch, generator: Generator) -> Tensor:
        base, path = additive(process, "dpok"), batch_path(process, batch)
        now = replace(path, u=along(model, path))
        climbed = (batch["advantage"] * base.log_ratio(now)).mean()
        return self.kl * base.running_cost(now).mean() - climbed


def label(problem: Problem, model: Model, path: Path, share: float, generator: Generator) -> Batch:
    """The path, with r less the mean of the others."""
    with torch.no_grad():
        return advantage_batch(path, centred(reward_alone(problem, path)))


reinforce = Preset("reinforce", Diffusion(build_loss(Reinforce())))
"""REINFORCE with the path KL in the reward and a leave-one-out baseline."""

dpok = Preset("dpok", Diffusion(build_loss(Dpok())))
"""The published form with a KL weight (DPOK, arXiv 2305.16381): REINFORCE on r, and a KL loss at
fixed states.  It ends at half of the control of the tilt by 2 r / kl, which for a linear r on a
Gaussian base is the tilt by r / kl, and elsewhere no tilt at all (math.md 3.1)."""
