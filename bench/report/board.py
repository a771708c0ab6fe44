"""Leaderboards as data, for every form they are shown in: who scored what, beside which floor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from tiltbench.report.compare import Cell, Order, best, cell, orders
from tiltbench.report.frame import BLOCK, SUFFIX, Frames, metric_of
from tiltbench.report.tables import TRUTH, columns_of, ranked

if TYPE_CHECKING:
    from pandas import DataFrame

GROUPS = {
    "drawn": "Draws, as they are",
    "weighted": "Draws, after weighting",
    "weights": "log Z and weights",
    "probes": "Measured while training",
}


class Column(NamedTuple):
    metric: str  # with its suffix where weighted
    group: str  # a key of GROUPS


class Row(NamedTuple):
    sampler: str
    place: Order | None
    runs: int
    finished: int
    ends: Mapping[str, int]  # how many runs ended in each status that is no success
    cells: Mapping[str, Cell]  # by metric; absent where no seed has a value
    best: frozenset[str]  # metrics in which it is not told apart from the best


class Board(NamedTuple):
    """What one table compares: a target at an allowance."""

    target: str
    budget: int
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


def boards(frames: Frames) -> list[Board]:
    """By target and allowance; a row for every sampler of which there is a record, finished or
    not, a column for every metric of which there is a value."""
    made = []
    for (target, budget), runs in frames.runs.groupby(BLOCK):
        scores = frames.scores
        mine = scores[(scores["target"] == target) & (scores["budget"] == budget)]
        made.append(_board(str(target), int(budget), runs, mine, frames))
    return made


def _board(target: str, budget: int, runs: DataFrame, scores: DataFrame, frames: Frames) -> Board:
    cells: dict[str, dict[str, Cell]] = {}  # by metric, by sampler
    for name in columns_of(scores):
        rows = scores[scores["metric"] == name].groupby("sampler")
        made = {str(sampler): cell(own, metric_of(name)) for sampler, own in rows}
        cells[name] = {sampler: c for sampler, c in made.items() if c is not None}
    bold = {name: best(found) for name, found in cells.items() if ranks(name)}
    places = orders(runs, ranked(runs, scores), frames.curves)
    rows = []
    for sampler, own in runs.groupby("sampler", sort=False):
        ends = Counter(own[~own["finished"]]["status"])
        rows.append(
            Row(
                str(sampler),
                places.get(str(sampler)),
                len(own),
                int(own["finished"].sum()),
                dict(ends),
                {name: found[sampler] for name, found in cells.items() if sampler in found},
                frozenset(name for name, names in bold.items() if sampler in names),
            )
        )
    columns = tuple(Column(name, group(name)) for name in cells)
    return Board(target, budget, columns, tuple(rows))


def ranks(name: str) -> bool:
    """Whether a metric may have a best: it knows of the truth and has a perfect value."""
    metric = metric_of(name)
    return bool(metric.perfect and metric.needs & TRUTH)


def group(name: str) -> str:
    """The key of GROUPS under which a metric is shown."""
    needs = metric_of(name).needs
    if any(need.startswith("probe.") for need in needs):
        return "probes"
    if needs & {"sample", "modes", "observables"}:
        return "weighted" if name.endswith(SUFFIX) else "drawn"
    return "weights"
