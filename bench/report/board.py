"""Leaderboards as data, for every form they are shown in: who scored what, beside which floor."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from tiltbench.plan.budget import limits
from tiltbench.plan.suite import UNTRAINED
from tiltbench.report.compare import (
    Floor,
    FloorStatus,
    ScoreSummary,
    best,
    distance,
    levelled,
    summarise,
)
from tiltbench.report.frame import BLOCK, SUFFIX, Frames, block_of, metric_of
from tiltbench.report.ranks import (
    Judged,
    Ranks,
    behind,
    broken_seeds,
    equal_spend,
    judged,
    orders,
)
from tiltbench.report.tables.legend import SIDES

if TYPE_CHECKING:
    from pandas import DataFrame, Series

    from tiltbench.report.beside import Beside

TRUTH = {"sample", "modes", "observables", "log_Z", "reverse"}  # needs that only the target meets
GROUPS = {
    "drawn": "Unweighted draws",
    "weighted": "Importance-weighted draws",
    "chains": "Chains",
    "weights": "log Z and importance weights",
    "probes": "Training signal",
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
    flops: float = math.nan  # in training; NaN where nobody counted
    draw_flops: float = math.nan
    train_seconds: float = math.nan
    ended_by: str = ""  # what ended training: calls, flops, seconds or steps


class SamplerRow(NamedTuple):
    sampler: str
    ranks: Ranks | None
    runs: int
    finished: int
    ends: Mapping[str, int]  # how many runs ended in each status that is no success
    scores: Mapping[str, ScoreSummary]  # by metric; absent where no seed has a value
    best: frozenset[str]  # metrics in which it is not significantly different from the best
    spent: Spent
    judged: Judged | None = None  # what its rank goes by; None: nothing to go by
    behind: str = ""  # in what it is not better than the untrained base
    method: str = ""  # the sampler's registered name

    def first(self, metrics: tuple[str, ...]) -> str | None:
        """The first of these of which it has a value."""
        return next((name for name in metrics if name in self.scores), None)

    def sides(self) -> dict[str, ScoreSummary]:
        """Errors of log Z by SIDES; the method's own where it has no other."""
        errors = {name: self.scores[name] for name in SIDES if name in self.scores}
        two = {name: c for name, c in errors.items() if name != "log_Z_own_err"}
        return two or errors


class Board(NamedTuple):
    """What one table compares: a target at a budget."""

    target: str
    budget: int  # calls
    columns: tuple[Column, ...]
    rows: tuple[SamplerRow, ...]
    limits: str = ""  # what else was limited, in words
    equal_calls: float = math.nan  # where ranks at equal calls are read; NaN: there are none
    equal_flops: float = math.nan
    beside: Beside | None = None  # where the truth is unknown and draws are there (`with_beside`)

    @property
    def allowed(self) -> str:
        """What might be spent."""
        calls = limits(self.budget, math.inf, math.inf)
        return ", ".join(part for part in (calls, self.limits) if part)

    def of(self, frame: DataFrame) -> DataFrame:
        """The rows of a frame that are this board's."""
        return block_of(frame, (self.target, self.budget, self.limits))

    @property
    def unknown(self) -> bool:
        """Whether some run finished and no score could be held against a truth."""
        seen = [metric for row in self.rows for metric in row.scores]
        return bool(seen) and not any(metric_of(metric).needs & TRUTH for metric in seen)

    @property
    def certifiable(self) -> bool:
        """Whether `tiltbench reference` may make a truth: it is unknown, and that of a density."""
        return self.unknown and any(
            "density" in metric_of(metric).needs for row in self.rows for metric in row.scores
        )

    @property
    def has_flops(self) -> bool:
        return any(not math.isnan(row.spent.flops) for row in self.rows)

    def floor(self, metric: str) -> Floor | None:
        """What exact draws score, as many as most rows have; None where that is not known."""
        known = Counter(floor for floor, few in self._floors(metric) if not few)
        return known.most_common(1)[0][0] if known else None

    def unfit(self, metric: str) -> bool:
        """Whether the floor is too noisy to compare with."""
        return any(
            row.scores[metric].status is FloorStatus.UNFIT
            for row in self.rows
            if metric in row.scores
        )

    def other_floors(self, metric: str) -> list[Floor]:
        """Those of rows with other numbers of draws, the most draws first."""
        known = {floor for floor, _ in self._floors(metric)} - {self.floor(metric)}
        return sorted(known, key=lambda floor: -floor.n)

    def _floors(self, metric: str) -> list[tuple[Floor, bool]]:
        have = [row.scores[metric] for row in self.rows if metric in row.scores]
        return [(Floor(c.floor_mean, c.floor_sd, c.draws), c.few) for c in have if c.floored]

    def distance(self, row: SamplerRow, metric: str) -> float | None:
        """See `compare.distance`."""
        return distance(row.scores[metric], metric_of(metric), self.floor(metric))

    @property
    def budget_summary(self) -> str:
        """What might be spent, and what was."""
        calls = sorted(row.spent.calls for row in self.rows if row.finished)
        ends = dict.fromkeys(f"{n:,.0f}" for n in (calls[:1] + calls[-1:]))
        spent = f"; spent in training: {' to '.join(ends)} calls" if calls else ""
        return f"budget: {self.allowed}{spent}"


def boards(frames: Frames) -> list[Board]:
    """By target and budget; a row for every sampler of which there is a record, finished or not,
    a column for every metric of which there is a value."""
    leaderboards = []
    for block, runs in frames.runs.groupby(BLOCK):
        mine = (str(block[0]), int(block[1]), str(block[2]))
        leaderboards.append(_board(mine, runs, block_of(frames.scores, mine), frames))
    return leaderboards


def _board(
    block: tuple[str, int, str], runs: DataFrame, scores: DataFrame, frames: Frames
) -> Board:
    summaries_by_metric = summaries(scores)
    bold = {name: best(column) for name, column in summaries_by_metric.items() if ranks(name)}
    finished = set(runs[runs["finished"]]["sampler"])
    judgements = judged(summaries_by_metric, broken_seeds(scores))
    judgements = {name: mine for name, mine in judgements.items() if name in finished}
    order = orders(runs, judgements, frames.curves)
    base = runs[runs["method"] == UNTRAINED]["sampler"]
    worse = behind(judgements, str(base.iloc[0]) if len(base) else None)
    sampler_rows = []
    for sampler, rows in runs.groupby("sampler", sort=False):
        name = str(sampler)
        sampler_rows.append(
            SamplerRow(
                name,
                order.get(name),
                len(rows),
                int(rows["finished"].sum()),
                dict(Counter(rows[~rows["finished"]]["status"])),
                {
                    metric: column[name]
                    for metric, column in summaries_by_metric.items()
                    if name in column
                },
                frozenset(metric for metric, names in bold.items() if name in names),
                _spent(rows),
                judgements.get(name),
                worse.get(name, ""),
                str(rows["method"].iloc[0]),
            )
        )
    columns = tuple(Column(name, group(name)) for name in summaries_by_metric)
    equal = equal_spend(runs, "calls"), equal_spend(runs, "flops")
    return Board(*block[:2], columns, tuple(sampler_rows), block[2], *equal)


def summaries(scores: DataFrame) -> dict[str, dict[str, ScoreSummary]]:
    """By metric, by sampler; the metrics that a run has a value for, in the registry's order."""
    by_metric = {}
    for name in dict.fromkeys(scores[scores["value"].notna()]["metric"]):
        rows = scores[scores["metric"] == name].groupby("sampler")
        by_sampler = {
            str(sampler): summarise(seeds, metric_of(str(name))) for sampler, seeds in rows
        }
        by_metric[str(name)] = levelled({s: c for s, c in by_sampler.items() if c is not None})
    order = dict.fromkeys(str(name) for name in scores["metric"] if name in by_metric)
    return {name: by_metric[name] for name in order}


def _spent(runs: DataFrame) -> Spent:
    good = runs[runs["finished"]]
    training, drawing = ["values", "grads"], ["draw_values", "draw_grads"]
    ends = good["ended_by"][good["ended_by"] != ""]
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
        _median(good["flops"]),
        _median(good["draw_flops"]),
        _median(good["train_seconds"]),
        str(ends.mode().iloc[0]) if len(ends) else "",
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
    if "chains" in needs:
        return "chains"
    if needs & {"sample", "modes", "observables", "unknown_law"}:
        return "weighted" if name.endswith(SUFFIX) else "drawn"
    return "weights"
