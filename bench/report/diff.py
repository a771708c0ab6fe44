"""Two result sets side by side: what got better or worse, and what is missing.

Runs are paired by target, budget, sampler and seed; the labels decide, so that two commits whose
parameters differ can be compared, and what else differs is said.  Scores by the same rules as bold
in a table: errors of either sign by their size, both within the noise floor is a tie, a score below
its floor no merit.  The rest is tested: paired t over common seeds, two-sided, with Holm's
correction over every comparison that differs at all, whatever the target, sampler and metric.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tiltbench.records.published import results
from tiltbench.report.board import ranks
from tiltbench.report.compare import FloorStatus, ScoreSummary, holm, paired, summarise
from tiltbench.report.frame import BLOCK, Frames, frames_of, metric_of
from tiltbench.report.tables.provenance import facts

if TYPE_CHECKING:
    from pandas import DataFrame

SEEDS = 3  # a paired t over fewer says nothing
KEY = [*BLOCK, "sampler"]


class Change(Enum):
    """What became of one score of one sampler from A to B."""

    WORSE = "worse"
    BETTER = "better"
    ALIKE = "not significant"
    TIED = "within the noise floor in both"
    SAME = "the same numbers"
    UNTESTED = "not tested"
    LOST = "only in A"
    NEW = "only in B"


class ScoreChange(NamedTuple):
    """One score of one sampler on one target; medians over seeds, NaN where there is none."""

    target: str
    budget: int
    limits: str  # besides calls, in words
    sampler: str
    metric: str
    a: float
    b: float
    seeds: int  # common to both
    p: float  # before correction; NaN where nothing was tested
    change: Change
    why: str = ""  # where it was not tested


class SeedChanges(NamedTuple):
    """Seeds of one sampler that are recorded in one set only, or finished in one only."""

    target: str
    budget: int
    limits: str
    sampler: str
    lost: tuple[int, ...]  # recorded in A only
    new: tuple[int, ...]  # recorded in B only
    failed: tuple[int, ...]  # finished in A, not in B
    mended: tuple[int, ...]  # finished in B, not in A


class Comparison(NamedTuple):
    rows: tuple[ScoreChange, ...]
    ends: tuple[SeedChanges, ...]
    pace: tuple[float, float, float] | None  # seconds of B over A: median, smallest, largest
    differs: tuple[str, ...]  # sentences: commits, machines, versions of targets

    @property
    def worse(self) -> bool:
        """Whether anything got worse, is gone, or no longer finishes."""
        scores = any(row.change in (Change.WORSE, Change.LOST) for row in self.rows)
        return scores or any(end.lost or end.failed for end in self.ends)

    def frame(self) -> DataFrame:
        """A row for each score, its change as text."""
        from pandas import DataFrame

        table = DataFrame(self.rows, columns=list(ScoreChange._fields))
        return table.assign(change=[row.change.value for row in self.rows])


def compare(a: Path, b: Path, metrics: Iterable[str] = ()) -> Comparison:
    """The records and scores of two folders; of the metrics named, or of all that may have a best
    (`perfect` is stated and the truth is needed).

    Raises FileNotFoundError where a folder holds no records."""
    one, two = (frames_of(results(folder)) for folder in (a, b))
    for frames, folder in ((one, a), (two, b)):
        if frames.runs.empty:
            raise FileNotFoundError(f"{folder} holds no records; run the suite first")
    seen = [_valued(frames) for frames in (one, two)]
    wanted = list(metrics) or [name for name in {**seen[0], **seen[1]} if ranks(name)]
    chosen = [name for name in wanted if name in seen[0] and name in seen[1]]
    apart = [
        f"scored in {letter} only: {', '.join(names)}"
        for letter, mine, other in (("A", *seen), ("B", *reversed(seen)))
        if (names := [name for name in wanted if name in mine and name not in other])
    ]
    ends = _seed_changes(one.runs, two.runs)
    rows = _tested(list(_score_changes(one, two, chosen)))
    differs = [*_differs(one, two), *_scored_apart(one, two), *apart]
    return Comparison(tuple(rows), tuple(ends), _pace(one.runs, two.runs), tuple(differs))


def _valued(frames: Frames) -> dict[str, None]:
    """The metrics of which a set has a value, in order."""
    return dict.fromkeys(frames.scores[frames.scores["value"].notna()]["metric"])


def _score_changes(one: Frames, two: Frames, metrics: list[str]) -> Iterable[ScoreChange]:
    """Every score that either set has; p filled in where there is something to test."""
    both = [frames.scores[frames.scores["metric"].isin(metrics)] for frames in (one, two)]
    a, b = ({key: rows for key, rows in s.groupby([*KEY, "metric"])} for s in both)
    versions = [_versions(frames) for frames in (one, two)]
    finished = [set(f.runs[f.runs["finished"]].groupby(KEY).groups) for f in (one, two)]
    for key in sorted({**a, **b}):
        if not all(key[:-1] in keys for keys in finished):
            continue  # `SeedChanges` tells what became of the runs
        one_summary, two_summary = (
            summarise(rows[key], metric_of(key[-1])) if key in rows else None for rows in (a, b)
        )
        if one_summary or two_summary:
            alike = versions[0].get(key[0]) == versions[1].get(key[0])
            yield _score_change(key, one_summary, two_summary, alike)


def _versions(frames: Frames) -> dict[str, set[int]]:
    versions: dict[str, set[int]] = {}
    for record in frames.records:
        versions.setdefault(record.labels["target"], set()).add(record.spec["target_version"])
    return versions


def _score_change(
    key: Any, a: ScoreSummary | None, b: ScoreSummary | None, alike: bool
) -> ScoreChange:
    values = (a.median if a else math.nan, b.median if b else math.nan)
    target, budget, limits, sampler, metric = key
    head = ScoreChange(
        target, budget, limits, sampler, metric, *values, 0, math.nan, Change.UNTESTED
    )
    if a is None or b is None:
        return head._replace(change=Change.LOST if b is None else Change.NEW)
    common = sorted(set(a.seeds) & set(b.seeds))
    head = head._replace(seeds=len(common))
    merits = [dict(zip(c.seeds, c.merits, strict=True)) for c in (a, b)]
    if not alike:
        return head._replace(why="the target's version is another")
    if common and all(merits[0][seed] == merits[1][seed] for seed in common):
        return head._replace(change=Change.SAME)
    if a.status is b.status is FloorStatus.AT:
        return head._replace(change=Change.TIED)
    if FloorStatus.UNFIT in (a.status, b.status):
        return head._replace(why="the floor is too noisy")
    if FloorStatus.BELOW in (a.status, b.status):
        return head._replace(why="below the floor: correlated draws or contracted tails")
    if not math.isclose(a.floor_mean, b.floor_mean, rel_tol=1e-6) and not math.isnan(a.floor_mean):
        return head._replace(why="the floors differ: other numbers of draws")
    if len(common) < SEEDS:
        return head._replace(why=f"fewer than {SEEDS} common seeds")
    rise = float(np.mean([merits[1][s] - merits[0][s] for s in common]))
    return head._replace(
        p=paired(a, b), change=Change.WORSE if rise > 0 else Change.BETTER
    )  # if Holm lets it stand


def _tested(rows: list[ScoreChange]) -> list[ScoreChange]:
    """The rows with the changes that Holm's correction over all tests lets stand."""
    p = {str(i): row.p for i, row in enumerate(rows) if not math.isnan(row.p)}
    significant = holm(p)
    return [
        row._replace(change=Change.ALIKE) if str(i) in p and str(i) not in significant else row
        for i, row in enumerate(rows)
    ]


def _seed_changes(a: DataFrame, b: DataFrame) -> Iterable[SeedChanges]:
    one, two = ({key: rows for key, rows in runs.groupby(KEY)} for runs in (a, b))
    for key in sorted({**one, **two}):
        every, done = [], []
        for runs in (one, two):
            mine = runs.get(key)
            every.append(set() if mine is None else set(mine["seed"]))
            done.append(set() if mine is None else set(mine[mine["finished"]]["seed"]))
        common = every[0] & every[1]
        changes = (
            every[0] - every[1],
            every[1] - every[0],
            (done[0] - done[1]) & common,
            (done[1] - done[0]) & common,
        )
        if any(changes):
            yield SeedChanges(
                *key, *(tuple(sorted(int(seed) for seed in seeds)) for seeds in changes)
            )


def _pace(a: DataFrame, b: DataFrame) -> tuple[float, float, float] | None:
    keys = [*KEY, "seed"]
    both = a[a["finished"]].merge(b[b["finished"]], on=keys, suffixes=("_a", "_b"))
    ratio = (both["seconds_b"].astype(float) / both["seconds_a"].astype(float)).dropna()
    if ratio.empty:
        return None
    return float(ratio.median()), float(ratio.min()), float(ratio.max())


def _differs(one: Frames, two: Frames) -> list[str]:
    """Where the two come from, where they differ."""
    a, b = dict(facts(one.records)), dict(facts(two.records))
    lines = [f"{name}: {a[name]}  ->  {b[name]}" for name in a if a[name] != b[name]]
    versions = [_versions(frames) for frames in (one, two)]
    other = [t for t in versions[0] if t in versions[1] and versions[0][t] != versions[1][t]]
    return [*lines, *(f"{target} has another version: not compared" for target in other)]


def _scored_apart(one: Frames, two: Frames) -> list[str]:
    """A warning where the metrics, not the samplers, may have changed."""
    codes = [
        {(run["target"], run["code"]) for _, run in frames.runs.iterrows() if run["code"]}
        for frames in (one, two)
    ]
    shared = {target for target, _ in codes[0]} & {target for target, _ in codes[1]}
    apart = {target for target, _ in codes[0] ^ codes[1]} & shared  # the code is that of a target
    return [] if not apart else ["scored by different code: `tiltbench score` makes both anew"]
