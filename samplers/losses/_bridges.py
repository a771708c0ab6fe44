"""What the losses on bridge points share: a Linear base, whose bridges and adjoint are known."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from tiltbench.samplers.loss import Batch, hints
from tiltbench.samplers.sampler import Unsupported
from tiltbench.targets.bases.linear import Linear
from tiltbench.targets.bases.process import Process
from tiltbench.targets.cost import Cost

BRIDGES = 8  # points a path where each costs a hint


def linear(process: Process, loss: str) -> Linear:
    if not isinstance(process, Linear):
        raise Unsupported(f"{loss} needs a base whose bridges are known (Linear)")
    return process


def points(base: Linear, ends: Batch, generator: Generator) -> tuple[Tensor, Tensor]:
    """(x_t, k) at one uniform grid time a row, from the bridge between ends["x0"], ends["x1"]."""
    rows = len(ends["x1"])
    k = torch.randint(base.steps, (rows,), generator=generator, device=generator.device)
    return base.bridge(ends["x0"], ends["x1"], k, generator), k


def price(paths: int, steps: int, guided: bool) -> Cost:
    """A value and a gradient a path; a guided control's hints, while simulating and on bridges."""
    bridges = Cost(BRIDGES * paths, BRIDGES * paths) if guided else Cost()
    return Cost(paths, paths).plus(bridges).plus(hints(paths, steps, guided))
