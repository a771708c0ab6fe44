"""What math.md 7 says of conditional variances: the rules that judge it, and the sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tiltbench.studies.common.rules import Same
from tiltbench.studies.conditional_variance.measured import (
    EARLY,
    STEADY,
    Pair,
    along_trained_paths,
    approached,
    at_the_ends,
    between_both,
    closed_forms,
    likeness,
    on_a_mixture,
)
from tiltbench.study import Claim, verdict

if TYPE_CHECKING:
    from pandas import DataFrame

FACTOR = 2.0  # NSM against the better of CSM and TSM
CLOSE = 1.25  # factor within which two variances count as the same
SURE = 3.0  # standard errors: a difference
EXACT = Same(agrees=4.0, apart=5.0)  # standard errors, of the worst of many
HEAVY = 4.0  # standard errors, where error bars are wide themselves
ALIKE, UNLIKE = 1e-3, 1e-2  # of a variance: one function, and another


def closed(data: DataFrame) -> Claim:
    forms = closed_forms(data)
    return Claim(
        "For a Gaussian target on a Gaussian base the variances are 2η(α/β²)²V (CSM), "
        "2η V/(ατ²)² (TSM) and 2η c²(1/s² − 1/τ²)²V (NSM, AM, AS), V = 1/(1/τ² + α²/β²); at u = 0 "
        "the same with the base's s² for the law's τ² in V.",
        EXACT.judge(forms.z),
        f"{forms.values} values over {forms.schedules} schedules, P* and the untrained "
        f"control: the worst is {forms.z:.1f} standard errors off ({_where(forms.worst)}, "
        f"{forms.worst.loss}), root mean square {forms.rms:.2f}.",
    )


def same(data: DataFrame) -> Claim:
    agreement = likeness(data)
    return Claim(
        "On a Gaussian base NSM, AM and AS regress onto the same function of X_1.",
        verdict(agreement.gap < ALIKE, agreement.gap > UNLIKE),
        f"On the same paths their variances differ by {agreement.gap:.1e} of themselves at most, "
        f"over {agreement.places} laws and times (the adjoint is pulled back along the chain, in "
        "float32 under a control).",
    )


def ends(data: DataFrame) -> Claim:
    extremes = at_the_ends(data)
    return Claim(
        "CSM is the worst target near t = 1 and TSM near t = 0.",
        verdict(
            all(bool((z > SURE).all()) for z in extremes.z),
            any(bool((z < -SURE).any()) for z in extremes.z),
        ),
        f"On {extremes.pairs} pairs of target and schedule, TSM at "
        f"t = {extremes.first:g} and CSM at t = {extremes.last:g} are at least "
        f"{extremes.least:.2g} times any other.",
    )


def between(data: DataFrame, narrow: dict[str, float]) -> Claim:
    """`narrow`: the limit of NSM / CSM as t -> 0, by target."""
    ratios = between_both(data, list(narrow))
    ratio, bar, worst = ratios.ratio, ratios.bar, ratios.worst
    seen = ", ".join(
        f"{ratios.near_zero[name]:.3g} ({limit:.3g}) on {name}" for name, limit in narrow.items()
    )
    over = float((ratio > FACTOR).mean())
    return Claim(
        f"NSM takes the better of both: at most {FACTOR:g} times the smaller of CSM and TSM at "
        "any time.",
        verdict(
            bool((ratio + SURE * bar < FACTOR).all()), bool((ratio - SURE * bar > FACTOR).any())
        ),
        f"Up to {ratio[worst]:.3g} ± {bar[worst]:.1g} times ({ratios.better[worst]}; {worst[0]}, "
        f"{worst[1]}, t = {worst[2]:g}), and more than {FACTOR:g} times at {over:.0%} of the "
        "points. As t → 0 NSM/CSM tends to Var(X_1 + s²∇log p*)/Var X_1, which is large for a "
        f"narrow p*: at t = {ratios.first:g}, {ratios.schedule}, {seen} (the limit in brackets). "
        "NSM is finite at both ends; it is not uniformly the least.",
    )


def mixture(data: DataFrame, coarse: int, fine: int) -> Claim:
    base = on_a_mixture(data, coarse)
    most, early = float(base.z.max()), base.early
    example = ", ".join(f"{loss} {pair}" for loss, pair in base.example.items())
    target, schedule, t = base.place
    return Claim(
        "On a mixture base, which is not log-concave, AM can exceed both NSM and CSM.",
        verdict(most > HEAVY, most < -HEAVY),
        f"AM is the larger by more than {SURE:g} standard errors at {int((early > SURE).sum())} of "
        f"{len(early)} points with t ≤ {EARLY:g}, by {most:.1f} at most. On {target}, {schedule}, "
        f"t = {t:g}: {example}. Few paths carry it, those whose adjoint grows, so its error bars "
        f"are wide, and coarse steps hide it: with {fine} steps it is {base.refined} times what "
        f"it is with {coarse}, in the geometric mean over t ≤ {EARLY:g} on tilt_linear. Near t = 1 "
        f"AM is the least, at t = {base.last:g} at most {base.late:.2g} of any other.",
    )


def approach(data: DataFrame, coarse: int) -> Claim:
    distances = approached(data, coarse)
    factor, se, z = distances
    return Claim(
        "As the control learns, the variances along its own paths approach those under P*.",
        verdict(bool((z > SURE).all()), bool((z < -SURE).any())),
        f"Mean factor from P* ({', '.join(STEADY)}, all times), untrained → mid → trained: "
        + "; ".join(
            f"{target}, {schedule} "
            + " → ".join(f"{row[law]:.3g}" for law in ("init", "mid"))
            + f" → {Pair(row['trained'], se['trained'][target, schedule])}"
            for (target, schedule), row in factor.iterrows()
        )
        + f". Nearer by more than {SURE:g} standard errors: {int((z > SURE).sum())} of {len(z)}.",
    )


def trained_paths(data: DataFrame, coarse: int, reached: dict[Any, Any]) -> Claim:
    """`reached`: what a control had reached, by (target, schedule, stage)."""
    distances = along_trained_paths(data, coarse)
    factor, se, off = distances
    far = factor - SURE * se > CLOSE
    near = [name for name, part in far.groupby(level=0) if not part.any()]

    def at(place: Any) -> str:
        target, schedule, loss, t = place
        wrong = reached[target, schedule, "trained"].misplaced
        return f"{loss} on {target}, {schedule}, t = {t:g}, {wrong:.0%} of the mass in wrong modes"

    return Claim(
        "The variance along the trained control's own paths stands for that under P*.",
        verdict(bool((factor + SURE * se < CLOSE).all()), bool(far.any())),
        f"Within a factor {CLOSE} of P* in the mean, on every schedule: "
        f"{', '.join(near) or 'no target'}; not so {int(far.sum())} of {len(far)} pairs of target "
        f"and schedule. The ratio runs from {off.min():.2g} ({at(off.idxmin())}) to "
        f"{off.max():.2g} ({at(off.idxmax())}). CSM, the spread of X_1 given X_t, shrinks with the "
        "modes that are lost; TSM and NSM, the spread of ∇log p*, are large while end points lie "
        "outside p*'s wells.",
    )


def _where(row: Any) -> str:
    return f"{row.target}, {row.schedule}, {row.law}, t = {row.t:g}"
