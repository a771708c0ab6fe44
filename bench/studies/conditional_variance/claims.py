"""What math.md 7 says of conditional variances, judged from the rows that were measured.

`data` holds a row a (target, schedule, law, loss, t): variance, its se, and the closed form `exact`
or nan."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tiltbench.study import Claim, verdict

if TYPE_CHECKING:
    from pandas import DataFrame

FACTOR = 2.0  # NSM against the better of CSM and TSM
CLOSE = 1.25  # factor within which two variances count as the same
STEADY = ("CSM", "TSM", "NSM")  # AM on a mixture base has too heavy a tail to average over


def closed(data: DataFrame) -> Claim:
    known = data[data.exact.notna()]
    z = ((known.variance - known.exact) / known.se).abs()
    worst = known.loc[z.idxmax()]
    return Claim(
        "For a Gaussian target on a Gaussian base the variances are 2η(α/β²)²V (CSM), "
        "2η V/(ατ²)² (TSM) and 2η c²(1/s² − 1/τ²)²V (NSM, AM, AS), V = 1/(1/τ² + α²/β²); at u = 0 "
        "the same with the base's s² for the law's τ² in V.",
        verdict(float(z.max()) < 4, float(z.max()) > 5),
        f"{len(known)} values over {known.schedule.nunique()} schedules, P* and the untrained "
        f"control: the worst is {z.max():.1f} standard errors off ({_where(worst)}, "
        f"{worst.loss}), root mean square {math.sqrt((z**2).mean()):.2f}.",
    )


def same(data: DataFrame) -> Claim:
    wide = _wide(data, "variance").dropna(subset=["AS"])  # Gaussian bases
    gap = np.abs(wide[["AM", "AS"]].div(wide["NSM"], axis=0) - 1).to_numpy().max()
    return Claim(
        "On a Gaussian base NSM, AM and AS regress onto the same function of X_1.",
        verdict(gap < 1e-3, gap > 1e-2),
        f"On the same paths their variances differ by {gap:.1e} of themselves at most, over "
        f"{len(wide)} laws and times (the adjoint is pulled back along the chain, in float32 "
        "under a control).",
    )


def ends(data: DataFrame) -> Claim:
    star = _star(data)
    value, se = _wide(star, "variance"), _wide(star, "se")
    holds, fails, least = True, False, math.inf
    for t, loss in ((star.t.min(), "TSM"), (star.t.max(), "CSM")):
        mine, bars = (w.xs(t, level="t") for w in (value, se))
        for other in [o for o in mine.columns if o != loss]:
            gap = (mine[loss] - mine[other]).dropna()
            z = gap / np.hypot(bars[loss], bars[other]).loc[gap.index]
            holds, fails = holds and bool((z > 3).all()), fails or bool((z < -3).any())
            least = min(least, float((mine[loss] / mine[other]).min()))
    return Claim(
        "CSM is the worst target near t = 1 and TSM near t = 0.",
        verdict(holds, fails),
        f"On {value.groupby(level=[0, 1]).ngroups} pairs of target and schedule, TSM at "
        f"t = {star.t.min():g} and CSM at t = {star.t.max():g} are at least {least:.2g} times "
        "any other.",
    )


def between(data: DataFrame, narrow: dict[str, float]) -> Claim:
    star = _star(data)
    value, se = _wide(star, "variance"), _wide(star, "se")
    relative = se / value
    ratio = value.NSM / value[["CSM", "TSM"]].min(axis=1)
    better = value[["CSM", "TSM"]].idxmin(axis=1)
    bar = ratio * np.hypot(relative.NSM, relative[["CSM", "TSM"]].max(axis=1))
    worst = ratio.idxmax()
    first = value.xs(star.t.min(), level="t")
    schedule = star.schedule.iloc[0]
    seen = ", ".join(
        f"{first.NSM[name, schedule] / first.CSM[name, schedule]:.3g} ({limit:.3g}) on {name}"
        for name, limit in narrow.items()
    )
    over = float((ratio > FACTOR).mean())
    return Claim(
        f"NSM takes the better of both: at most {FACTOR:g} times the smaller of CSM and TSM at "
        "any time.",
        verdict(bool((ratio + 3 * bar < FACTOR).all()), bool((ratio - 3 * bar > FACTOR).any())),
        f"Up to {ratio[worst]:.3g} ± {bar[worst]:.1g} times ({better[worst]}; {worst[0]}, "
        f"{worst[1]}, t = {worst[2]:g}), and more than {FACTOR:g} times at {over:.0%} of the "
        "points. As t → 0 NSM/CSM tends to Var(X_1 + s²∇log p*)/Var X_1, which is large for a "
        f"narrow p*: at t = {star.t.min():g}, {schedule}, {seen} (the limit in brackets). NSM is "
        "finite at both ends; it is not uniformly the least.",
    )


def mixture(data: DataFrame, coarse: int, fine: int) -> Claim:
    star = _star(data[data.target.str.startswith("tilt")])
    value, se = _wide(star, "variance"), _wide(star, "se")
    rivals = value[["CSM", "NSM"]].max(axis=1)
    bars = np.hypot(se.AM, se[["CSM", "NSM"]].max(axis=1))
    z = (value.AM - rivals) / bars
    early = z[z.index.get_level_values("t") <= 0.5]
    late = value.xs(star.t.max(), level="t")
    last = star.iloc[-1]
    here = star[(star.target == last.target) & (star.schedule == star.schedule.iloc[0])]
    at = (last.target, star.schedule.iloc[0], here.t[(here.t - 0.2).abs().idxmin()])
    text = ", ".join(f"{loss} {_pm(value[loss][at], se[loss][at])}" for loss in ("AM", *STEADY))
    return Claim(
        "On a mixture base, which is not log-concave, AM can exceed both NSM and CSM.",
        verdict(float(z.max()) > 4, float(z.max()) < -4),
        f"AM is the larger by more than 3 standard errors at {int((early > 3).sum())} of "
        f"{len(early)} points with t ≤ 0.5, by {z.max():.1f} at most. On {at[0]}, {at[1]}, "
        f"t = {at[2]:g}: {text}. Few paths carry it, those whose adjoint grows, so its error bars "
        f"are wide, and coarse steps hide it: {_steps(data, coarse, fine)}. Near t = 1 AM is the "
        f"least, at t = {star.t.max():g} at most "
        f"{(late.AM / late[list(STEADY)].min(axis=1)).max():.2g} of any other.",
    )


def _steps(data: DataFrame, coarse: int, fine: int) -> str:
    """The variance of AM under P* on two grids, the errors of one schedule taken as shared."""
    rows = data[(data.target == "tilt_linear") & (data.loss == "AM") & (data.t <= 0.5)]
    key = ["schedule", "t"]
    few, many = (rows[rows.law == law].set_index(key) for law in (f"P*, {coarse} steps", "P*"))
    ratio = (many.variance / few.variance).dropna()
    bars = np.hypot(few.se / few.variance, many.se / many.variance).loc[ratio.index]
    each = bars.groupby(level=0).mean()
    factor, bar = np.exp(np.log(ratio).mean()), math.sqrt((each**2).sum()) / len(each)
    return (
        f"with {fine} steps it is {_pm(factor, factor * bar)} times what it is with {coarse}, in "
        "the geometric mean over t ≤ 0.5 on tilt_linear"
    )


def distances(data: DataFrame, coarse: int) -> DataFrame:
    """(target, schedule) x stages: exp of the mean |log(variance / that under P*)| of the steady
    losses on the same grid, and its error taken as if all its terms erred together."""
    from pandas import DataFrame

    rows = data[data.loss.isin(STEADY)]
    key = ["target", "schedule", "loss", "t"]
    star = rows[rows.law == f"P*, {coarse} steps"].set_index(key)
    made = []
    for law in [law for law in rows.law.unique() if not law.startswith("P*")]:
        here = rows[rows.law == law].set_index(key)
        log = np.log(here.variance / star.variance).abs().groupby(level=[0, 1], sort=False).mean()
        error = np.hypot(here.se / here.variance, star.se / star.variance)
        bar = error.groupby(level=[0, 1], sort=False).mean()
        made.append(DataFrame({"law": law, "factor": np.exp(log), "se": np.exp(log) * bar}))
    import pandas

    return pandas.concat(made).reset_index().pivot(index=key[:2], columns="law")


def approach(data: DataFrame, coarse: int) -> Claim:
    found = distances(data, coarse)
    factor, se = found["factor"], found["se"]
    z = (factor["init"] - factor["trained"]) / np.hypot(se["init"], se["trained"])
    return Claim(
        "As the control learns, the variances along its own paths approach those under P*.",
        verdict(bool((z > 3).all()), bool((z < -3).any())),
        "Mean factor from P* (CSM, TSM, NSM, all times), untrained → mid → trained: "
        + "; ".join(
            f"{target}, {schedule} "
            + " → ".join(f"{row[law]:.3g}" for law in ("init", "mid"))
            + f" → {_pm(row['trained'], se['trained'][target, schedule])}"
            for (target, schedule), row in factor.iterrows()
        )
        + f". Nearer by more than 3 standard errors: {int((z > 3).sum())} of {len(z)}.",
    )


def own_paths(data: DataFrame, coarse: int, reached: dict[Any, Any]) -> Claim:
    found = distances(data, coarse)
    factor, se = found["factor"]["trained"], found["se"]["trained"]
    far = factor - 3 * se > CLOSE
    key = ["target", "schedule", "loss", "t"]
    steady = data[data.loss.isin(STEADY)]
    here = steady[steady.law == "trained"].set_index(key).variance
    off = here / steady[steady.law == f"P*, {coarse} steps"].set_index(key).variance
    near = [name for name, part in far.groupby(level=0) if not part.any()]

    def at(place: Any) -> str:
        target, schedule, loss, t = place
        wrong = reached[target, schedule, "trained"].misplaced
        return f"{loss} on {target}, {schedule}, t = {t:g}, {wrong:.0%} of the mass in wrong modes"

    return Claim(
        "The variance along the trained control's own paths stands for that under P*.",
        verdict(bool((factor + 3 * se < CLOSE).all()), bool(far.any())),
        f"Within a factor {CLOSE} of P* in the mean, on every schedule: "
        f"{', '.join(near) or 'no target'}; not so {int(far.sum())} of {len(far)} pairs of target "
        f"and schedule. The ratio runs from {off.min():.2g} ({at(off.idxmin())}) to "
        f"{off.max():.2g} ({at(off.idxmax())}). CSM, the spread of X_1 given X_t, shrinks with the "
        "modes that are lost; TSM and NSM, the spread of ∇log p*, are large while end points lie "
        "outside p*'s wells.",
    )


def _star(data: DataFrame) -> DataFrame:
    return data[data.law == "P*"]


def _wide(data: DataFrame, what: str) -> DataFrame:
    """A row a (target, schedule, [law,] t), a column a loss."""
    index = ["target", "schedule", "t"] + (["law"] if data.law.nunique() > 1 else [])
    return data.pivot(index=index, columns="loss", values=what)


def _where(row: Any) -> str:
    return f"{row.target}, {row.schedule}, {row.law}, t = {row.t:g}"


def _pm(value: float, se: float) -> str:
    return f"{value:.3g} ± {se:.1g}"
