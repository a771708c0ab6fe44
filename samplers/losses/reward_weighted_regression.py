"""Reward-weighted regression: u on steer(X_t, X_1) with weights exp(h r(X_1)) / mean exp(h r).

X_1 are draws of a frozen control, at first the base itself (Peters and Schaal, ICML 2007; for
diffusions arXiv 2302.12192, 2305.13301; math.md 3.1).  Draws of p_base exp(a r) lead to p_base
exp((a + h) r), exactly: `rounds` rounds of h = 1 / rounds end in the tilt.  Rounds without end, as
they are published, go on to p_base exp(n h r).  One round is offline: importance weights of the
base's own draws, whose ESS is that of exp r under the base.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from tiltbench.samplers.diffusion import Diffusion, Preset
from tiltbench.samplers.loss import Batch, Loss, Options, build_loss, floored
from tiltbench.samplers.losses._forward_process import (
    before,
    control,
    points,
    price,
    relative_weights,
    stage,
)
from tiltbench.samplers.losses._matching import POINTS
from tiltbench.samplers.networks.model import Model
from tiltbench.targets.bases.process import Path, Process
from tiltbench.targets.problem import Problem


@dataclass(frozen=True)
class Rounds(Options):
    """`rounds`: how often the frozen control is renewed, at equal parts of the training."""

    rounds: int = 1

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ValueError(f"rounds is {self.rounds}; it must be 1 or more")

    def loss(self) -> Loss:
        return Loss(
            "reward_weighted_regression",
            self.label,
            value,
            price,
            staged=True,
            behaviour=before,
            options=self,
        )

    def goal(self, share: float) -> float:
        """The tilt that is trained for when `share` of the budget is spent."""
        return (min(int(share * self.rounds), self.rounds - 1) + 1) / self.rounds

    def label(
        self, problem: Problem, model: Model, path: Path, share: float, generator: Generator
    ) -> Batch:
        with torch.no_grad(), stage(model, self.goal(share)) as now:
            batch = points(problem, model, path, generator)
            r = floored(problem.reward(path.x[-1]), problem.checks)
            batch["weight"] = relative_weights((now.goal - now.tilt) * r).repeat(POINTS)
        return batch


def value(model: Model, process: Process, batch: Batch, generator: Generator) -> Tensor:
    off = control(model, process, batch) - batch["steer"]
    return (batch["weight"] * off.square().sum(-1)).mean()


reward_weighted_regression = Preset(
    "reward_weighted_regression", Diffusion(build_loss(Rounds()), repeats=8, memory=16)
)
"""Reward-weighted regression on draws of the base."""
