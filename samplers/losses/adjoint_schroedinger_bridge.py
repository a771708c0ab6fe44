"""Adjoint Schroedinger bridge sampler: any Gaussian start, memoryless or not (arXiv 2506.22565).

The bridge P is the law nearest to the base with X_0 ~ p_0 and X_1 ~ p*: u solves the control
problem whose terminal reward has the gradient grad log rho - h, where (math.md 3)

    u(x, t_k) = E[pull_k (grad log rho(X_1) - h(X_1)) | X_{t_k} = x]        (adjoint matching)
    h(x) = E[grad log p_base(X_1 | X_0) | X_1 = x]                          (corrector)

and grad log rho = grad r + grad log p_base.  Pairs (X_0, X_1) of the present control are kept with
grad log rho, points in between come from the base's bridge given both.  The paper alternates the
two regressions; here both are terms of one value, the first with h detached, so that Adam
alternates them step by step (h in units of 1/spread).  h starts at 0.  On a memoryless base
h = grad log p_base and this is adjoint sampling.

E[exp log_w] = Z holds for any control, but log_w is *not* constant at the bridge unless the base is
memoryless: X_0 keeps the law p_0 and its share of the weight.
"""

from torch import Generator, Tensor

from tiltbench.samplers.diffusion import Diffusion, Preset
from tiltbench.samplers.loss import Batch, Loss, regress_on_grid, reward_and_grad
from tiltbench.samplers.losses._bridges import BRIDGES, linear, points, price
from tiltbench.samplers.networks.model import Model
from tiltbench.samplers.networks.perceptron import Corrected
from tiltbench.targets.bases.process import Path, Process
from tiltbench.targets.bases.references import Scattered
from tiltbench.targets.problem import Problem

NAME = "the adjoint Schroedinger bridge"


def label(problem: Problem, model: Model, path: Path, share: float, generator: Generator) -> Batch:
    """(x_0, x_1, grad log rho(x_1)), and for a guided control its bridge points and hints."""
    base = linear(problem.base, NAME)
    x1 = path.x[-1]
    _, g = reward_and_grad(problem, x1)
    ends = {"x0": path.x[0], "x1": x1, "g": g + base.score(x1, base.steps)}
    if not model.guided:
        return ends
    ends = {key: value.repeat(BRIDGES, 1) for key, value in ends.items()}
    x, k = points(base, ends, generator)
    _, hint = reward_and_grad(problem, x)
    return {**ends, "x": x, "k": k, "hint": hint}


def value(model: Model, process: Process, batch: Batch, generator: Generator) -> Tensor:
    base = linear(process, NAME)
    x0, x1 = batch["x0"], batch["x1"]
    h = model.corrector(x1)
    gain, var = base.ahead[0]
    corrector = (h - (gain * x0 - x1) / var).square().sum(-1).mean() * base.spread**2
    x, k = (batch["x"], batch["k"]) if model.guided else points(base, batch, generator)
    y = base.pull(k, batch["g"] - h.detach())
    return regress_on_grid(model, base, x, k, y, batch.get("hint")) + corrector


bridge = Loss("adjoint_schroedinger_bridge", label, value, price, needs="corrector")

adjoint_schroedinger_bridge = Preset(
    "adjoint_schroedinger_bridge",
    Diffusion(
        bridge,
        reference=Scattered(),
        model=Corrected(),
        paths=256,
        repeats=16,
        memory=64,
        lr=1e-2,
    ),
)
"""Adjoint Schroedinger bridge sampler (arXiv 2506.22565) from a Gaussian start of any width."""
