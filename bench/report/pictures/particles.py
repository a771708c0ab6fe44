"""Draws of particles: energies, interatomic distances and configurations beside exact ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tiltbench.metrics.distance_w2 import distances
from tiltbench.records.record import Record
from tiltbench.report.pictures.strips import Measure, gathered, histogram, reference, strips
from tiltbench.report.pictures.style import GREY
from tiltbench.targets.target import Density, Target, centred

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HALF = 0.45  # of a panel's side, in inches
FILL = 0.62  # a particle's width over the distance of neighbours
NEAREST = 1.25  # how much wider the nearest is


def particles(
    path: Path, runs: Path, target: Target, records: list[Record], colour: Mapping[str, str]
) -> bool:
    """A row for the exact draws and one a sampler (first finished seed); False where the target has
    no particles."""
    samples = gathered(runs, records) if target.particles else {}
    if not target.particles or not samples:
        return False
    _, space = target.particles
    exact = reference(target)
    others = [sample.x for sample in samples.values()]
    typical = exact if len(exact) else torch.cat(others)
    near = histogram(partial(distances, space=space), exact, others)
    measures = [Measure("interatomic distance", near)]
    if isinstance(target, Density):
        energies = histogram(partial(_energies, target), exact, others)
        measures.insert(0, Measure("energy −log ρ  (nats)", energies))
    depth = "" if space < 3 else ", seen along one axis"
    look = (f"six configurations, centred{depth}", discs(space, centred(typical, space)))
    strips(path, samples, exact, measures, look, colour)
    return True


def _energies(target: Density, x: Tensor) -> Tensor:
    with torch.no_grad():
        return -target.log_rho(x)


def discs(space: int, typical: Tensor) -> Callable[[Axes, Tensor, str], None]:
    """Discs whose centres lie in a window that holds nearly all of `typical`; far ones are smaller
    and paler.  The number of particles outside it is stated."""
    window = 1.15 * float(np.quantile(typical.abs().numpy(), 0.999))
    apart = distances(typical[:200], space).reshape(min(len(typical), 200), -1)
    disc = FILL * float(apart.amin(1).median())
    limit = window + NEAREST * disc / 2  # no disc is cut by the edge
    width = disc / limit * HALF * 72  # points

    def look(axes: Axes, x: Tensor, colour: str) -> None:
        from matplotlib.colors import to_rgb

        points = centred(x, space).reshape(-1, space)
        points = torch.nn.functional.pad(points, (0, max(2 - space, 0)))
        depth = points[:, 2] if space > 2 else points.new_zeros(len(points))
        inside = (points.abs() <= window).all(-1)
        order = depth.argsort()
        order = order[inside[order]]
        near = ((depth[order] / window).clamp(-1, 1) + 1)[:, None].numpy() / 2
        shade = near if space > 2 else np.ones_like(near)
        paint = shade * np.array(to_rgb(colour)) + (1 - shade) * 0.93
        sizes = (width * (NEAREST - 0.5 + 0.5 * near[:, 0])) ** 2
        flat = points[order, :2].numpy()
        axes.scatter(flat[:, 0], flat[:, 1], s=sizes, c=paint, edgecolors="white", linewidths=0.5)
        axes.set(xlim=(-limit, limit), ylim=(-limit, limit))
        axes.set_aspect("equal", adjustable="box")
        outside = int((~inside).sum())
        if outside:
            axes.text(0.5, 0, f"{outside} outside", transform=axes.transAxes, ha="center", va="top",
                      fontsize=6, color=GREY)  # fmt: skip

    return look
