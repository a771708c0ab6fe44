"""Who ranks where on one leaderboard.

**The rule.**  Every score (its square root where it is a square) is divided by the edge of the
noise floor: 2 sd of what exact draws score, above or below its mean; for an error of log Z twice
its standard error, but .1 nats at least and 1 nat at most.  A method's rank goes by the worst of
these ratios over its scores of distance, mode mass, energies and log Z, and methods all of
whose scores lie within the edges share the first rank.  In here a ratio is its logarithm to base 2,
`doublings`; it is printed as the ratio.

The worst and not the mean: a failure shows in one group and leaves the others as they are, so that
a mean divides it by their number (docs/studies/planted_failures.md has both).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tiltbench.plan.budget import UNLIMITED
from tiltbench.report.compare import FloorStatus, ScoreSummary

if TYPE_CHECKING:
    from pandas import DataFrame

GROUPS: dict[str, tuple[str, ...]] = {
    "distance": ("energy_distance", "config_w2", "w2", "torsion_w2"),
    "modes": ("mode_tv", "left_err"),
    "energies": (
        "energy_w2",
        "distance_w2",
        "obs_b2",
        "reward_err",
        "magnetisation_err",
        "two_point_err",
        "free_energy_err",
    ),
    "log Z": ("log_Z_err", "log_Z_rev_err", "log_Z_own_err"),
}
SQUARES = {"energy_distance", "obs_b2"}  # of what grows in proportion to the failure
DISTANCE, LOG_Z = "distance", "log Z"
OWN = "log_Z_own_err"  # counts where the method has no weights
LEAST_NATS, MOST_NATS = 0.1, 1.0  # the edge of an error of log Z lies between
EQUAL = 0.05  # spends that differ by less are equal
BROKEN = (  # sentences of scores that do not exist because of what the method handed over
    "are not finite",
    "have zero density",
    "NaN or +inf",
    "every weight is zero",
    "the value is ",
    "the estimate is -inf",
)


class Off(NamedTuple):
    """How far one score is off."""

    group: str
    metric: str
    doublings: float  # beyond the edge of its floor; 0 within; inf: it does not exist


class Judged(NamedTuple):
    """What a method's rank goes by."""

    scores: tuple[Off, ...]
    lacking: tuple[str, ...]  # groups that others on the board have a score in

    @property
    def worst(self) -> Off:
        """The first of the largest."""
        return max(self.scores, key=lambda off: off.doublings)

    @property
    def doublings(self) -> float:
        return self.worst.doublings

    @property
    def level(self) -> bool:
        """Whether every score is within its edge, as those of exact draws are."""
        return self.doublings == 0

    def by(self, metric: str) -> Off | None:
        """By this metric; None where it has no score."""
        return next((off for off in self.scores if off.metric == metric), None)

    def of(self, group: str) -> Off | None:
        """The worst of a group; None where it has no score there."""
        scores = [off for off in self.scores if off.group == group]
        return max(scores, key=lambda off: off.doublings) if scores else None


class Ranks(NamedTuple):
    """Ranks of one sampler; None where it has none.  Equal scores share a rank."""

    rank: int | None
    priced: int | None = None  # with a gradient priced at 2 values
    calls: int | None = None  # at equal calls
    compute: int | None = None  # at equal compute
    why: tuple[str, ...] = ()  # there is no rank, or not each of them
    calls_off: float = math.nan  # doublings of the worst score at equal calls; NaN: not known
    compute_off: float = math.nan


def beyond(size: float, edge: float) -> float:
    """log2(size / edge), 0 within the edge."""
    if math.isnan(size) or math.isnan(edge):
        return math.nan
    return max(math.log2(size / edge), 0.0) if size > edge else 0.0


def edge_of_log_Z(se: float) -> float:
    """Nats.  A method that states no error is held to the least, one that states a wide one to the
    most: a wide bar excuses no more than one nat."""
    return min(max(LEAST_NATS, 2 * se), MOST_NATS) if se == se else LEAST_NATS


def off(summary: ScoreSummary, metric: str, sd: float, broken: int = 0) -> float:
    """Doublings of the median over seeds; NaN where there is nothing to hold the score against.

    `sd` is that of the floor of the column's most draws: with fewer draws (`few`) a score counts as
    the edge of its own wider floor at least.  `broken` seeds have no score because their draws or
    weights are no numbers, and count as infinitely far off."""
    if metric in GROUPS[LOG_Z]:
        sizes = [abs(merit) for merit in summary.merits]
        edge = edge_of_log_Z(summary.se)
    elif summary.status is FloorStatus.UNFIT or not summary.floored or not sd > 0:
        return math.nan
    else:
        edge = 2 * sd
        sizes = [abs(merit - summary.floor_mean) for merit in summary.merits]
        if summary.few:
            sizes = [max(size, 2 * summary.floor_sd) for size in sizes]
    middle = float(np.median([*sizes, *[math.inf] * broken]))
    doublings = math.inf if middle != middle else beyond(middle, edge)  # inf - inf
    return doublings / 2 if metric in SQUARES else doublings


def judged(
    summaries: Mapping[str, Mapping[str, ScoreSummary]],
    broken: Mapping[tuple[str, str], int] | None = None,
) -> dict[str, Judged]:
    """By sampler: `summaries` are by metric and sampler, `broken` counts seeds by metric and
    sampler.  Without a sampler none of whose scores can be held against anything."""
    gaps = broken or {}
    scores: dict[str, list[Off]] = {}
    for group, metrics in GROUPS.items():
        for metric in metrics:
            by_sampler = summaries.get(metric, {})
            sd = _sd(by_sampler.values())
            for sampler in dict.fromkeys([*by_sampler, *(s for m, s in gaps if m == metric)]):
                if metric == OWN and _weighted(sampler, summaries, gaps):
                    continue
                count = gaps.get((metric, sampler), 0)
                if sampler in by_sampler:
                    value = off(by_sampler[sampler], metric, sd, count)
                else:
                    value = math.inf if group == LOG_Z or sd > 0 else math.nan
                if not math.isnan(value):
                    scores.setdefault(sampler, []).append(Off(group, metric, value))
    groups = [g for g in GROUPS if any(o.group == g for every in scores.values() for o in every)]
    return {
        sampler: Judged(tuple(every), tuple(g for g in groups if all(o.group != g for o in every)))
        for sampler, every in scores.items()
    }


def _weighted(
    sampler: str, summaries: Mapping[str, Mapping[str, ScoreSummary]], gaps: Mapping[Any, int]
) -> bool:
    return sampler in summaries.get("log_Z_err", {}) or ("log_Z_err", sampler) in gaps


def _sd(summaries: Iterable[ScoreSummary]) -> float:
    """The standard deviation of the floor of the most draws; NaN where there is none."""
    known = [c for c in summaries if c.floored and c.status is not FloorStatus.UNFIT]
    return max(known, key=lambda c: (c.draws, -c.floor_sd)).floor_sd if known else math.nan


def broken_seeds(scores: DataFrame) -> dict[tuple[str, str], int]:
    """By metric and sampler: how many seeds have no score because draws or weights are no numbers,
    have no density or no weight at all."""
    named = {metric for metrics in GROUPS.values() for metric in metrics}
    missing = scores[scores["value"].isna() & scores["metric"].isin(named)]
    rows = zip(missing["metric"], missing["sampler"], missing["reason"], strict=True)
    return Counter((m, s) for m, s, why in rows if any(part in why for part in BROKEN))


# ranks

Cut = Callable[[Mapping[str, Any]], tuple[str, float] | None]
# of a run: the axis of its curve and the spend on it where it is to be read; None: at its end


def orders(
    runs: DataFrame, judgements: Mapping[str, Judged], curves: Mapping[str, Mapping[str, Any]]
) -> dict[str, Ranks]:
    """Ranks of one leaderboard's samplers: at the end of the budget, with a gradient priced at
    2 values, at equal calls and at equal compute.

    No rank for a sampler of which a run has made no training step.  The cost with gradients at 2
    counts max(values, grads) + grads: a value and a gradient taken together cost 2, a value alone
    1; a method whose cost exceeds the budget is read where it meets it.  At equal calls
    (compute) everybody is read at the least calls (flops) that a learned method of the table has
    spent, a method with parameters that finished; spends within 5 % of it are equal to it.  Nobody
    has such a rank where no method is learned, or no learned one has flops on record.

    To be read earlier makes a method worse by what its learning curve (few draws) loses there: the
    doublings of the curve's worst score at that spend less those at its end, the median over seeds,
    where positive.  No such rank where the curve is missing."""
    trained = runs.groupby("sampler")["trained"].all()
    fit = {name: mine for name, mine in judgements.items() if trained.get(name, False)}
    full = {name: mine.doublings for name, mine in fit.items()}
    whys: dict[str, list[str]] = {str(name): [] for name in trained.index}
    for name in whys:
        if name not in judgements:
            whys[name].append("no score to go by")
        elif name not in fit:
            whys[name].append("a run did not train for a step")

    def read(cut: Cut | None, why: str) -> dict[str, float]:
        """Doublings where everybody is cut; without those of whom nobody knows."""
        if cut is None:
            return {}
        cutted = {}
        for name in fit:
            mine = runs[(runs["sampler"] == name) & runs["finished"]]
            rises = [_rise(run, curves.get(run["id"]), cut(run)) for _, run in mine.iterrows()]
            worse = float(np.median(rises)) if rises else math.nan
            if math.isnan(worse):
                whys[name].append(why)
            else:  # what is left of a curve that falls back is mostly noise
                cutted[name] = full[name] + max(worse, 0.0)
        return cutted

    limited = bool((runs["budget"] < UNLIMITED).all())
    priced = read(_priced_cut if limited else None, UNPRICED)
    calls = read(_least(runs, "calls"), UNREAD.format("calls"))
    compute = read(_least(runs, "flops"), UNREAD.format("compute"))
    return {
        name: Ranks(
            _rank(full, name),
            _rank(priced, name),
            _rank(calls, name),
            _rank(compute, name),
            tuple(whys[name]),
            calls.get(name, math.nan),
            compute.get(name, math.nan),
        )
        for name in whys
    }


UNPRICED = (
    "no rank with a gradient as 2 calls: that exceeds the budget, and without a learning curve the "
    "score within it is unknown"
)
UNREAD = (
    "no rank at equal {}: it spent more than the least of the learned methods, or its spend is not "
    "recorded, and without a learning curve its score there is unknown"
)


def _rank(doublings: Mapping[str, float], name: str) -> int | None:
    if name not in doublings:
        return None
    return 1 + sum(other < doublings[name] for other in doublings.values())


def _calls(run: Mapping[str, Any]) -> float:
    return float(max(run["values"], run["grads"]))


def _spend(run: Mapping[str, Any], axis: str) -> float:
    return _calls(run) if axis == "calls" else float(run["flops"])


def _priced_cut(run: Mapping[str, Any]) -> tuple[str, float] | None:
    calls = _calls(run)
    cost = calls + run["grads"]
    if cost <= run["budget"]:
        return None
    return "calls", max(calls * run["budget"] / cost, 1)


def _least(runs: DataFrame, axis: str) -> Cut | None:
    """Reads everybody at `equal_spend`."""
    least = equal_spend(runs, axis)
    if math.isnan(least):
        return None

    def cut(run: Mapping[str, Any]) -> tuple[str, float] | None:
        spent = _spend(run, axis)
        return None if spent <= least * (1 + EQUAL) else (axis, least)  # NaN: not known

    return cut


def equal_spend(runs: DataFrame, axis: str) -> float:
    """The least calls, or flops, that a learned method of the table has spent: the least of the
    medians over runs; NaN where there is none."""
    learned = runs[runs["finished"] & (runs["parameters"].fillna(0).astype(float) > 0)]
    if learned.empty:
        return math.nan
    spends = {
        name: np.median([_spend(run, axis) for _, run in rows.iterrows()])
        for name, rows in learned.groupby("sampler")
    }
    return float(min((s for s in spends.values() if s == s), default=math.nan))


def _rise(
    run: Mapping[str, Any], curve: Mapping[str, Any] | None, at: tuple[str, float] | None
) -> float:
    """How many doublings farther off a run was at a spend than at its end (linear in the logarithm
    of the spend); 0 where it is read at its end, NaN without a curve."""
    if at is None:
        return 0.0
    axis, spend = at
    key = "spend" if axis == "calls" else axis
    if curve is None or not curve.get(key):
        return math.nan
    points = sorted(
        (s, worst)
        for s, worst in zip(curve[key], worst_of_curve(curve), strict=True)
        if not math.isnan(worst)
    )
    if not points or spend != spend:
        return math.nan
    spends, worsts = np.array(points, dtype=float).T
    spends = np.log(np.maximum(spends, 1))
    return float(np.interp(math.log(max(spend, 1)), spends, worsts) - worsts[-1])


def worst_of_curve(curve: Mapping[str, Any]) -> list[float]:
    """Doublings of the worst score at each point of a learning curve, by the rule; NaN without."""
    n = len(curve["spend"])
    columns = [
        _floored(curve, "distance", "floor"),
        _floored(curve, "energy_w2", "floor_energy_w2"),
    ]
    ses = curve.get("log_Z_se") or [None] * n
    columns.append(
        [
            math.nan if error is None else beyond(abs(error), edge_of_log_Z(_number(se)))
            for error, se in zip(curve.get("log_Z_err") or [None] * n, ses, strict=True)
        ]
    )
    return [
        max((value for value in point if not math.isnan(value)), default=math.nan)
        for point in zip(*columns, strict=True)
    ]


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _floored(curve: Mapping[str, Any], key: str, floor: str) -> list[float]:
    values, known = curve.get(key), curve.get(floor)
    if not values or not known or not known["sd"] > 0:
        return [math.nan] * len(curve["spend"])
    half = 2 if key == "distance" and curve.get("metric") in SQUARES else 1
    edge = 2 * known["sd"]
    return [beyond(abs(_number(value) - known["mean"]), edge) / half for value in values]


# beside the base


def behind(judgements: Mapping[str, Judged], untrained: str | None) -> dict[str, str]:
    """By sampler: in what it is not better than the untrained base, one sentence; by the rule, and
    by each distance between the laws of the draws.  A score within its edge cannot be better, and
    has no mark."""
    if untrained is None or untrained not in judgements:
        return {}
    base, sentences = judgements[untrained], {}
    for name, mine in judgements.items():
        if name == untrained:
            continue
        pairs = [("in its worst score", mine.worst, base.worst)]
        for a in mine.scores:
            b = base.by(a.metric)
            if a.group == DISTANCE and b and (a, b) != (mine.worst, base.worst):
                pairs.append(("in distance", a, b))
        parts = [
            f"{what} ({a.metric} {times(a.doublings)} against {b.metric} {times(b.doublings)})"
            for what, a, b in pairs
            if a.doublings > 0 and a.doublings >= b.doublings
        ]
        if parts:
            sentences[name] = " and ".join(parts)
    return sentences


def times(doublings: float) -> str:
    """The ratio to the edge of the noise floor: `≤ 1×`, `8.6×`, `1,200×`, `∞`."""
    if not doublings > 0:
        return "≤ 1×"
    if not math.isfinite(doublings):
        return "∞"
    ratio = 2**doublings
    if ratio < 9.95:
        return f"{ratio:.1f}×" if ratio > 1.095 else f"{ratio:.2f}×"
    return f"{ratio:,.0f}×" if ratio < 1e6 else f"1e{math.log10(ratio):.0f}×"
