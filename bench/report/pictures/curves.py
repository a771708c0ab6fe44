"""Learning curves against what was spent: error of log Z, distance and, of particles, energies;
where the truth is unknown, estimates of log Z, the effective share of the weights and ksd."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tiltbench.report.pictures.axes import span
from tiltbench.report.pictures.style import (
    GREY,
    INK,
    PALE,
    Look,
    fixed_ticks,
    log_ticks,
    picture,
    plain,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

Curve = Mapping[str, Any]
NAMES = {"energy_distance": "energy distance", "config_w2": "W2 of configurations"}


CLOCKS = {
    "spend": "calls of training",
    "flops": "flops of training",
    "seconds": "seconds of training",
}
SIGNED = {"log_Z_err"}  # shown by its size
UNJUDGED = {
    "log_Z_forward": "estimate of log Z  (nats)",
    "elbo": "ELBO  (nats)",
    "ess_model": "effective share of the weights",
    "ksd": "squared kernel Stein discrepancy",
}  # of targets whose truth is unknown
LEVEL = {"log_Z_forward", "elbo", "ess_model"}  # on a linear axis, which the usual curves set
SMALLEST = 1e-3  # nats: smaller errors of log Z sit on it


class Band(NamedTuple):
    """What exact draws score, as many as a curve has at each of its points."""

    mean: float
    sd: float
    n: int | None

    @property
    def edge(self) -> float:
        return self.mean + 2 * self.sd


def learning(
    path: Path,
    runs: DataFrame,
    scores: DataFrame,
    curves: Mapping[str, Curve],
    looks: Mapping[str, Look],
) -> bool:
    """Median over seeds with the band of all seeds, and at its end, open, the score in the table.
    What trains nothing is a level line at its score.  There is a row against calls and, where they
    are known, one against flops and one against seconds.  False where no run has a curve, or none
    of the curves a number.

    A curve has fewer draws than the table, so that its floor, a grey band, is wider; a dotted line
    is the upper edge of the table's.  Below the band's edge the axis is linear: nothing is cut
    off."""
    by_sampler: dict[str, list[Curve]] = {}
    for _, run in runs.iterrows():
        if run["id"] in curves:
            by_sampler.setdefault(run["sampler"], []).append(curves[run["id"]])
    if not by_sampler:
        return False
    every = [curve for group in by_sampler.values() for curve in group]
    metric = every[0]["metric"]
    panels = {"log_Z_err": "|log Z error|  (nats)", "distance": NAMES[metric]}
    if any("energy_w2" in curve for curve in every):
        panels["energy_w2"] = "W2 of energies  (nats)"
    panels |= UNJUDGED
    panels = {key: label for key, label in panels.items() if _known(every, key)}
    if not panels:
        return False
    scores = scores[scores["id"].isin(set(runs["id"])) & scores["value"].notna()]
    named: dict[str, Any] = {}
    from matplotlib.lines import Line2D

    clocks = [clock for clock in CLOCKS if any(any(c.get(clock) or ()) for c in every)]
    with picture(path, len(clocks), len(panels), (5.2, 3.6)) as (figure, grid):
        for row, clock in zip(grid, clocks, strict=True):
            for axes, (key, label) in zip(row, panels.items(), strict=True):
                band = _band(every, "floor" if key == "distance" else f"floor_{key}")
                final = scores[scores["metric"] == (metric if key == "distance" else key)]
                plotted: list[float] = []
                late: list[np.ndarray] = []
                for name, group in by_sampler.items():
                    final_values = final[final["sampler"] == name]["value"]
                    if not any(any(curve["spend"]) for curve in group):  # it trains nothing
                        if len(final_values):
                            middle = float(
                                final_values.abs().median()
                                if key in SIGNED
                                else final_values.median()
                            )
                            score = _size(key, middle)
                            plotted.append(score)
                            late.append(np.array([score]))
                            named[plain(name)] = axes.axhline(
                                score, color=looks[name].colour, ls=looks[name].line, lw=1.5
                            )
                        continue
                    curve_line = _median_line(axes, group, key, clock, looks[name])
                    if curve_line is None:
                        continue
                    line, end, values = curve_line
                    named[plain(name)] = line
                    plotted += values
                    late.append(np.array(values[len(values) // 2 :]))
                    if len(final_values):
                        middle = float(
                            final_values.abs().median() if key in SIGNED else final_values.median()
                        )
                        score = _size(key, middle)
                        axes.plot([end], [score], marker=looks[name].marker, ms=7, mfc="white",
                                  mec=looks[name].colour, mew=1.3, ls="", zorder=4)  # fmt: skip
                        plotted.append(score)
                if not plotted:  # as where nobody's seconds were kept
                    axes.axis("off")
                    continue
                if key in LEVEL:
                    _level(axes, late)
                else:
                    named |= _floors(axes, band, final, plotted)
                axes.set(xscale="log", xlabel=CLOCKS[clock], ylabel=label)
                log_ticks(axes.xaxis, *axes.get_xlim())
        open_marker = Line2D([], [], marker="o", ms=7, mfc="white", mec=GREY, ls="")
        named["all draws: the table"] = open_marker
        figure.legend(named.values(), named, loc="outside right center", fontsize=7.5)
    return True


def _floors(
    axes: Axes, band: Band | None, final: DataFrame, plotted: Sequence[float]
) -> dict[str, Any]:
    """Draws both floors and chooses the axis; returns what the legend says of them."""
    from matplotlib.patches import Patch

    low = min([*plotted, *([band.mean - 2 * band.sd] if band else [])], default=1.0)
    if low > 0:
        axes.set_yscale("log")
        log_ticks(axes.yaxis, *axes.get_ylim())
    else:
        _linear_below(axes, band.edge if band and band.edge > 0 else max(SMALLEST, -low), low)
    if band is None:
        return {}
    axes.axhspan(band.mean - 2 * band.sd, band.edge, color=PALE, zorder=0, lw=0)
    few = f" of {band.n:,}" if band.n else ""
    handles: dict[str, Any] = {f"exact draws, sets{few}: ± 2 sd": Patch(color=PALE)}
    whole = final[~final["unfit"].astype(bool)]
    edge = float((whole["floor_mean"] + 2 * whole["floor_sd"]).min()) if len(whole) else math.nan
    if math.isfinite(edge) and edge < band.edge:
        line = axes.axhline(edge, color=INK, lw=0.9, ls=":")
        handles["edge of the noise floor of the table"] = line
    return handles


def _level(axes: Axes, late: Sequence[np.ndarray]) -> None:
    """A linear axis that holds the later half of the usual curves: what methods say before they
    have learnt anything would flatten all that comes after."""
    low, high = span(late)
    margin = 0.06 * (high - low) or 0.05 * max(abs(high), 1.0)
    axes.set_ylim(low - margin, high + margin)


def _linear_below(axes: Axes, edge: float, low: float) -> None:
    """A logarithmic axis above `edge`, linear from there down to `low`, which is not positive."""
    axes.set_yscale("symlog", linthresh=edge, linscale=0.6)
    axes.axhline(0, color=GREY, lw=0.5)
    axes.set_ylim(bottom=1.15 * low)
    top = axes.get_ylim()[1]
    exponents = range(math.ceil(math.log10(edge)), math.floor(math.log10(max(top, edge))) + 1)
    decades = [10.0**e for e in exponents]
    fixed_ticks(axes.yaxis, [*(-d for d in decades[::-1] if -d >= 1.15 * low), 0, *decades])


def _known(curves: Iterable[Curve], key: str) -> bool:
    return any(value is not None for curve in curves for value in curve.get(key, ()))


def _band(curves: Iterable[Curve], key: str) -> Band | None:
    """None where it is not known what exact draws score."""
    for curve in curves:
        if curve.get(key):
            floor = curve[key]
            return Band(float(floor["mean"]), float(floor["sd"]), floor.get("n"))
    return None


def _size(key: str, value: float) -> float:
    return max(abs(value), SMALLEST) if key in SIGNED else value


def _median_line(
    axes: Axes, group: Iterable[Curve], key: str, clock: str, look: Look
) -> tuple[Any, float, list[float]] | None:
    """One sampler; spends of seeds are matched by rank.  (what was drawn, the last spend, all
    values); None where there is no number."""
    points: dict[int, list[tuple[float, float]]] = {}
    for curve in group:
        spends = curve.get(clock) or [0] * len(curve["spend"])
        values = curve.get(key) or [None] * len(spends)
        for index, (spend, value) in enumerate(zip(spends, values, strict=True)):
            if value is not None and math.isfinite(value) and spend > 0:
                points.setdefault(index, []).append((spend, _size(key, value)))
    if not points:
        return None
    rows = [np.array(points[index], dtype=float).T for index in sorted(points)]
    spend = [float(np.median(s)) for s, _ in rows]
    (line,) = axes.plot(spend, [np.median(v) for _, v in rows], color=look.colour,
                        marker=look.marker, ls=look.line, ms=4, lw=1.5)  # fmt: skip
    axes.fill_between(spend, [v.min() for _, v in rows], [v.max() for _, v in rows],
                      color=look.colour, alpha=0.12, linewidth=0)  # fmt: skip
    return line, spend[-1], [float(v) for _, row in rows for v in row]
