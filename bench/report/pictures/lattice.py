"""Draws of a lattice field: mean field, two-point function and fields beside exact ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tiltbench.metrics.lattice import two_point
from tiltbench.records.record import Record
from tiltbench.report.pictures.strips import Measure, gathered, histogram, reference, strips
from tiltbench.report.pictures.style import INK
from tiltbench.targets.target import Target

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def lattice(
    path: Path, runs: Path, target: Target, records: list[Record], colour: Mapping[str, str]
) -> bool:
    """A row for the exact draws and one a sampler (first finished seed); False where the target is
    no lattice."""
    samples = gathered(runs, records) if target.lattice else {}
    if not target.lattice or not samples:
        return False
    exact = reference(target)
    others = [sample.x for sample in samples.values()]
    typical = exact if len(exact) else torch.cat(others)
    limit = float(np.quantile(typical.abs().numpy(), 0.995))
    measures = [
        Measure("mean field", histogram(partial(torch.mean, dim=-1), exact, others)),
        Measure("two-point function", partial(_two_point, target.lattice, exact)),
    ]
    caption = f"six fields, {-limit:.2g} (blue) to {limit:.2g} (red)"
    if len(target.lattice) == 1:
        caption = f"six fields, {-limit:.2g} to {limit:.2g}"
    look = (caption, _look(target.lattice, limit))
    strips(path, samples, exact, measures, look, colour)
    return True


def _two_point(sides: tuple[int, ...], exact: Tensor, axes: Axes, x: Tensor, colour: str) -> None:
    """G(r) at separations up to half the last side, over the exact G(0)."""
    along = np.arange(sides[-1] // 2 + 1)
    rest = (0,) * (len(sides) - 1)
    measured = two_point(x, sides)[rest][: len(along)]
    known = two_point(exact, sides)[rest][: len(along)] if len(exact) else measured
    scale = float(known[0])
    axes.axhline(0, color=INK, lw=0.4)
    axes.plot(along, measured.numpy() / scale, color=colour, marker="o", ms=3, lw=1.4)
    if len(exact):
        axes.plot(along, known.numpy() / scale, color=INK, lw=0.9)
    step = max(1, (len(along) - 1) // 4)
    axes.set(ylim=(-0.25, 1.5), yticks=[0, 1], xticks=along[::step])


def _look(sides: tuple[int, ...], limit: float) -> Callable[[Axes, Tensor, str], None]:
    """A plane of the field as an image, a chain as a line."""

    def look(axes: Axes, x: Tensor, colour: str) -> None:
        field = x.reshape(sides)
        if field.ndim == 1:
            axes.axhline(0, color=INK, lw=0.4)
            axes.plot(field.numpy(), color=colour, lw=1)
            axes.set_ylim(-1.1 * limit, 1.1 * limit)
            return
        plane = field.reshape(-1, *sides[-2:])[0]
        axes.imshow(plane.numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")

    return look
