"""Adjoint matching: regress u on sigma a_t, a the lean adjoint (arXiv 2409.08861).

a_K = grad r(x_K) is pulled back through the base means, so a Gaussian base costs no network and any
other one vector-Jacobian product a step.  Paths come from the present control: a fixed-point
iteration, whose optimum is the control problem's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from tiltbench.samplers.diffusion import Diffusion, Preset
from tiltbench.samplers.loss import (
    Batch,
    Loss,
    Options,
    build_loss,
    hints,
    regress,
    reward_and_grad,
    squared_errors,
)
from tiltbench.samplers.losses._additive import additive
from tiltbench.samplers.networks.model import Model
from tiltbench.targets.bases.process import Path, Process
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem


def label(
    problem: Problem,
    model: Model,
    path: Path,
    share: float,
    generator: Generator,
    last_noise: float = 1.0,
) -> Batch:
    """y_k = std_k / sqrt(dt_k) a_{k+1} at every point of the path, with a_K = grad r at the end of
    the path whose last noise is scaled by `last_noise`."""
    base = additive(problem.base, "adjoint matching")
    steered = path.mean[-1] + path.std[-1] * path.dt[-1].sqrt() * path.u[-1]
    end = path.x[-1] if last_noise == 1 else torch.lerp(steered, path.x[-1], last_noise)
    _, a = reward_and_grad(problem, end)
    sigma = (path.std / path.dt.sqrt()).reshape(-1, *[1] * a.dim())
    y = sigma * base.adjoints(path.x, a)
    batch = {"x": path.x[:-1], "t": path.t[:-1, None], "y": y}
    return batch if path.hint is None else {**batch, "hint": path.hint}


def value(model: Model, process: Process, batch: Batch, generator: Generator) -> Tensor:
    return regress(model, batch["x"], batch["t"], batch["y"], batch.get("hint"))


def price(paths: int, steps: int, guided: bool) -> Cost:
    return Cost(paths, paths).plus(hints(paths, steps, guided))


adjoint_matching = Loss("adjoint_matching", label, value, price, pulls_back=True)


@dataclass(frozen=True)
class Tricks(Options):
    """What is done on images (arXiv 2409.08861 and public code), each with a number of its own.

    Regressed are the last `late` K steps of the grid and, drawn anew at every use, `early` K of the
    others without replacement, all with the same weight: the optimum at a time does not depend on
    the weight of that time.  The error at a point counts as min(|u - y|^2, threshold): beyond it
    there is no gradient, so a target that is noisy beyond sqrt(threshold) is biased towards its
    mode.  grad r is taken where the path ends with `last_noise` times the noise of its last step, 0
    being the noiseless end; that moves a_K by O(dt).  Public implementations have 10 + 10 of 40
    steps, threshold 1.6 lambda^2 where r is lambda times a reward model, and last_noise 0; the
    paper itself was not at hand to confirm these numbers.
    """

    late: float = 0.25
    early: float = 0.25
    threshold: float = 1000.0
    last_noise: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.late <= 1 and 0 <= self.early <= 1 and 0 < self.late + self.early <= 1):
            raise ValueError(
                f"late is {self.late} and early is {self.early}; they are shares of the grid, "
                "which add up to more than 0 and at most 1"
            )
        if not 0 < self.threshold < math.inf:
            raise ValueError(f"threshold is {self.threshold}; it must be positive and finite")
        if not 0 <= self.last_noise <= 1:
            raise ValueError(f"last_noise is {self.last_noise}; it must be from 0 to 1")

    def loss(self) -> Loss:
        noiseless = partial(label, last_noise=self.last_noise)
        return Loss(
            "adjoint_matching_tricks", noiseless, self.value, price, pulls_back=True, options=self
        )

    def chosen(self, steps: int, generator: Generator) -> Int[Tensor, " n"]:
        """The steps that are regressed, ascending; at least one."""
        late = min(math.ceil(self.late * steps), steps)
        early = min(math.ceil(self.early * steps), steps - late)
        order = torch.randperm(steps - late, generator=generator, device=generator.device)
        last = torch.arange(steps - late, steps, device=generator.device)
        return torch.cat([order[:early].sort().values, last])

    def value(
        self, model: Model, process: Process, batch: Batch, generator: Generator
    ) -> Float[Tensor, ""]:
        """E min(|u - y|^2, threshold) over the chosen steps."""
        k = self.chosen(len(batch["x"]), generator)
        x, t, y = (batch[key][k] for key in ("x", "t", "y"))
        hint = batch["hint"][k] if "hint" in batch else None
        return squared_errors(model, x, t, y, hint).clamp(max=self.threshold).mean()


adjoint_matching_tricks = Preset("adjoint_matching_tricks", Diffusion(build_loss(Tricks())))
"""Adjoint matching as on images: a noiseless end, few of the time steps, clipped losses."""
