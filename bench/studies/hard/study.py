"""Which figures are reached within the minutes that were asked for?  From the stored runs of
`hard`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from tiltbench.records.published import results
from tiltbench.report.frame import frames_of
from tiltbench.studies.common.stored import folder_of
from tiltbench.studies.hard.curves import draw
from tiltbench.studies.hard.goals import Goal, goals
from tiltbench.study import Answer, Claim, Study, verdict

if TYPE_CHECKING:
    from pandas import DataFrame

SUITE = "hard"


class Figure(NamedTuple):
    """One condition, and what a method measured."""

    metric: str
    condition: str
    values: tuple[float, ...]  # by seed
    met: bool

    def __str__(self) -> str:
        return ", ".join(f"{value:.3g}" for value in self.values) or "–"


class Attempt(NamedTuple):
    """A method at a goal."""

    method: str
    cpu_seconds: float  # of the slowest seed
    figures: tuple[Figure, ...]
    in_time: bool

    @property
    def met(self) -> bool:
        return self.in_time and all(figure.met for figure in self.figures)


def run(folder: Path, device: str) -> Answer:
    from pandas import DataFrame

    frames = frames_of(results(folder_of(SUITE)))
    rows, claims, asked = [], [], goals()
    for goal in asked:
        tried = list(attempts(goal, frames.runs, frames.scores))
        rows += list(_table_rows(goal, tried))
        claims.append(claim(goal, tried))
    draw(folder / "hard.png", asked, frames)
    words = (
        f"From the stored runs of `{SUITE}`: every value is of one seed, a goal is met by the "
        "median over seeds, and the slowest seed must have trained in time (CPU time of the cell). "
        "Settings were chosen by hand on seed 100, which is none of these."
    )
    return Answer(DataFrame(rows), words, tuple(claims))


def attempts(goal: Goal, runs: DataFrame, scores: DataFrame) -> Iterator[Attempt]:
    """Of every trained method on the goal's target."""
    here = runs[(runs["target"] == goal.target) & runs["finished"] & (runs["parameters"] > 0)]
    for method, mine in here.groupby("sampler", sort=False):
        of = scores[scores["id"].isin(mine["id"])].sort_values("seed")
        seconds = float(mine["cpu_seconds"].max())
        yield Attempt(str(method), seconds, tuple(_figures(goal, of)), seconds <= 60 * goal.minutes)


def _figures(goal: Goal, scores: DataFrame) -> Iterator[Figure]:
    def sizes(metric: str) -> tuple[float, ...]:
        rows = scores[(scores["metric"] == metric) & scores["value"].notna()]
        return tuple(float(abs(value)) for value in rows["value"])

    def edge(metric: str) -> float:
        rows = scores[scores["metric"] == metric]
        return float(rows["floor_mean"].median() + 2 * rows["floor_sd"].median())

    for metric, most in goal.below.items():
        yield _figure(metric, f"< {most:g}", sizes(metric), -math.inf, most)
    for metric, least in goal.above.items():
        yield _figure(metric, f"> {least:g}", sizes(metric), least, math.inf)
    for metric, times in {**dict.fromkeys(goal.floor, 1.0), **goal.times}.items():
        most = times * edge(metric)
        condition = f"≤ {most:.3g}, {f'{times:g} times ' if times != 1 else ''}the floor's edge"
        yield _figure(metric, condition, sizes(metric), -math.inf, math.nextafter(most, math.inf))


def _figure(
    metric: str, condition: str, values: tuple[float, ...], low: float, high: float
) -> Figure:
    middle = median(values) if values else math.nan
    return Figure(metric, condition, values, low < middle < high)


def _table_rows(goal: Goal, tried: list[Attempt]) -> Iterator[dict[str, str]]:
    asked = f"{goal.minutes:g} minutes" + (f", {goal.methods} methods" if goal.methods > 1 else "")
    if not tried:
        yield {"target": goal.target, "asked for": asked, "method": "not run"}
    for number, attempt in enumerate(tried):
        for i, figure in enumerate(attempt.figures):
            first, head = i == 0, i == 0 and number == 0
            yield {
                "target": goal.target if head else "",
                "asked for": asked if head else "",
                "method": f"`{attempt.method}`" if first else "",
                "CPU s": f"{attempt.cpu_seconds:.0f}" if first else "",
                "figure": figure.metric,
                "goal": figure.condition,
                "by seed": str(figure),
                "met": "yes" if figure.met else "no",
            }


def claim(goal: Goal, tried: list[Attempt]) -> Claim:
    """Open where too few methods were tried."""
    met = [attempt for attempt in tried if attempt.met]
    enough = len(met) >= goal.methods
    asked = [f"{metric} < {most:g}" for metric, most in goal.below.items()]
    asked += [f"{metric} > {least:g}" for metric, least in goal.above.items()]
    asked += [f"{metric} at its floor" for metric in goal.floor]
    asked += [f"{metric} within {n:g} times its floor's edge" for metric, n in goal.times.items()]
    many = f"{goal.methods} learned methods" if goal.methods > 1 else "a learned method"
    methods = ", ".join(f"`{attempt.method}`" for attempt in met)
    return Claim(
        f"`{goal.target}` within {goal.minutes:g} CPU-minutes: {many} with {', '.join(asked)}",
        verdict(enough, not enough and len(tried) >= goal.methods),
        f"{len(met)} of {len(tried)} tried" + (f": {methods}" if methods else ""),
    )


hard = Study("hard", "Figures asked for within stated minutes", run)
