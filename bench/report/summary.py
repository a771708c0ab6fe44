"""One picture of a whole folder, for the README: draws of one target, scores of all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from tiltbench.evaluate import DISTANCES
from tiltbench.report.compare import SEEDS_FOR_BOLD, Verdict, best, cell
from tiltbench.report.frame import Frames, metric_of, warn
from tiltbench.report.scatter import EXACT, MOST, View, first_runs, outcomes, panel, view
from tiltbench.report.style import GREY, INK, PALE, STYLE, save
from tiltbench.targets.target import Target

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure
    from pandas import DataFrame

PANELS, COLUMNS, HEIGHT = 10, 5, 2.45  # HEIGHT: inches a row
GOOD, BAD = "#1b7f79", "#c8553d"


def summary(
    path: Path,
    folder: Path,
    frames: Frames,
    targets: Mapping[str, Target],
    colour: Mapping[str, str],
) -> bool:
    """Above: draws on the 2-D target whose modes are best counted by eye.  Below: distance to exact
    draws and |log Z error| of every sampler on every target, at the largest budget; bold and in one
    colour what the tables have in bold."""
    import matplotlib
    from matplotlib.figure import Figure

    runs = frames.runs[frames.runs["finished"]]
    if runs.empty:
        return False
    budget = runs["budget"].max()
    runs = runs[runs["budget"] == budget]
    shown = _shown(targets, set(runs["target"]))
    ids = set(runs[runs["target"] == shown]["id"])
    chosen = first_runs([record for record in frames.records if record.id in ids])
    chosen = dict(list(chosen.items())[: PANELS - 1])
    seen = _view(targets[shown]) if chosen else None
    draws = {n: o.draws.x for n, o in outcomes(folder / "runs", chosen).items()} if seen else {}
    samplers = list(dict.fromkeys(sorted(runs["sampler"])))
    names = list(dict.fromkeys(runs["target"]))
    above = HEIGHT * math.ceil((len(draws) + 1) / COLUMNS) if draws else 0.01
    below = 0.32 * len(samplers) + 1.5
    with matplotlib.rc_context(STYLE):
        figure = Figure((12, above + below), layout="constrained")
        parts: Any = figure.subfigures(2, 1, height_ratios=[above, below])
        upper, lower = parts
        if draws and seen:
            upper.suptitle(
                f"{shown}: draws after {budget:,} points", fontsize=11, x=0.01, ha="left"
            )
            _gallery(upper, seen, draws, colour)
        left, right = lower.subplots(1, 2)
        kept = frames.scores[frames.scores["budget"] == budget]
        _heat(left, kept, samplers, names, DISTANCES)
        _heat(right, kept, samplers, names, ("log_Z_err", "log_Z_own_err"))
        ties = "; bold: tied for best" if runs["seed"].nunique() >= SEEDS_FOR_BOLD else ""
        left.set_title(
            f"Distance to exact draws  (● at the floor, ▼ below it{ties})",
            loc="left",
            fontsize=10,
        )
        right.set_title(f"|log Z error|, nats  (median over seeds{ties})", loc="left", fontsize=10)
        right.set_yticklabels([])
        save(figure, path)
    return True


def _view(target: Target) -> View | None:
    try:
        return view(target, MOST)
    except Exception as error:  # the scores are shown all the same
        warn(f"no draws of {target.name} in the summary: {type(error).__name__}: {error}")
        return None


def _gallery(
    part: SubFigure, seen: View, draws: Mapping[str, Tensor], colour: Mapping[str, str]
) -> None:
    """The exact draws first, then those of each sampler."""
    rows = math.ceil((len(draws) + 1) / COLUMNS)
    grid = list(part.subplots(rows, COLUMNS, squeeze=False).flat)
    panel(grid[0], seen, seen.exact, EXACT, INK)
    for axes, (name, x) in zip(grid[1:], draws.items(), strict=False):
        panel(axes, seen, x, name, colour[name])
    for axes in grid[len(draws) + 1 :]:
        axes.remove()


def _shown(targets: Mapping[str, Target], names: set[str]) -> str:
    def modes(name: str) -> int:
        truth = targets[name].truth()
        return len(truth.modes.weight) if truth.modes else 1

    flat = sorted(name for name in names if name in targets and targets[name].dim == 2)
    # nine modes can be counted by eye; forty cannot
    return min(flat, key=lambda name: (abs(modes(name) - 9), name), default="")


def _heat(
    axes: Axes,
    scores: DataFrame,
    samplers: list[str],
    names: list[str],
    choices: tuple[str, ...],
) -> None:
    """Numbers on a coloured grid: each column (target) scaled by itself, on a log scale; of each
    cell the first of `choices` that it has."""
    values = np.full((len(samplers), len(names)), np.nan)
    floor, below, tied = (np.zeros(values.shape, dtype=bool) for _ in range(3))
    for j, target in enumerate(names):
        for choice in reversed(choices):
            mine = scores[(scores["target"] == target) & (scores["metric"] == choice)]
            made = {s: cell(rows, metric_of(choice)) for s, rows in mine.groupby("sampler")}
            found = {str(s): c for s, c in made.items() if c}
            for sampler, c in found.items():
                i = samplers.index(sampler)
                values[i, j], tied[i, j] = c.median, sampler in best(found)
                floor[i, j], below[i, j] = c.verdict is Verdict.AT, c.verdict is Verdict.BELOW
    shade = _shade(np.where(below, np.nan, np.abs(values)), floor | tied)
    from matplotlib.colors import LinearSegmentedColormap

    scheme = LinearSegmentedColormap.from_list("tilt", [GOOD, "#f4f1ea", BAD]).with_extremes(
        bad=PALE
    )
    axes.imshow(np.ma.masked_invalid(shade), cmap=scheme, vmin=0, vmax=1, aspect="auto", alpha=0.85)
    for i, j in np.ndindex(values.shape):
        text, colour = "–", GREY
        if np.isfinite(values[i, j]):
            text, colour = _brief(abs(float(values[i, j]))), INK
            if floor[i, j]:
                text, colour = "●", "white"
            elif below[i, j]:
                text = "▼"
            elif shade[i, j] < 0.2 or shade[i, j] > 0.85:
                colour = "white"
        weight = "bold" if tied[i, j] else "normal"
        axes.text(j, i, text, ha="center", va="center", fontsize=8, color=colour, weight=weight)
    axes.set_xticks(range(len(names)), names, rotation=28, ha="right", fontsize=8, color=INK)
    axes.set_yticks(range(len(samplers)), samplers, fontsize=8, color=INK)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_xticks(np.arange(1, len(names)) - 0.5, minor=True)
    axes.set_yticks(np.arange(1, len(samplers)) - 0.5, minor=True)
    axes.grid(which="minor", color="white", lw=1.5)
    axes.tick_params(which="minor", length=0)


def _shade(values: np.ndarray, first: np.ndarray) -> np.ndarray:
    """0 for the best of a column and what is `first`, 1 for the worst."""
    logs = np.log(np.maximum(values, 1e-4))
    shade = np.full(values.shape, np.nan)
    for j in range(values.shape[1]):
        here = np.isfinite(logs[:, j])
        if here.any():
            low, high = logs[here, j].min(), logs[here, j].max()
            shade[here, j] = (logs[here, j] - low) / max(high - low, 1e-9)
    return np.where(first, 0.0, shade)


def _brief(value: float) -> str:
    if value >= 99.5:
        return f"{value:.0f}"
    return f"{value:.2g}" if value >= 0.01 else f"{value:.3f}" if value >= 0.0005 else "<.001"
