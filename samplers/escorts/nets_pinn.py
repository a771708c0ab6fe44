"""NETS by its PINN loss (arXiv 2410.02711), classical and tilted (math.md 6).

    int E | div w + w . (s + grad r_t) + d/dt r_t + v . grad r_t + d/dt F(t) |^2 dt,   F = -log Z_t,

is zero iff A is deterministic, whatever law the points are drawn from: here paths of the present
escort.  F is learned with w, and -F(1) is the method's own log Z.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from tiltbench.samplers.diffusion import Diffusion, Preset
from tiltbench.samplers.loss import Batch, Loss, floored
from tiltbench.samplers.networks.model import Model
from tiltbench.samplers.recipes.escort import Escort, escorted, rate, slope
from tiltbench.samplers.recipes.escorted import Transported
from tiltbench.samplers.sampler import Unsupported
from tiltbench.targets.bases.process import Path, Process
from tiltbench.targets.bases.references import Stationary
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem

TIMES = 16  # of the K + 1 of a path, drawn anew for every use of a batch, with replacement
EXACT = 10  # dimensions up to which the divergence is exact


def label(problem: Problem, model: Model, path: Path, share: float, generator: Generator) -> Batch:
    """dA/dt where w = 0, floored as rewards are, and grad log pi_t at every point of the paths.

    F starts where w = 0 says it is, dF/dt = -E[dA/dt], because log Z may be hundreds of nats."""
    if not isinstance(problem.base, Escort):
        raise Unsupported("the PINN loss needs an annealed chain: use recipe=Transported")
    here = escorted(path)
    still = floored(rate(here), problem.checks)
    if share == 0.0:
        model.energy.fit(path.t, -still.mean(1))
    return {"t": path.t, "x": path.x, "rate": still, "slope": slope(here)}


def value(model: Model, process: Process, batch: Batch, generator: Generator) -> Tensor:
    """The mean square residual at TIMES of the times; Hutchinson's estimate of it multiplies
    residuals of two independent directions, so that it is unbiased.

    With replacement: over all times at once F would start with gradients of rounding's size, which
    Adam makes steps of."""
    points = len(batch["t"])
    some = torch.randint(points, (TIMES,), generator=generator, device=generator.device)
    t, x, still, up = (batch[name][some] for name in ("t", "x", "rate", "slope"))
    d, known = x.shape[-1], still + model.free_energy_rate(t)[:, None]
    if d <= EXACT:
        u, each = model.stretched(x, t[:, None], torch.eye(d, dtype=x.dtype, device=x.device))
        carried = (u * up).sum(-1) + each.sum(-1)
        return torch.add(known, carried, alpha=process.spread).square().mean()
    shape = (*x.shape[:-1], 2, d)
    coins = torch.randint(2, shape, generator=generator, device=generator.device)
    u, each = model.stretched(x, t[:, None], (2 * coins - 1).to(x))
    carried = (u * up).sum(-1, keepdim=True) + each
    one, other = torch.add(known[..., None], carried, alpha=process.spread).unbind(-1)
    return (one * other).mean()


def price(paths: int, steps: int, guided: bool) -> Cost:
    return Cost()


residual = Loss("nets_pinn", label, value, price, learns_log_Z=True)

nets_pinn = Preset(
    "nets_pinn",
    Diffusion(
        residual,
        reference=Stationary(),
        recipe=Transported(),
        paths=128,
        repeats=8,
        memory=8,
        lr=1e-2,
    ),
)
"""NETS by PINN: the residual of the transport equation, and F learned with it."""
