"""What the study of the bias says: one row a loss and setting, and the claims.

Numbers come from `measured`; here are the rules that judge them, and the sentences."""

from __future__ import annotations

import math

from tiltbench.studies.bias.measured import (
    SURE,
    TELLING,
    Contraction,
    Lean,
    Lopsided,
    Weighted,
    contraction,
    flatness,
    lean,
    lopsided,
    some,
    twins_of,
    weighted,
)
from tiltbench.studies.bias.regressed import ROUNDING, Bias, Share
from tiltbench.studies.common.rules import Same, Scores
from tiltbench.study import Claim, verdict

TWINS = Same(agrees=4.5, apart=5.5)  # standard errors, of the largest of many
VISIBLE = 1e-6  # of E|u_lambda - u*|^2: a bias that rounding does not explain
LITTLE = 0.5  # of the error: a regression that leaves more has little signal


def table_row(same: list[Bias], strengths: tuple[float, ...]) -> dict[str, object]:
    """One loss in one setting, at every lambda."""
    first = same[0]
    gaussian = "bimodal" not in first.world
    left = {b.strength: str(b.left) for b in same}
    shown = {f"left, λ = {v:g}": left.get(v, "–") for v in strengths}
    if math.isnan(first.strength):
        shown[f"left, λ = {strengths[0]:g}"] = str(first.left)
    zs = [b.z for b in same if not math.isnan(b.z)]
    return {
        "setting": first.world,
        "schedule": first.schedule,
        "loss": "NSM = AS = AM" if gaussian and first.loss == "NSM" else first.loss,
        "end points": first.ends,
        **shown,
        "left over t > 1/2": str(first.late),
        "largest z of twins": max(zs, key=abs) if zs else math.nan,
    }


def claims(biases: list[Bias], apart: dict[float, list[Bias]]) -> tuple[Claim, ...]:
    lone = [b for few in apart.values() for b in few if b.loss == "CSM"]
    return (
        _no_signal(twins_of([*some(biases, "CSM", "unweighted"), *lone])),
        *(
            _contracts(name, contraction(some(biases, loss, "unweighted")))
            for loss, name in (
                ("TSM", "TSM"),
                ("NSM", "NSM"),
                ("AS", "AS, on a Gaussian base"),
                ("AM", "AM, on any base"),
            )
        ),
        _scaled_control(lean(biases)),
        _further(weighted(biases)),
        _unbiased(twins_of([b for b in biases if b.ends == "full"])),
        _straight(flatness(biases)),
        _misweighted(lopsided(apart)),
        _agree(twins_of(biases)),
    )


def _no_signal(csm: Scores) -> Claim:
    return Claim(
        "Without weights CSM carries no signal: E[CSM | X_t] = u_λ (math.md 3)",
        TWINS.judge(csm.worst),
        "The closed form has `left` = 1 by definition; the twins agree: largest z "
        f"{csm.worst:+.2f} of {len(csm)} settings.",
    )


def _contracts(name: str, shares: Contraction) -> Claim:
    words = f"left {_range(shares.left)} over {len(shares.left)} settings and λ"
    late = f" ({'; '.join(shares.where)}); over t > 1/2 {_range(shares.late)}."
    return Claim(
        f"{name}, unweighted, contracts towards u*",
        verdict(len(shares.below) == len(shares.left), bool(shares.above)),
        f"{words}: less than 1 in {len(shares.below)}, more in {len(shares.above)}"
        + (late if shares.above else "."),
    )


def _scaled_control(twins: Lean) -> Claim:
    return Claim(
        "Adjoint matching on paths of u_λ regresses to u_λ/λ, on any base (derived here)",
        TWINS.judge(twins.telling.worst),
        f"twins against the closed form, in the {len(twins.telling)} of {twins.settings} settings "
        f"whose twins are precise enough to tell it from u_λ by {TELLING:g} standard errors: "
        f"largest |z| {abs(twins.telling.worst):.2f}, rms {twins.telling.rms:.2f}.",
    )


def _further(comparison: Weighted) -> Claim:
    return Claim(
        "With end points weighted to a stated ESS (infinitely many of them) every loss of "
        "score matching contracts further",
        verdict(all(comparison.better), any(comparison.worse)),
        f"{sum(comparison.better)} of {len(comparison.better)} settings have less left than "
        f"without weights; CSM at λ = 0: {_range(comparison.csm)}, NSM: {_range(comparison.nsm)}.",
    )


def _unbiased(full: Scores) -> Claim:
    return Claim(
        "With end points from p*, what full weights make of infinitely many, CSM, TSM and NSM "
        "are unbiased",
        TWINS.judge(full.worst),
        f"largest z of the twins' bias {full.worst:+.2f} of {len(full)}.",
    )


def _straight(flat: float) -> Claim:
    return Claim(
        "For a linear reward on a Gaussian base AS, NSM and AM are unbiased from any control",
        verdict(flat < ROUNDING, flat > VISIBLE),
        f"the target does not depend on X_1 nor on λ: the twins' bias is at most {flat:.0e} of "
        "E|u_λ − u*|².",
    )


def _misweighted(modes: Lopsided) -> Claim:
    near, far = modes.near, modes.far
    return Claim(
        "Misweighted modes that are far apart give adjoint sampling (NSM, AM) little signal",
        verdict(
            far.value - SURE * far.se > LITTLE and near.value + SURE * near.se < LITTLE,
            far.value + SURE * far.se < LITTLE,
        ),
        f"unweighted, from weights .8/.2 to .5/.5: left {near} with modes at "
        f"±{modes.halves[0]:g} sd, {far} at ±{modes.halves[1]:g} sd. Within a mode grad r knows "
        "nothing of its weight.",
    )


def _agree(every: Scores) -> Claim:
    return Claim(
        "The twins' estimate of the bias agrees with its closed form",
        TWINS.judge(every.worst),
        f"largest |z| {abs(every.worst):.2f} of {len(every)}, rms {every.rms:.2f}.",
    )


def _range(shares: list[Share] | tuple[Share, Share]) -> str:
    ranked = sorted(shares, key=lambda s: s.value)
    return f"{ranked[0]} to {ranked[-1]}"
