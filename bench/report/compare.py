"""What may be said of one column of scores: within the noise floor or not, best or not
significantly different from the best."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tiltbench.metric import Metric

if TYPE_CHECKING:
    from pandas import DataFrame

SEEDS_FOR_BOLD = 5
LEVEL = 0.05


class FloorStatus(Enum):
    """A score against what exact draws score, +- 2 sd."""

    NONE = "no floor"
    AT = "within the noise floor"
    BELOW = "below the floor"  # correlated draws, contracted tails or a biased truth: never best
    ABOVE = "above the floor"
    UNFIT = "unfit"  # the floor is too noisy to compare with
    FEW = "at a wider floor"  # of fewer draws than others in the column have


NO_ERROR = "no error bar"  # how the reasons begin


class ScoreSummary(NamedTuple):
    """One sampler and one metric over seeds: the median, the smallest and the largest."""

    median: float
    low: float
    high: float
    se: float  # median of the runs' own standard errors; NaN where they have none
    floor_mean: float
    floor_sd: float
    status: FloorStatus
    seeds: tuple[int, ...]
    merits: tuple[float, ...]  # by seed; smaller is better
    draws: float = math.nan  # of the floor, by which scores are compared
    few: bool = False  # fewer than others in its column: see `levelled`
    barless: bool = False  # of some seed's number nobody can say how far it is off

    @property
    def floored(self) -> bool:
        return not math.isnan(self.floor_mean)

    @property
    def floor(self) -> tuple[float, float]:
        return self.floor_mean, self.floor_sd

    @property
    def edge(self) -> float:
        """The largest value that is still at the floor."""
        return self.floor_mean + 2 * self.floor_sd


class Floor(NamedTuple):
    """What exact draws score: mean and standard deviation over pairs of sets of n draws."""

    mean: float
    sd: float
    n: float


# The fixed scale of colours: a score at `NEAR` or nearer is 0, at `FAR` or farther 1, and in
# between it goes by the logarithm.
NEAR_SDS, FAR_SDS = 2.0, 200.0  # above the mean of the floor, in its standard deviations
NEAR_NATS, FAR_NATS = 0.1, 10.0  # of errors and gaps of log Z, which have no floor
NEAR_SHARE, FAR_SHARE = 0.5, 0.005  # of effective sample sizes and overlaps, which are 1 at best


def distance(c: ScoreSummary, metric: Metric, floor: Floor | None) -> float | None:
    """Where a score stands between the floor (0) and far from it (1), whatever others score.  None
    for what has no colour: below the floor, beside a floor that is too noisy or has no spread, or
    without a perfect value."""
    if c.status in (FloorStatus.BELOW, FloorStatus.UNFIT) or not metric.perfect:
        return None
    if floor is not None:
        if c.status is FloorStatus.AT:
            return 0.0
        return _between((c.median - floor.mean) / floor.sd, NEAR_SDS, FAR_SDS) if floor.sd else None
    if metric.perfect == "1":
        return 1 - _between(c.median, FAR_SHARE, NEAR_SHARE)
    return _between(abs(c.median), NEAR_NATS, FAR_NATS) if metric.unit == "nats" else None


def scale() -> str:
    """The scale of colours in words."""
    middle = math.sqrt(NEAR_SDS * FAR_SDS), math.sqrt(NEAR_NATS * FAR_NATS)
    return (
        f"a score with a floor is green up to {NEAR_SDS:g} standard deviations above it, pale at "
        f"{middle[0]:g} and red from {FAR_SDS:g} on; an error of log Z is green up to "
        f"{NEAR_NATS:g} nats, pale at {middle[1]:g} and red from {FAR_NATS:g} on."
    )


def _between(value: float, low: float, high: float) -> float:
    """0 up to `low`, 1 from `high` on, linear in the logarithm in between."""
    return math.log(min(max(value, low), high) / low) / math.log(high / low)


def summarise(rows: DataFrame, metric: Metric) -> ScoreSummary | None:
    """The summary of one sampler's rows of one metric; None where no seed has a value."""
    known = rows["value"].notna().to_numpy()
    if not known.any():
        return None

    def column(name: str) -> np.ndarray:
        return rows[name].to_numpy()[known]

    values, ses = column("value").astype(float), column("se").astype(float)
    mean, sd = _median(column("floor_mean")), _median(column("floor_sd"))
    signed = metric.perfect == "0" and math.isnan(mean)
    merits = np.abs(values) if signed else (-values if metric.better == "higher" else values)
    barless = (str(why).startswith(NO_ERROR) for why in column("reason")[np.isnan(ses)])
    middle = float(np.median(values))
    return ScoreSummary(
        middle,
        float(values.min()),
        float(values.max()),
        _median(ses),
        mean,
        sd,
        floor_status(middle, mean, sd, bool(column("unfit").any())),
        tuple(int(seed) for seed in column("seed")),
        tuple(float(m) for m in merits),
        _median(column("floor_n")),
        barless=any(barless),
    )


def _median(values: np.ndarray) -> float:
    """Of those that are numbers; NaN where none is."""
    known = values.astype(float)
    known = known[~np.isnan(known)]
    return float(np.median(known)) if len(known) else math.nan


def levelled(summaries: Mapping[str, ScoreSummary]) -> dict[str, ScoreSummary]:
    """The summaries of one column (a metric, by sampler) on one footing.  A floor of fewer
    draws is wider, so that whoever has them would reach it sooner: such a summary is `few`, and at
    most FEW."""
    most = max((c.draws for c in summaries.values() if not math.isnan(c.draws)), default=math.nan)
    return {
        name: c._replace(
            few=True, status=FloorStatus.FEW if c.status is FloorStatus.AT else c.status
        )
        if c.draws < most
        else c
        for name, c in summaries.items()
    }


def floor_status(value: float, mean: float, sd: float, unfit: bool = False) -> FloorStatus:
    if math.isnan(mean):
        return FloorStatus.NONE
    if unfit:
        return FloorStatus.UNFIT
    if value < mean - 2 * sd:
        return FloorStatus.BELOW
    return FloorStatus.AT if value <= mean + 2 * sd else FloorStatus.ABOVE


def best(summaries: Mapping[str, ScoreSummary]) -> set[str]:
    """The samplers not distinguishable from the best: paired t over common seeds, two-sided, Holm's
    correction over the comparisons, level 5 %.  Empty with fewer than five seeds.

    Scores at the floor are all best; those below it, unfit, or of fewer draws than others have,
    never are."""
    fit = {
        name: c
        for name, c in summaries.items()
        if c.status not in (FloorStatus.BELOW, FloorStatus.UNFIT)
        and not c.few
        and len(c.seeds) >= SEEDS_FOR_BOLD
    }
    if not fit:
        return set()
    at = {name for name, c in fit.items() if c.status is FloorStatus.AT}
    if at:
        return at
    leader = min(fit, key=lambda name: float(np.mean(fit[name].merits)))
    others = {n: paired(fit[n], fit[leader]) for n in fit if n != leader}
    return {leader} | (set(others) - holm(others))


def paired(a: ScoreSummary, b: ScoreSummary) -> float:
    """The p value of equal means over common seeds; 1 where too few are common."""
    from scipy.stats import ttest_rel

    of_a, of_b = (
        dict(zip(a.seeds, a.merits, strict=True)),
        dict(zip(b.seeds, b.merits, strict=True)),
    )
    gaps = np.array([of_a[seed] - of_b[seed] for seed in of_a if seed in of_b])
    if len(gaps) < 2:
        return 1.0
    gaps /= abs(gaps).max() or 1.0  # squares of tiny numbers would vanish
    if gaps.std(ddof=1) == 0:  # no spread to hold the mean against
        return 1.0 if gaps.mean() == 0 else 0.0
    return float(ttest_rel(gaps, np.zeros_like(gaps)).pvalue)


def holm(p: Mapping[str, float], level: float = LEVEL) -> set[str]:
    """The names whose hypotheses are rejected (Holm, Scand. J. Statist. 6, 65, 1979)."""
    return {name for name, value in corrected(p).items() if value <= level}


def corrected(p: Mapping[str, float]) -> dict[str, float]:
    """Holm's adjusted p: of the k-th smallest of m the largest of (m - j + 1) p_j, j <= k."""
    adjusted: dict[str, float] = {}
    most = 0.0
    for tried, name in enumerate(sorted(p, key=lambda n: p[n])):
        most = max(most, min((len(p) - tried) * p[name], 1.0))
        adjusted[name] = most
    return adjusted
