"""What may be said of scores: at the floor or not, best or not told apart, rank by price."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tiltbench.metric import Metric

if TYPE_CHECKING:
    from pandas import DataFrame

SEEDS_FOR_BOLD = 5
LEVEL = 0.05


class Verdict(Enum):
    """A score against what exact draws score, +- 2 sd."""

    NONE = "no floor"
    AT = "at the floor"
    BELOW = "below the floor"  # correlated draws, contracted tails or a biased truth: never best
    ABOVE = "above the floor"
    UNFIT = "unfit"  # the floor is too noisy to compare with


class Cell(NamedTuple):
    """One sampler and one metric over seeds: the median, the smallest and the largest."""

    median: float
    low: float
    high: float
    se: float  # median of the runs' own standard errors; NaN where they have none
    floor_mean: float
    floor_sd: float
    verdict: Verdict
    seeds: tuple[int, ...]
    merits: tuple[float, ...]  # by seed; smaller is better


def cell(rows: DataFrame, metric: Metric) -> Cell | None:
    """The cell of one sampler's rows of one metric; None where no seed has a value."""
    rows = rows[rows["value"].notna()]
    if rows.empty:
        return None
    values, mean, sd = rows["value"], rows["floor_mean"].median(), rows["floor_sd"].median()
    signed = metric.perfect == "0" and math.isnan(mean)
    merits = values.abs() if signed else (-values if metric.better == "higher" else values)
    return Cell(
        float(values.median()),
        float(values.min()),
        float(values.max()),
        float(rows["se"].median()),
        float(mean),
        float(sd),
        verdict(float(values.median()), float(mean), float(sd), bool(rows["unfit"].any())),
        tuple(rows["seed"]),
        tuple(float(m) for m in merits),
    )


def verdict(value: float, mean: float, sd: float, unfit: bool = False) -> Verdict:
    if math.isnan(mean):
        return Verdict.NONE
    if unfit:
        return Verdict.UNFIT
    if value < mean - 2 * sd:
        return Verdict.BELOW
    return Verdict.AT if value <= mean + 2 * sd else Verdict.ABOVE


def best(cells: Mapping[str, Cell]) -> set[str]:
    """The samplers not distinguishable from the best: paired t over common seeds, two-sided, Holm's
    correction over the comparisons, level 5 %.  Empty with fewer than five seeds.

    Scores at the floor are all best and not told apart; those below it, or unfit, never are."""
    fit = {
        name: c
        for name, c in cells.items()
        if c.verdict not in (Verdict.BELOW, Verdict.UNFIT) and len(c.seeds) >= SEEDS_FOR_BOLD
    }
    if not fit:
        return set()
    at = {name for name, c in fit.items() if c.verdict is Verdict.AT}
    if at:
        return at
    leader = min(fit, key=lambda name: float(np.mean(fit[name].merits)))
    others = {n: _paired(fit[n], fit[leader]) for n in fit if n != leader}
    return {leader} | (set(others) - holm(others))


def _paired(a: Cell, b: Cell) -> float:
    """The p value of equal means over common seeds; 1 where too few are common."""
    from scipy.stats import t

    of_a, of_b = (
        dict(zip(a.seeds, a.merits, strict=True)),
        dict(zip(b.seeds, b.merits, strict=True)),
    )
    difference = np.array([of_a[seed] - of_b[seed] for seed in of_a if seed in of_b])
    if len(difference) < 2:
        return 1.0
    se = difference.std(ddof=1) / math.sqrt(len(difference))
    if se == 0:
        return 1.0 if difference.mean() == 0 else 0.0
    return float(2 * t.sf(abs(difference.mean()) / se, len(difference) - 1))


def holm(p: Mapping[str, float], level: float = LEVEL) -> set[str]:
    """The names whose hypotheses are rejected (Holm, Scand. J. Statist. 6, 65, 1979)."""
    rejected: set[str] = set()
    for tried, name in enumerate(sorted(p, key=lambda n: p[n])):
        if p[name] > level / (len(p) - tried):
            break
        rejected.add(name)
    return rejected


class Order(NamedTuple):
    """Place by energy distance (by |log Z error| without exact draws); ties share a place."""

    place: int
    priced: int  # with a gradient priced at 2 values


def orders(runs: DataFrame, curves: Mapping[str, dict[str, Any]]) -> dict[str, Order]:
    """Places of one leaderboard's samplers at the full allowance, and at an equal bill.

    The second bill counts max(values, grads) + grads: a value and a gradient taken together cost
    2, a value alone 1.  A sampler whose bill exceeds the allowance is read off its learning curve
    where the bill meets it (linear in log spend).  Scores at the floor tie.  Samplers without a
    curve have no place."""
    full: dict[str, list[float]] = {}
    priced: dict[str, list[float]] = {}
    for _, run in runs[runs["finished"]].iterrows():
        curve = curves.get(run["id"])
        if not curve:
            continue
        spend, values = _line(curve)
        if len(spend) == 0:
            continue
        calls = max(run["values"], run["grads"])
        bill = calls + run["grads"]
        until = calls * min(1.0, run["budget"] / max(bill, 1))
        reached = np.interp(math.log(max(until, 1)), np.log(np.maximum(spend, 1)), values)
        full.setdefault(run["sampler"], []).append(float(values[-1]))
        priced.setdefault(run["sampler"], []).append(float(reached))
    first, second = _places(full), _places(priced)
    return {name: Order(first[name], second[name]) for name in full}


def _line(curve: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """(spend, score) of a curve where it has a score, never below the floor's upper edge."""
    floor = curve.get("floor")
    least = floor["mean"] + 2 * floor["sd"] if floor else -math.inf
    scores = curve["distance"]
    if all(v is None for v in scores):
        scores = [None if v is None else abs(v) for v in curve["log_Z_err"]]
        least = 0.0
    pairs = [
        (s, max(v, least)) for s, v in zip(curve["spend"], scores, strict=True) if v is not None
    ]
    table = np.array(sorted(pairs), dtype=float).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _places(scores: Mapping[str, list[float]]) -> dict[str, int]:
    medians = {name: float(np.median(values)) for name, values in scores.items()}
    return {n: 1 + sum(other < value for other in medians.values()) for n, value in medians.items()}
