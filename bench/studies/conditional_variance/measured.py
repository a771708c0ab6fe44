"""The numbers behind the claims on conditional variances, read off the rows that were measured.

`data` holds a row a (target, schedule, law, loss, t): variance, its se, and the closed form `exact`
or nan."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from pandas import DataFrame, Series

STEADY = ("CSM", "TSM", "NSM")  # AM on a mixture base has too heavy a tail to average over
EARLY = 0.5  # times up to which the adjoint has room to grow


def optimum(data: DataFrame) -> DataFrame:
    """The rows under P*."""
    return data[data.law == "P*"]


def wide(data: DataFrame, what: str) -> DataFrame:
    """A row a (target, schedule, [law,] t), a column a loss."""
    index = ["target", "schedule", "t"] + (["law"] if data.law.nunique() > 1 else [])
    return data.pivot(index=index, columns="loss", values=what)


class ClosedForms(NamedTuple):
    values: int
    schedules: int
    z: float  # the largest, in standard errors
    rms: float
    worst: Any  # its row


def closed_forms(data: DataFrame) -> ClosedForms:
    known = data[data.exact.notna()]
    z = ((known.variance - known.exact) / known.se).abs()
    rms = math.sqrt((z**2).mean())
    worst = known.loc[z.idxmax()]
    return ClosedForms(len(known), known.schedule.nunique(), float(z.max()), rms, worst)


class Likeness(NamedTuple):
    gap: float  # of AM and AS to NSM, as a share of it, the largest
    places: int


def likeness(data: DataFrame) -> Likeness:
    """On Gaussian bases, where AS is defined."""
    beside = wide(data, "variance").dropna(subset=["AS"])
    gap = np.abs(beside[["AM", "AS"]].div(beside["NSM"], axis=0) - 1).to_numpy().max()
    return Likeness(gap, len(beside))


class Extremes(NamedTuple):
    """TSM at the first time and CSM at the last beside every other loss."""

    first: float
    last: float
    pairs: int  # of target and schedule
    least: float  # the smallest ratio
    z: list[Series]  # differences in standard errors, one series a comparison


def at_the_ends(data: DataFrame) -> Extremes:
    star = optimum(data)
    value, se = wide(star, "variance"), wide(star, "se")
    least, z = math.inf, []
    for t, loss in ((star.t.min(), "TSM"), (star.t.max(), "CSM")):
        mine, bars = (w.xs(t, level="t") for w in (value, se))
        for other in [o for o in mine.columns if o != loss]:
            gap = (mine[loss] - mine[other]).dropna()
            z.append(gap / np.hypot(bars[loss], bars[other]).loc[gap.index])
            least = min(least, float((mine[loss] / mine[other]).min()))
    return Extremes(star.t.min(), star.t.max(), value.groupby(level=[0, 1]).ngroups, least, z)


class Between(NamedTuple):
    """NSM over the smaller of CSM and TSM, point by point."""

    ratio: Series
    bar: Series
    better: Series  # which of the two is the smaller
    first: float  # the earliest time
    schedule: str
    near_zero: dict[str, float]  # NSM / CSM there, by target

    @property
    def worst(self) -> Any:
        """(target, schedule, t)."""
        return self.ratio.idxmax()


def between_both(data: DataFrame, targets: list[str]) -> Between:
    star = optimum(data)
    value, se = wide(star, "variance"), wide(star, "se")
    relative = se / value
    ratio = value.NSM / value[["CSM", "TSM"]].min(axis=1)
    bar = ratio * np.hypot(relative.NSM, relative[["CSM", "TSM"]].max(axis=1))
    first, schedule = value.xs(star.t.min(), level="t"), star.schedule.iloc[0]
    near_zero = {name: first.NSM[name, schedule] / first.CSM[name, schedule] for name in targets}
    better = value[["CSM", "TSM"]].idxmin(axis=1)
    return Between(ratio, bar, better, star.t.min(), schedule, near_zero)


class Pair(NamedTuple):
    value: float
    se: float

    def __str__(self) -> str:
        return f"{self.value:.3g} ± {self.se:.1g}"


class Mixture(NamedTuple):
    """AM on a mixture base."""

    z: Series  # AM less the larger of CSM and NSM, in standard errors
    place: tuple[str, str, float]  # target, schedule and time of an example
    example: dict[str, Pair]  # the variance of every loss there
    last: float  # the latest time
    late: float  # AM over the least of the others there, at most
    refined: Pair  # AM on the fine grid over AM on the coarse one

    @property
    def early(self) -> Series:
        return self.z[self.z.index.get_level_values("t") <= EARLY]


def on_a_mixture(data: DataFrame, coarse: int) -> Mixture:
    star = optimum(data[data.target.str.startswith("tilt")])
    value, se = wide(star, "variance"), wide(star, "se")
    rivals = value[["CSM", "NSM"]].max(axis=1)
    bars = np.hypot(se.AM, se[["CSM", "NSM"]].max(axis=1))
    last = star.iloc[-1]
    here = star[(star.target == last.target) & (star.schedule == star.schedule.iloc[0])]
    at = (last.target, star.schedule.iloc[0], here.t[(here.t - 0.2).abs().idxmin()])
    late = value.xs(star.t.max(), level="t")
    return Mixture(
        (value.AM - rivals) / bars,
        at,
        {loss: Pair(value[loss][at], se[loss][at]) for loss in ("AM", *STEADY)},
        star.t.max(),
        (late.AM / late[list(STEADY)].min(axis=1)).max(),
        _refined(data, coarse),
    )


def _refined(data: DataFrame, coarse: int) -> Pair:
    """The variance of AM under P* on two grids, the errors of one schedule taken as shared."""
    rows = data[(data.target == "tilt_linear") & (data.loss == "AM") & (data.t <= EARLY)]
    key = ["schedule", "t"]
    few, many = (rows[rows.law == law].set_index(key) for law in (f"P*, {coarse} steps", "P*"))
    ratio = (many.variance / few.variance).dropna()
    bars = np.hypot(few.se / few.variance, many.se / many.variance).loc[ratio.index]
    each = bars.groupby(level=0).mean()
    factor, bar = np.exp(np.log(ratio).mean()), math.sqrt((each**2).sum()) / len(each)
    return Pair(factor, factor * bar)


def distances(data: DataFrame, coarse: int) -> DataFrame:
    """(target, schedule) x stages: exp of the mean |log(variance / that under P*)| of the steady
    losses on the same grid, and its error taken as if all its terms erred together."""
    import pandas

    rows = data[data.loss.isin(STEADY)]
    key = ["target", "schedule", "loss", "t"]
    star = rows[rows.law == f"P*, {coarse} steps"].set_index(key)
    frames = []
    for law in [law for law in rows.law.unique() if not law.startswith("P*")]:
        here = rows[rows.law == law].set_index(key)
        log = np.log(here.variance / star.variance).abs().groupby(level=[0, 1], sort=False).mean()
        error = np.hypot(here.se / here.variance, star.se / star.variance)
        bar = error.groupby(level=[0, 1], sort=False).mean()
        factor = np.exp(log)
        frames.append(pandas.DataFrame({"law": law, "factor": factor, "se": factor * bar}))
    return pandas.concat(frames).reset_index().pivot(index=key[:2], columns="law")


class Approach(NamedTuple):
    """Factors from P* by stage, a row a (target, schedule)."""

    factor: DataFrame
    se: DataFrame
    z: Series  # untrained less trained, in standard errors


def approached(data: DataFrame, coarse: int) -> Approach:
    distance = distances(data, coarse)
    factor, se = distance["factor"], distance["se"]
    z = (factor["init"] - factor["trained"]) / np.hypot(se["init"], se["trained"])
    return Approach(factor, se, z)


class TrainedPaths(NamedTuple):
    """The trained control's own paths beside those of P*."""

    factor: Series  # in the mean, by (target, schedule)
    se: Series
    off: Series  # by (target, schedule, loss, t)


def along_trained_paths(data: DataFrame, coarse: int) -> TrainedPaths:
    distance = distances(data, coarse)
    key = ["target", "schedule", "loss", "t"]
    steady = data[data.loss.isin(STEADY)]
    here = steady[steady.law == "trained"].set_index(key).variance
    off = here / steady[steady.law == f"P*, {coarse} steps"].set_index(key).variance
    return TrainedPaths(distance["factor"]["trained"], distance["se"]["trained"], off)
