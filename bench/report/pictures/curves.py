"""Learning curves: error of log Z, distance and, of particles, energies, against spend."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tiltbench.report.pictures.style import GREY, PALE, Look, picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

Curve = Mapping[str, Any]
NAMES = {"energy_distance": "energy distance", "config_w2": "W2 of configurations"}


def learning(
    path: Path, runs: DataFrame, curves: Mapping[str, Curve], looks: Mapping[str, Look]
) -> bool:
    """Median over seeds with the band of all seeds; False where no run has a curve, or none of the
    curves a number."""
    by_sampler: dict[str, list[Curve]] = {}
    for _, run in runs.iterrows():
        if run["id"] in curves:
            by_sampler.setdefault(run["sampler"], []).append(curves[run["id"]])
    if not by_sampler:
        return False
    every = [curve for group in by_sampler.values() for curve in group]
    distance = NAMES[every[0]["metric"]]
    panels = {"log_Z_err": "|log Z error|  (nats)", "distance": distance}
    if any("energy_w2" in curve for curve in every):
        panels["energy_w2"] = "W2 of energies  (nats)"
    panels = {key: label for key, label in panels.items() if _known(every, key)}
    if not panels:
        return False
    with picture(path, 1, len(panels), (5.2, 3.6)) as (figure, grid):
        named: dict[str, Any] = {}
        for axes, (key, label) in zip(grid[0], panels.items(), strict=True):
            edge = _edge(every, "floor" if key == "distance" else f"floor_{key}")
            least = max(edge / 4, 1e-6) if edge is not None else 1e-3
            for name, group in by_sampler.items():
                _line(axes, name, group, key, least, looks[name])
            if edge is not None and edge > 0:
                axes.axhspan(least / 1.5, edge, color=PALE, zorder=0)
                across = axes.get_yaxis_transform()
                axes.text(0.03, edge, "exact draws: floor + 2 sd", transform=across, va="bottom",
                          fontsize=7, color=GREY)  # fmt: skip
                axes.set_ylim(bottom=least / 1.5)
            axes.set(xscale="log", yscale="log", xlabel="points spent", ylabel=label)
            handles, labels = axes.get_legend_handles_labels()
            named |= dict(zip(labels, handles, strict=True))
        figure.legend(named.values(), named, loc="outside right center", fontsize=8)
    return True


def _known(curves: Iterable[Curve], key: str) -> bool:
    return any(value is not None for curve in curves for value in curve.get(key, ()))


def _edge(curves: Iterable[Curve], key: str) -> float | None:
    """What exact draws score, and two sd; None where that is not known."""
    for curve in curves:
        if curve.get(key):
            return float(curve[key]["mean"] + 2 * curve[key]["sd"])
    return None


def _line(
    axes: Axes, name: str, group: Iterable[Curve], key: str, least: float, look: Look
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
    axes.plot(spend, [np.median(v) for _, v in rows], color=look.colour, marker=look.marker,
              ls=look.line, ms=4, lw=1.5, label=name)  # fmt: skip
    axes.fill_between(spend, [v.min() for _, v in rows], [v.max() for _, v in rows],
                      color=look.colour, alpha=0.12, linewidth=0)  # fmt: skip
