"""What the study of the bias says: one row a loss and setting, and the claims."""

from __future__ import annotations

import math

from tiltbench.studies.bias.regressed import ROUNDING, Bias, Share
from tiltbench.study import Claim, verdict


def row(same: list[Bias], strengths: tuple[float, ...]) -> dict[str, object]:
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


def claims(found: list[Bias], apart: dict[float, list[Bias]]) -> tuple[Claim, ...]:
    def some(loss: str, ends: str) -> list[Bias]:
        return [b for b in found if (b.loss, b.ends) == (loss, ends)]

    csm = some("CSM", "unweighted") + [b for few in apart.values() for b in few if b.loss == "CSM"]
    worst = max((b.z for b in csm), key=abs)
    full = [b for b in found if b.ends == "full"]
    strange = max((b.z for b in full), key=abs)
    straight = [b for b in found if b.world == "Gaussian base, linear r" and b.ends == "unweighted"]
    flat = max(
        float(b.square.abs().max() / b.before.max()) for b in straight if b.loss in ("NSM", "AS")
    )
    gains = [(b, t) for loss in ("CSM", "TSM", "NSM") for b, t in zip(
        some(loss, "unweighted"), some(loss, "tempered"), strict=True)]  # fmt: skip
    better = [_less(t.left, b.left) or b.left.value < ROUNDING for b, t in gains]
    worse = [_less(b.left, t.left) and t.left.value > ROUNDING for b, t in gains]
    halves = min(apart), max(apart)
    near, far = (apart[half][2].left for half in halves)
    lean = [b for b in found if b.loss == "AM"]
    telling = [b.z for b in lean if b.apart > 5]
    every = [b.z for b in found if not math.isnan(b.z)]
    return (
        Claim(
            "Without weights CSM carries no signal: E[CSM | X_t] = u_λ (math.md 3)",
            verdict(abs(worst) < 4.5, abs(worst) > 5.5),
            "The closed form has `left` = 1 by definition; the twins agree: largest z "
            f"{worst:+.2f} of {len(csm)} settings.",
        ),
        *(
            _contracts(name, some(loss, "unweighted"))
            for loss, name in (
                ("TSM", "TSM"),
                ("NSM", "NSM"),
                ("AS", "AS, on a Gaussian base"),
                ("AM", "AM, on any base"),
            )
        ),
        Claim(
            "Adjoint matching on paths of u_λ regresses to u_λ/λ, on any base (derived here)",
            verdict(
                bool(telling) and max(map(abs, telling)) < 4.5,
                any(abs(z) > 5.5 for z in telling),
            ),
            f"twins against the closed form, in the {len(telling)} of {len(lean)} settings whose "
            "twins are precise enough to tell it from u_λ by 5 standard errors: largest |z| "
            f"{max(map(abs, telling), default=math.nan):.2f}, rms {_rms(telling):.2f}.",
        ),
        Claim(
            "With end points weighted to a stated ESS (infinitely many of them) every loss of "
            "score matching contracts further",
            verdict(all(better), any(worse)),
            f"{sum(better)} of {len(better)} settings have less left than without weights; "
            f"CSM at λ = 0: {_range([b.left for b in some('CSM', 'tempered') if not b.strength])}, "
            f"NSM: {_range([b.left for b in some('NSM', 'tempered') if not b.strength])}.",
        ),
        Claim(
            "With end points from p*, what full weights make of infinitely many, CSM, TSM and NSM "
            "are unbiased",
            verdict(abs(strange) < 4.5, abs(strange) > 5.5),
            f"largest z of the twins' bias {strange:+.2f} of {len(full)}.",
        ),
        Claim(
            "For a linear reward on a Gaussian base AS, NSM and AM are unbiased from any control",
            verdict(flat < ROUNDING, flat > 1e-6),
            f"the target does not depend on X_1 nor on λ: the twins' bias is at most {flat:.0e} of "
            "E|u_λ − u*|².",
        ),
        Claim(
            "Misweighted modes that are far apart give adjoint sampling (NSM, AM) little signal",
            verdict(
                far.value - 3 * far.se > 0.5 and near.value + 3 * near.se < 0.5,
                far.value + 3 * far.se < 0.5,
            ),
            f"unweighted, from weights .8/.2 to .5/.5: left {near} with modes at ±{halves[0]:g} "
            f"sd, {far} at ±{halves[1]:g} sd. Within a mode grad r knows nothing of its weight.",
        ),
        Claim(
            "The twins' estimate of the bias agrees with its closed form",
            verdict(max(map(abs, every)) < 4.5, max(map(abs, every)) > 5.5),
            f"largest |z| {max(map(abs, every)):.2f} of {len(every)}, rms {_rms(every):.2f}.",
        ),
    )


def _contracts(name: str, some: list[Bias]) -> Claim:
    below = [b for b in some if b.left.value + 3 * b.left.se < 1]
    above = [b for b in some if b.left.value - 3 * b.left.se > 1]
    late = [b.late for b in some]
    where = "; ".join(dict.fromkeys(f"{b.world}" for b in above))
    words = f"left {_range([b.left for b in some])} over {len(some)} settings and λ"
    return Claim(
        f"{name}, unweighted, contracts towards u* (our question)",
        verdict(len(below) == len(some), bool(above)),
        f"{words}: less than 1 in {len(below)}, more in {len(above)}"
        + (f" ({where}); over t > 1/2 {_range(late)}." if above else "."),
    )


def _less(one: Share, other: Share) -> bool:
    return one.value + 3 * math.hypot(one.se, other.se) < other.value


def _range(shares: list[Share]) -> str:
    ranked = sorted(shares, key=lambda s: s.value)
    return f"{ranked[0]} to {ranked[-1]}"


def _rms(values: list[float]) -> float:
    return math.sqrt(sum(z * z for z in values) / len(values)) if values else math.nan
