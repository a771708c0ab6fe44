"""Adjoint sampling: regress u on sigma c_t grad r(X_1) at bridge points (arXiv 2504.11713).

End points come from the present control, with the ring of kept batches as the replay buffer; points
in between from the base's bridge, which is exact for a memoryless Linear base, so that one energy
gradient serves any number of regressions.  A guided control pays a hint at every bridge point: it
draws them once, BRIDGES a path, and keeps them.
"""

from torch import Generator, Tensor

from tiltbench.samplers.loss import Batch, Loss, regress_on_grid, reward_and_grad
from tiltbench.samplers.losses._bridges import BRIDGES, linear, points, price
from tiltbench.samplers.networks.model import Model
from tiltbench.targets.bases.process import Path, Process
from tiltbench.targets.problem import Problem


def label(problem: Problem, model: Model, path: Path, share: float, generator: Generator) -> Batch:
    base = linear(problem.base, "adjoint sampling")
    _, g = reward_and_grad(problem, path.x[-1])
    ends = {"x0": path.x[0], "x1": path.x[-1], "g": g}
    if not model.guided:
        return ends
    spread = {key: value.repeat(BRIDGES, 1) for key, value in ends.items()}
    x, k = points(base, spread, generator)
    _, hint = reward_and_grad(problem, x)
    return {"x": x, "k": k, "y": base.pull(k, spread["g"]), "hint": hint}


def value(model: Model, process: Process, batch: Batch, generator: Generator) -> Tensor:
    if model.guided:
        x, k, y, hint = (batch[key] for key in ("x", "k", "y", "hint"))
        return regress_on_grid(model, process, x, k, y, hint)
    base = linear(process, "adjoint sampling")
    x, k = points(base, batch, generator)
    return regress_on_grid(model, base, x, k, base.pull(k, batch["g"]))


adjoint_sampling = Loss("adjoint_sampling", label, value, price)
