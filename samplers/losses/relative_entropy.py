"""Relative entropy: E[log dP^u/dP^base - r(X_1)], differentiated through the path.

The first term is int 1/2 |u|^2 dt where the control is all that steers (`Process.running_cost`).
PIS with the Brownian base (arXiv 2111.15141), DDS with the stationary one (2302.13834); with an
escorted chain it is -E[A], CMCD (2307.01050, math.md 6).  On the base's own chain a guided
control's hints are detached: the gradient then lacks the terms through grad^2 r, whose conditional
mean is zero at the optimum, so the optimum stays stationary.
"""

from torch import Generator, Tensor

from tiltbench.samplers.loss import (
    Batch,
    Loss,
    batch_path,
    floored,
    hints,
    path_batch,
    reward_and_grad,
)
from tiltbench.samplers.networks.model import Model
from tiltbench.targets.bases.process import Path, Process
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem


def label(problem: Problem, model: Model, path: Path, share: float, generator: Generator) -> Batch:
    """r and grad r at the end points; the path keeps its graph."""
    r, g = reward_and_grad(problem, path.x[-1])
    return {**path_batch(path, floored(r, problem.checks)), "g": g}


def value(model: Model, process: Process, batch: Batch, generator: Generator) -> Tensor:
    """The functional's value, whose gradient takes d r from the stored grad r."""
    path = batch_path(process, batch)
    x = path.x[-1]
    r = batch["r"] + (batch["g"] * (x - x.detach())).sum(-1)
    return (process.running_cost(path) - r).mean()


def price(paths: int, steps: int, guided: bool) -> Cost:
    return Cost(paths, paths).plus(hints(paths, steps, guided))


relative_entropy = Loss("relative_entropy", label, value, price, through_path=True, by_weights=True)
