"""One picture of a whole folder, for the README: draws of one target, scores of all."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from torch import Tensor

from tiltbench.records.store import warn
from tiltbench.report.board import Board, SamplerRow
from tiltbench.report.compare import SEEDS_FOR_BOLD, FloorStatus, scale
from tiltbench.report.frame import BLOCK, Frames
from tiltbench.report.pictures.scatter import EXACT, MOST, View, first_runs, outcomes, panel, view
from tiltbench.report.pictures.style import GREY, INK, PALE, STYLE, plain, save
from tiltbench.report.tables.legend import brief
from tiltbench.score.curve import DISTANCES
from tiltbench.targets.target import Target

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure
    from pandas import DataFrame

PANELS, COLUMNS, HEIGHT = 10, 5, 2.45  # HEIGHT: inches a row
GOOD, MIDDLE, BAD = "#1b7f79", "#f4f1ea", "#c8553d"
DISTANCE = (
    "Distance to exact draws; below it the calls.\n"
    "≈ within the noise floor, ✗ not better than untrained"
)
LOG_Z = (
    "|log Z error| in nats, from forward paths or as the method states it;\n"
    "below it: from reverse paths, Bennett's estimate from both"
)
SCALE = f"One scale of colours for all.  {scale()[0].upper()}{scale()[1:]}"


def summary(
    path: Path,
    folder: Path,
    frames: Frames,
    boards: Sequence[Board],
    targets: Mapping[str, Target],
    colour: Mapping[str, str],
) -> bool:
    """Above: draws on the 2-D target whose modes are best counted by eye.  Below: distance to exact
    draws with the calls it took, and |log Z error| from every side, of every sampler on every
    target, at its largest budget; bold and in one colour what the tables have in bold.  False
    where nothing finished, or no target's truth is known."""
    import matplotlib
    from matplotlib.figure import Figure

    runs = frames.runs[frames.runs["finished"]]
    if runs.empty or all(board.unknown for board in boards):  # nothing but dashes
        return False
    runs = at_largest(runs)
    shown = _shown(targets, set(runs["target"]))
    ids = set(runs[runs["target"] == shown]["id"])
    chosen = first_runs([record for record in frames.records if record.id in ids])
    chosen = dict(list(chosen.items())[: PANELS - 1])
    seen = _view(targets[shown]) if chosen else None
    draws = {n: o.draws.x for n, o in outcomes(folder / "runs", chosen).items()} if seen else {}
    samplers = list(dict.fromkeys(sorted(runs["sampler"])))
    blocks = set(runs[BLOCK].itertuples(index=False, name=None))
    kept = [board for board in boards if (board.target, board.budget, board.limits) in blocks]
    allowed = {board.target: board.allowed for board in kept}
    above = HEIGHT * math.ceil((len(draws) + 1) / COLUMNS) if draws else 0.0
    below = 0.42 * len(samplers) + 1.9
    with matplotlib.rc_context(STYLE):
        figure = Figure((12, above + below), layout="constrained")
        lower: Any = figure
        if draws and seen:
            upper, lower = cast(Any, figure.subfigures(2, 1, height_ratios=[above, below]))
            title = f"{plain(shown)}: draws after {allowed[shown]}"
            upper.suptitle(title, fontsize=11, x=0.01, ha="left")
            _gallery(upper, seen, draws, colour)
        left, right = lower.subplots(1, 2)
        heat(left, kept, samplers, DISTANCES, _calls)
        heat(right, kept, samplers, ("log_Z_err", "log_Z_own_err"), _other_sides)
        ties = "; bold: not significantly different from the best" if _tested(runs) else ""
        left.set_title(DISTANCE + ties, loc="left", fontsize=8)
        right.set_title(LOG_Z + ties, loc="left", fontsize=8)
        right.set_yticklabels([])
        lower.supxlabel(SCALE, fontsize=7.5, color=GREY)
        save(figure, path)
    return True


def at_largest(runs: DataFrame) -> DataFrame:
    """Those at the largest budget of their target, which may have limits of its own."""
    runs = runs[runs["budget"] == runs.groupby("target")["budget"].transform("max")]
    usual = runs.groupby("target")["limits"].transform(lambda limits: limits.mode().iloc[0])
    return runs[runs["limits"] == usual]


def _tested(runs: DataFrame) -> bool:
    return bool(runs["seed"].nunique() >= SEEDS_FOR_BOLD)


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


def _calls(row: SamplerRow) -> str:
    return brief(row.spent.calls)


def _other_sides(row: SamplerRow) -> str:
    """Reverse and Bennett, where there are."""
    summaries = [row.scores.get(name) for name in ("log_Z_rev_err", "log_Z_bar_err")]
    return (
        ", ".join(_brief(abs(c.median)) if c else "–" for c in summaries) if any(summaries) else ""
    )


def heat(
    axes: Axes,
    boards: Sequence[Board],
    samplers: list[str],
    choices: tuple[str, ...],
    below_it: Callable[[SamplerRow], str],
) -> None:
    """Numbers on a coloured grid, each with a small line `below_it`; of each cell the first of
    `choices` that it has.  The colour is that of `Board.distance`, whatever the others score."""
    from matplotlib.colors import LinearSegmentedColormap

    values = np.full((len(samplers), len(boards)), np.nan)
    shade = values.copy()
    floor, tied = (np.zeros(values.shape, dtype=bool) for _ in range(2))
    marks: dict[tuple[int, int], str] = {}
    lines: dict[tuple[int, int], str] = {}
    for j, board in enumerate(boards):
        for row in board.rows:
            name = row.first(choices)
            if name is None or row.sampler not in samplers:
                continue
            i, c = samplers.index(row.sampler), row.scores[name]
            values[i, j], tied[i, j] = c.median, name in row.best
            far = board.distance(row, name)
            shade[i, j] = np.nan if far is None else far
            floor[i, j] = c.status is FloorStatus.AT
            marks[i, j] = "✗" if row.behind and name in DISTANCES else ""
            lines[i, j] = below_it(row)
    scheme = LinearSegmentedColormap.from_list("tilt", [GOOD, MIDDLE, BAD]).with_extremes(bad=PALE)
    axes.imshow(np.ma.masked_invalid(shade), cmap=scheme, vmin=0, vmax=1, aspect="auto", alpha=0.85)
    for i, j in np.ndindex(values.shape):
        text, colour = "–", GREY
        if np.isfinite(values[i, j]):
            text, colour = marks.get((i, j), "") + _brief(abs(float(values[i, j]))), INK
            if floor[i, j]:
                text, colour = f"≈ {text}", "white"
            elif shade[i, j] < 0.2 or shade[i, j] > 0.85:
                colour = "white"
        weight = "bold" if tied[i, j] else "normal"
        up = 0.16 if lines.get((i, j)) else 0
        axes.text(j, i - up, text, ha="center", va="center", fontsize=8, color=colour,
                  weight=weight)  # fmt: skip
        axes.text(
            j, i + 0.25, lines.get((i, j), ""), ha="center", va="center", fontsize=5.5, color=colour
        )
    names = [plain(board.target) for board in boards]
    axes.set_xticks(range(len(names)), names, rotation=28, ha="right", fontsize=8, color=INK)
    axes.set_yticks(range(len(samplers)), [plain(s) for s in samplers], fontsize=8, color=INK)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_xticks(np.arange(1, len(names)) - 0.5, minor=True)
    axes.set_yticks(np.arange(1, len(samplers)) - 0.5, minor=True)
    axes.grid(which="minor", color="white", lw=1.5)
    axes.tick_params(which="minor", length=0)


def _brief(value: float) -> str:
    if value >= 99.5:
        return f"{value:.0f}" if value < 1e5 else f"{value:.0e}"
    return f"{value:.2g}" if value >= 0.01 else f"{value:.3f}" if value >= 0.0005 else "<.001"
