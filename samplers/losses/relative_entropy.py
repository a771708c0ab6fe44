"""Relative entropy: E[int 1/2 |u|^2 dt - r(X_1)], differentiated through the path.

PIS with the Brownian base (arXiv 2111.15141), DDS with the stationary one (2302.13834).
A guided control's hints are detached: the gradient then lacks the terms through grad^2 r, whose
conditional mean is zero at the optimum, so the optimum stays stationary.
"""

import torch
from torch import Generator, Tensor

from tiltbench.samplers.loss import Batch, Loss, floored, hints, reward_and_grad
from tiltbench.samplers.networks import Model
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem
from tiltbench.targets.process import Path, Process


def label(problem: Problem, model: Model, path: Path, share: float, generator: Generator) -> Batch:
    """r and grad r at the end points; the path keeps its graph."""
    r, g = reward_and_grad(problem, path.x[-1])
    return {"t": path.t, "u": path.u, "x_end": path.x[-1], "r": floored(r), "g": g}


def value(model: Model, process: Process, batch: Batch, generator: Generator) -> Tensor:
    """The functional's value, whose gradient takes d r from the stored grad r."""
    x = batch["x_end"]
    r = batch["r"] + (batch["g"] * (x - x.detach())).sum(-1)
    cost = torch.tensordot(batch["t"].diff() / 2, batch["u"].square().sum(-1), dims=1)
    return (cost - r).mean()


def price(paths: int, steps: int, guided: bool) -> Cost:
    return Cost(paths, paths).plus(hints(paths, steps, guided))


relative_entropy = Loss("relative_entropy", label, value, price, through_path=True)
