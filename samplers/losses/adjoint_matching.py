"""Adjoint matching: regress u on sigma a_t, a the lean adjoint (arXiv 2409.08861).

a_K = grad r(x_K) is pulled back through the base means, so a Gaussian base costs no network and any
other one vector-Jacobian product a step.  Paths come from the present control: a fixed-point
iteration, whose optimum is the control problem's.
"""

import torch
from torch import Generator, Tensor

from tiltbench.samplers.loss import Batch, Loss, hints, regress, reward_and_grad
from tiltbench.samplers.networks import Model
from tiltbench.samplers.sampler import Unsupported
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem
from tiltbench.targets.process import Additive, Path, Process


def label(problem: Problem, model: Model, path: Path, share: float, generator: Generator) -> Batch:
    """y_k = std_k / sqrt(dt_k) a_{k+1} at every point of the path."""
    base = additive(problem.base)
    _, a = reward_and_grad(problem, path.x[-1])
    sigma = path.std / path.dt.sqrt()
    y = torch.empty_like(path.u)
    for k in reversed(range(len(y))):
        y[k] = sigma[k] * a
        a = base.pull_back(path.x[k], k, a)
    batch = {"x": path.x[:-1], "t": path.t[:-1, None], "y": y}
    return batch if path.hint is None else {**batch, "hint": path.hint}


def additive(process: Process) -> Additive:
    if not isinstance(process, Additive):
        raise Unsupported("adjoint matching steers a base's own chain: leave recipe=Base")
    return process


def value(model: Model, process: Process, batch: Batch, generator: Generator) -> Tensor:
    return regress(model, batch["x"], batch["t"], batch["y"], batch.get("hint"))


def price(paths: int, steps: int, guided: bool) -> Cost:
    return Cost(paths, paths).plus(hints(paths, steps, guided))


adjoint_matching = Loss("adjoint_matching", label, value, price)
