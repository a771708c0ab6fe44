"""Ramachandran pictures: draws of molecules on the torus of two torsions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.metrics._torsions import angles, bin_of
from tiltbench.records.record import Record
from tiltbench.report.pictures.scatter import View, first_runs, outcomes, panels
from tiltbench.report.pictures.style import GREY
from tiltbench.targets.target import Target

SIDE = 91  # points of the grid of contours: 4 degrees apart, the last the first again
SPREAD = math.radians(8)  # of the kernel that smooths the exact draws
MOST = 60_000  # exact draws of which contours are made
LEVELS = "0.5, 2 and 4.5 k T above the least"


def ramachandran(
    path: Path, runs: Path, target: Target, records: list[Record], colour: Mapping[str, str]
) -> bool:
    """A panel for the exact draws, if there are any, and one a sampler, over contours of the free
    energy of the exact draws; False where the target has not two torsions."""
    seen = torus(target)
    chosen = outcomes(runs, first_runs(records)) if seen is not None else {}
    if seen is None or not chosen:
        return False
    draws = {name: plane(target, outcome.draws.x.double()) for name, outcome in chosen.items()}
    with panels(path, seen, draws, colour) as figure:
        across, up = list(target.torsions())[:2]
        caption = f"{across} across, {up} upwards, -180° to 180°"
        if seen.grid is not None:
            caption += f"; contours: free energy of exact draws, {LEVELS}"
        figure.supxlabel(caption, fontsize=7, color=GREY)
    return True


def torus(target: Target) -> View | None:
    """The square of the first two torsions with the exact draws and the log of their density;
    without these where there are none.  None where the target has not two torsions."""
    if len(target.torsions()) < 2:
        return None
    truth, end = target.truth(), torch.full((2,), math.pi, dtype=torch.float64)
    if truth.sample is None:
        return View(-end, end, None, torch.empty(0, 2, dtype=torch.float64))
    n = int(min(MOST, truth.held))
    exact = plane(target, truth.sample(n, Generator().manual_seed(0)).double())
    return View(-end, end, log_density(exact), exact)


def plane(target: Target, x: Float[Tensor, "n D"]) -> Float[Tensor, "m 2"]:
    """The first two torsions of the draws that are finite."""
    return angles(target, x[x.isfinite().all(-1)])[:, :2]


def log_density(points: Float[Tensor, "n 2"]) -> Float[Tensor, "h w"]:
    """The log density of angles less its largest value, psi by rows from -pi to pi: a histogram of
    4 degrees smoothed on the torus by a Gaussian of 8."""
    cells = SIDE - 1
    a, b = (bin_of(points[:, i], cells) for i in range(2))
    counts = torch.bincount(b * cells + a, minlength=cells**2).reshape(cells, cells).double()
    k = torch.fft.fftfreq(cells, 1 / cells).double()
    fall = torch.exp(-(k**2) * SPREAD**2 / 2)
    smooth = torch.fft.ifft2(torch.fft.fft2(counts) * fall[:, None] * fall).real.clamp(min=1e-300)
    half = (smooth + smooth.roll(1, 0) + smooth.roll(1, 1) + smooth.roll((1, 1), (0, 1))) / 4
    ends = torch.nn.functional.pad(half[None, None], (0, 1, 0, 1), mode="circular")[0, 0]
    return ends.log() - ends.log().max()
