"""NETS by action matching (arXiv 2410.02711), classical and tilted (math.md 6).

    int E_{pi_t}[ 1/2 |grad phi|^2 + d/dt phi + v . grad phi ] dt + E_{pi_0} phi_0 - E_{pi_1} phi_1

is least where w = grad phi carries pi_t along.  Taken by parts in time and space, with d/dt log p_t
= -div v - v . s, the terms in d/dt phi, v . grad phi and the ends are together

    - int Cov_{pi_t}(d/dt r_t + v . grad r_t, phi) dt :

no derivative in time, which would see little but the network's fastest waves, and no divergence.
Expectations are over the present escort's paths, reweighted by exp A_t.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from tiltbench.samplers.diffusion import Diffusion, Preset
from tiltbench.samplers.loss import Batch, Loss, floored
from tiltbench.samplers.networks.model import Model
from tiltbench.samplers.networks.perceptron import Potential
from tiltbench.samplers.recipes.escort import Escort, escorted, rate
from tiltbench.samplers.recipes.escorted import Escorted
from tiltbench.samplers.sampler import Unsupported
from tiltbench.targets.bases.process import Path, Process
from tiltbench.targets.bases.references import Stationary
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem

TIMES = 16  # of the K + 1 of a path, drawn anew for every use of a batch


def label(problem: Problem, model: Model, path: Path, share: float, generator: Generator) -> Batch:
    """Points, their weights under pi_t (each time sums to 1), and dA/dt where w = 0, centred."""
    if not isinstance(problem.base, Escort):
        raise Unsupported("action matching needs an annealed chain: use recipe=Escorted")
    weight = torch.softmax(problem.base.log_w_along(path), 1).to(path.x)
    still = floored(rate(escorted(path)), problem.checks)
    centred = still - (weight * still).sum(1, keepdim=True)
    return {"t": path.t, "x": path.x, "weight": weight, "pressure": centred}


def value(model: Model, process: Process, batch: Batch, generator: Generator) -> Tensor:
    """The mean over TIMES of the times of E[1/2 |grad phi|^2] - Cov(dA/dt, phi)."""
    some = torch.randperm(len(batch["t"]), generator=generator, device=generator.device)[:TIMES]
    t, x, weight, pressure = (batch[name][some] for name in ("t", "x", "weight", "pressure"))
    x = x.requires_grad_()
    height = model.potential(x, t[:, None])
    (w,) = torch.autograd.grad(height.sum(), x, create_graph=True)
    each = weight * (w.square().sum(-1) / 2 - pressure * height)
    return each.sum(1).mean()


def price(paths: int, steps: int, guided: bool) -> Cost:
    return Cost()


action = Loss("nets_action", label, value, price, needs="potential")

nets_action = Preset(
    "nets_action",
    Diffusion(
        action,
        reference=Stationary(),
        recipe=Escorted(),
        model=Potential(),
        paths=256,
        repeats=4,
        memory=32,
        lr=3e-3,
        steepest=1e9,  # d/dt r_t + v . grad r_t wants the gradient of r as it is
    ),
)
"""NETS by action matching: w = grad phi, no divergence, expectations reweighted along the path."""
