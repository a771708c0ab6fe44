"""Adjoint sampling: regress u on sigma c_t grad r(X_1) at bridge points (arXiv 2504.11713).

End points come from the present control, with the ring of kept batches as the replay buffer; points
in between from the base's bridge, which is exact for a memoryless Linear base, so that one energy
gradient serves any number of regressions.  A guided control pays a hint at every bridge point: it
draws them once, BRIDGES a path, and keeps them.
"""

import torch
from torch import Generator, Tensor

from tiltbench.samplers.loss import Batch, Loss, hints, regress, reward_and_grad
from tiltbench.samplers.networks import Model
from tiltbench.samplers.sampler import Unsupported
from tiltbench.targets.cost import Cost
from tiltbench.targets.linear import Linear
from tiltbench.targets.problem import Problem
from tiltbench.targets.process import Path, Process

BRIDGES = 8  # points a path where each costs a hint


def label(problem: Problem, model: Model, path: Path, share: float, generator: Generator) -> Batch:
    base = _linear(problem.base)
    _, g = reward_and_grad(problem, path.x[-1])
    ends = {"x0": path.x[0], "x1": path.x[-1], "g": g}
    if not model.guided:
        return ends
    spread = {key: value.repeat(BRIDGES, 1) for key, value in ends.items()}
    x, t, y = _points(base, spread, generator)
    _, hint = reward_and_grad(problem, x)
    return {"x": x, "t": t, "y": y, "hint": hint}


def value(model: Model, process: Process, batch: Batch, generator: Generator) -> Tensor:
    if model.guided:
        return regress(model, batch["x"], batch["t"], batch["y"], batch["hint"])
    return regress(model, *_points(_linear(process), batch, generator))


def _points(base: Linear, ends: Batch, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """(x_t, t, target of u) at one uniform grid time a row."""
    rows = len(ends["x1"])
    k = torch.randint(base.steps, (rows,), generator=generator, device=generator.device)
    x = base.bridge(ends["x0"], ends["x1"], k, generator)
    return x, base.grid(x)[k], base.pull(k, ends["g"])


def _linear(process: Process) -> Linear:
    if not isinstance(process, Linear):
        raise Unsupported("adjoint sampling needs a base whose bridges are known (Linear)")
    return process


def price(paths: int, steps: int, guided: bool) -> Cost:
    bridges = Cost(BRIDGES * paths, BRIDGES * paths) if guided else Cost()
    return Cost(paths, paths).plus(bridges).plus(hints(paths, steps, guided))


adjoint_sampling = Loss("adjoint_sampling", label, value, price)
