"""Draws that are images, as images: a sheet for the exact draws and one a sampler."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tiltbench.records.record import Record
from tiltbench.report.pictures.scatter import EXACT
from tiltbench.report.pictures.strips import gathered, reference
from tiltbench.report.pictures.style import GREY, INK, picture, plain, size_of
from tiltbench.targets.target import Target

SIDE = 6  # images in a row and in a column of a sheet
GAP = 1  # pixels between them


def images(
    path: Path, runs: Path, target: Target, records: list[Record], colour: Mapping[str, str]
) -> bool:
    """A sheet of 36 draws for the exact draws and for each sampler (first finished seed), framed in
    its colour; False where the draws are no images."""
    samples = gathered(runs, records) if target.pixels else {}
    if not target.pixels or not samples:
        return False
    exact = reference(target)
    sheets = {EXACT: exact} if len(exact) else {}
    sheets |= {name: sample.x for name, sample in samples.items()}
    columns = min(len(sheets), 5)
    rows = math.ceil(len(sheets) / columns)
    with picture(path, rows, columns, (2.3, 2.5)) as (figure, grid):
        panels = list(grid.flat)
        for axes in panels[len(sheets) :]:
            axes.remove()
        for axes, (name, x) in zip(panels, sheets.items(), strict=False):
            axes.set_title(plain(name), color=INK, pad=4, fontsize=size_of(name))
            axes.set_xticks([])
            axes.set_yticks([])
            for side in axes.spines.values():
                side.set_visible(True)
                side.set(color=INK if name == EXACT else colour[name], linewidth=1.5)
            if len(x):
                shown = sheet(spread(x, SIDE * SIDE), target.pixels)
                axes.imshow(shown, cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
        figure.supxlabel("draws spread evenly over the run; values are cut at -1 (black) and 1 "
                         "(white)", fontsize=7, color=GREY)  # fmt: skip
    return True


def spread(x: Tensor, n: int) -> Tensor:
    """At most n of the draws, evenly spread."""
    return x[torch.linspace(0, len(x) - 1, min(len(x), n)).round().long()]


def sheet(x: Tensor, shape: tuple[int, int]) -> np.ndarray:
    """(n, rows * columns) images side by side, white between them and in empty places."""
    high, wide = shape
    canvas = np.ones(((high + GAP) * SIDE + GAP, (wide + GAP) * SIDE + GAP))
    for i, image in enumerate(x.reshape(-1, high, wide).numpy()):
        top, left = (GAP + k * (n + GAP) for k, n in zip(divmod(i, SIDE), shape, strict=True))
        canvas[top : top + high, left : left + wide] = image
    return canvas
