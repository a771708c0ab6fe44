"""Learning curves: error of log Z and energy distance against points spent."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tiltbench.report.style import GREY, PALE, picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

Curve = Mapping[str, Any]


def learning(
    path: Path, runs: DataFrame, curves: Mapping[str, Curve], colour: Mapping[str, str]
) -> bool:
    """Median over seeds with the band of all seeds; False where no run has a curve."""
    by_sampler: dict[str, list[Curve]] = {}
    for _, run in runs.iterrows():
        if run["id"] in curves:
            by_sampler.setdefault(run["sampler"], []).append(curves[run["id"]])
    if not by_sampler:
        return False
    floors = [c["floor"] for group in by_sampler.values() for c in group if c["floor"]]
    edge = floors[0]["mean"] + 2 * floors[0]["sd"] if floors else 0.0
    least = max(edge / 4, 1e-6) if floors else 1e-3
    with picture(path, 1, 2, (5.2, 3.6)) as (figure, grid):
        left, right = grid[0]
        for name, group in by_sampler.items():
            _line(left, name, group, "log_Z_err", 1e-3, colour[name])
            _line(right, name, group, "distance", least, colour[name])
        if edge > 0:
            right.axhspan(least / 1.5, edge, color=PALE, zorder=0)
            across = right.get_yaxis_transform()
            right.text(0.03, edge, "exact draws: floor + 2 sd", transform=across, va="bottom",
                       fontsize=7, color=GREY)  # fmt: skip
            right.set_ylim(bottom=least / 1.5)
        for axes, label in ((left, "|log Z error|  (nats)"), (right, "energy distance")):
            axes.set(xscale="log", yscale="log", xlabel="points spent", ylabel=label)
        handles, labels = right.get_legend_handles_labels()
        if not handles:
            handles, labels = left.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right center", fontsize=8)
    return True


def _line(
    axes: Axes, name: str, group: Iterable[Curve], key: str, least: float, colour: str
) -> None:
    """One sampler; spends of seeds are matched by rank.  Values below `least` sit on it."""
    points: dict[int, list[tuple[float, float]]] = {}
    for curve in group:
        for place, (spend, value) in enumerate(zip(curve["spend"], curve[key], strict=True)):
            if value is not None and math.isfinite(value):
                size = abs(value) if key == "log_Z_err" else value
                points.setdefault(place, []).append((spend, max(size, least)))
    if not points:
        return
    rows = [np.array(points[place], dtype=float).T for place in sorted(points)]
    spend = [float(np.median(s)) for s, _ in rows]
    axes.plot(spend, [np.median(v) for _, v in rows], color=colour, marker="o", ms=3, lw=1.5,
              label=name)  # fmt: skip
    axes.fill_between(spend, [v.min() for _, v in rows], [v.max() for _, v in rows],
                      color=colour, alpha=0.12, linewidth=0)  # fmt: skip
