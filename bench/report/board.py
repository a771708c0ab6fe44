"""Leaderboards as data, for every form they are shown in: who scored what, beside which floor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from tiltbench.report.compare import (
    Cell,
    Floor,
    Order,
    Verdict,
    best,
    cell,
    distance,
    levelled,
    orders,
)
from tiltbench.report.frame import BLOCK, SUFFIX, Frames, metric_of
from tiltbench.report.tables.legend import FAR, SIDES, brief, number
from tiltbench.score.curve import DISTANCES

if TYPE_CHECKING:
    from pandas import DataFrame, Series

PLACED = (*DISTANCES, "log_Z_err")  # by the first of these that anybody has
TRUTH = {"sample", "modes", "observables", "log_Z", "reverse"}  # needs that only the target meets
GROUPS = {
    "drawn": "Draws, as they are",
    "weighted": "Draws, after weighting",
    "weights": "log Z and weights",
    "probes": "Measured while training",
}


class Column(NamedTuple):
    metric: str  # with its suffix where weighted
    group: str  # a key of GROUPS


class Spent(NamedTuple):
    """Medians over the runs that finished; NaN where none did."""

    calls: float  # the larger of values and grads
    values: float
    grads: float
    draw_values: float
    draw_grads: float
    seconds: float
    parameters: float
    draws: float
    fewer: bool  # some run made fewer draws than were asked for
    dear: bool  # some run took more points to draw than to train
    own: int | None  # the budget, where it is a smaller one than the table's

    @property
    def text(self) -> str:
        return brief(self.calls) + ("°" if self.own else "")


class Row(NamedTuple):
    sampler: str
    place: Order | None
    runs: int
    finished: int
    ends: Mapping[str, int]  # how many runs ended in each status that is no success
    cells: Mapping[str, Cell]  # by metric; absent where no seed has a value
    best: frozenset[str]  # metrics in which it is not told apart from the best
    spent: Spent
    caveat: str = ""  # which score contradicts its place

    def first(self, metrics: tuple[str, ...]) -> str | None:
        """The first of these of which it has a value."""
        return next((name for name in metrics if name in self.cells), None)

    def sides(self) -> dict[str, Cell]:
        """Errors of log Z by SIDES; the method's own where it has no other."""
        found = {name: self.cells[name] for name in SIDES if name in self.cells}
        two = {name: c for name, c in found.items() if name != "log_Z_own_err"}
        return two or found


class Board(NamedTuple):
    """What one table compares: a target at an allowance."""

    target: str
    budget: int
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]

    def floor(self, metric: str) -> Floor | None:
        """What exact draws score, as many as most rows have; None where that is not known."""
        known = Counter(floor for floor, few in self._floors(metric) if not few)
        return known.most_common(1)[0][0] if known else None

    def other_floors(self, metric: str) -> list[Floor]:
        """Those of rows with other numbers of draws, the most draws first."""
        known = {floor for floor, _ in self._floors(metric)} - {self.floor(metric)}
        return sorted(known, key=lambda floor: -floor.n)

    def _floors(self, metric: str) -> list[tuple[Floor, bool]]:
        have = [row.cells[metric] for row in self.rows if metric in row.cells]
        return [(Floor(c.floor_mean, c.floor_sd, c.draws), c.few) for c in have if c.floored]

    def distance(self, row: Row, metric: str) -> float | None:
        """See `compare.distance`."""
        return distance(row.cells[metric], metric_of(metric), self.floor(metric))

    @property
    def allowance(self) -> str:
        """What might be spent, and what was."""
        calls = sorted(row.spent.calls for row in self.rows if row.finished)
        ends = dict.fromkeys(f"{n:,.0f}" for n in (calls[:1] + calls[-1:]))
        spent = f"; spent in training: {' to '.join(ends)} calls" if calls else ""
        own = ", ".join(f"{r.sampler} ({r.spent.own:,})" for r in self.rows if r.spent.own)
        smaller = f"; budgets of their own (°): {own}" if own else ""
        return f"allowance: {self.budget:,} points{spent}{smaller}"


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
    cells = cells_of(scores)
    placed = next((name for name in PLACED if name in cells), None)
    caveats = _caveats(cells, placed) if placed else {}
    fair = {n: {s: c for s, c in own.items() if s not in caveats} for n, own in cells.items()}
    bold = {name: best(found) for name, found in fair.items() if ranks(name)}
    places = orders(runs, ranked(cells, placed), frames.curves)
    rows = []
    for sampler, own in runs.groupby("sampler", sort=False):
        name = str(sampler)
        rows.append(
            Row(
                name,
                places.get(name),
                len(own),
                int(own["finished"].sum()),
                dict(Counter(own[~own["finished"]]["status"])),
                {metric: found[name] for metric, found in cells.items() if name in found},
                frozenset(metric for metric, names in bold.items() if name in names),
                _spent(own, budget),
                caveats.get(name, ""),
            )
        )
    columns = tuple(Column(name, group(name)) for name in cells)
    return Board(target, budget, columns, tuple(rows))


def cells_of(scores: DataFrame) -> dict[str, dict[str, Cell]]:
    """By metric, by sampler; the metrics that a run has a value for, in the registry's order."""
    found = {}
    for name in dict.fromkeys(scores[scores["value"].notna()]["metric"]):
        rows = scores[scores["metric"] == name].groupby("sampler")
        made = {str(sampler): cell(own, metric_of(str(name))) for sampler, own in rows}
        found[str(name)] = levelled({s: c for s, c in made.items() if c is not None})
    order = dict.fromkeys(str(name) for name in scores["metric"] if name in found)
    return {name: found[name] for name in order}


def ranked(cells: Mapping[str, Mapping[str, Cell]], placed: str | None) -> Mapping[str, Cell]:
    """The cells that places go by: the distance to exact draws or, where nobody has one, the size
    of the error of log Z."""
    if placed is None:
        return {}
    signed = placed not in DISTANCES
    return {
        name: c._replace(median=abs(c.median)) if signed else c for name, c in cells[placed].items()
    }


def _caveats(cells: Mapping[str, Mapping[str, Cell]], placed: str) -> dict[str, str]:
    """By sampler: distances between laws that are far off, where the one of its place is not."""
    laws = [n for n in cells if group(n) == "drawn" and "sample" in metric_of(n).needs]
    found = {}
    for sampler, own in cells[placed].items():
        far = [n for n in laws if sampler in cells[n] and _far(cells[n][sampler])]
        if far and not _far(own):
            far.sort(key=lambda n: -cells[n][sampler].median / cells[n][sampler].edge)
            worst = _beside(far[0], cells[far[0]][sampler])
            too = f"; {', '.join(far[1:])} far off, too" if far[1:] else ""
            found[sampler] = f"the place goes by {placed}, while {worst}{too}"
    return found


def _far(c: Cell) -> bool:
    return c.verdict is Verdict.ABOVE and c.median > FAR * c.edge


def _beside(name: str, c: Cell) -> str:
    exact = f"{number(c.floor_mean)} +- {c.floor_sd:.1g}"
    return f"{name} is {number(c.median)} where exact draws score {exact}"


def _spent(runs: DataFrame, budget: int) -> Spent:
    good = runs[runs["finished"]]
    training, drawing = ["values", "grads"], ["draw_values", "draw_grads"]
    own = int(runs["own"].max())
    return Spent(
        _median(good[training].max(axis=1)),
        _median(good["values"]),
        _median(good["grads"]),
        _median(good["draw_values"]),
        _median(good["draw_grads"]),
        _median(good["seconds"]),
        _median(good["parameters"]),
        _median(good["draws"]),
        bool((good["draws"] < good["asked"]).any()),
        bool((good[drawing].max(axis=1) > good[training].max(axis=1)).any()),
        own if own < budget else None,
    )


def _median(values: Series) -> float:
    return float(values.astype(float).median())


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
