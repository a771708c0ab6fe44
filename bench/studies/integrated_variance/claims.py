"""The claims of math.md 7 on integrated variances: the rules that judge them, the sentences."""

from __future__ import annotations

from pandas import DataFrame

from tiltbench.report.tables.grid import frame_grid
from tiltbench.studies.common.rules import Same
from tiltbench.studies.integrated_variance.integrated import Integrals, slope, value
from tiltbench.studies.integrated_variance.measured import (
    EXPONENT,
    HALF,
    MARK,
    Agreement,
    Checked,
    against_exact,
    asked,
    beyond,
    by_noise_and_signal,
    by_signal,
    example,
    excess,
    grown,
    logarithm,
    power,
    saturated,
    schedules,
    settled,
    used,
)
from tiltbench.study import Claim, verdict

EQUAL = Same(agrees=4.0, apart=6.0)  # standard errors, of the worst of many
CLEAR = 2.0  # standard errors below a bound
SMALL = 0.02  # share of an integral that may lie beyond the smallest asked cut-off
IDENTICAL, WRONG = 1e-8, 1e-6  # differences that quadrature leaves, and that it does not
TWICE = 2.0  # of another loss: a great excess
STATED = {"AM": 6.9, "CSM": 0.9, "NSM": 1.8}  # math.md 7's example
NEAR = 0.1  # of a stated figure


def explanation(integrals: list[Integrals], pulls: list[Checked]) -> str:
    cuts, fitted = integrals[0].cuts, integrals[0].fitted
    table = DataFrame(
        [
            {
                "process": c.pull.name,
                "s² (1 − α₀² s² / D₀)": f"{c.pull.expected:.8f}",
                "quadrature − expected": f"{c.quadrature - c.pull.expected:.1e}",
                "Monte Carlo": str(c.sampled),
                "z": c.sampled.z(c.pull.expected),
            }
            for c in pulls
        ]
    )
    known = [z for f in integrals if f.dim == 1 for z in against_exact(f)]
    slow = next(f for f in integrals if f.schedule.name == "VariancePreserving")
    local = slope(slow.upper[:, -fitted - 2 : -fitted], cuts[-fitted - 2 : -fitted])
    lean = [_path_mean(f) for f in integrals if f.profile]
    return "\n\n".join(
        [
            "∫ E tr Cov(T|X) dt from δ to 1 − δ under P*, control units, mean ± standard error of "
            "independent replicates. CSM, TSM, NSM and AS come from pairs (X_1 exact, X_t "
            "re-noised), with Gauss–Legendre nodes in log-odds; AM from whole paths, drawn "
            "backward by the base's own kernels, with the adjoint pulled back step by step: exact "
            "on a Gaussian base, O(1/K) elsewhere. In the figure bars are two standard errors, "
            "lines closed forms (on a mixture base, of AM only) and dots the bound "
            f"s² E|∇r|². For the 1-D Gaussian the worst of {len(known)} integrals is "
            f"{max(known):.1f} standard errors from its closed form.",
            "With ρ = β²/α², σ² dt = −α² dρ: **every integral depends on the schedule only through "
            "the values of ρ at the cut-offs.** NSM, AM and AS therefore integrate to the same "
            "number on every memoryless schedule, CSM grows as d log 1/ρ(1 − δ) and TSM as "
            "I ρ(δ), I = E|∇ log p*|². Fits use one-sided integrals (from, or up to, t = 1/2: what "
            "the other end adds is finite but bends the curve) at the cut-offs "
            f"{', '.join(f'{c:g}' for c in cuts[-fitted:])}, where the leading terms hold to "
            "better than 1 %. For the variance-preserving schedule they do not hold before: its γ "
            f"falls to .1 at t = 1, so that β is nearly linear in 1 − t until 1 − t ≈ .01. From "
            f"δ = {cuts[-fitted - 2]:g} to {cuts[-fitted - 1]:g} CSM's slope on the Gaussian is "
            f"{local.mean:.3f} ± {local.se:.3f} instead of {2 * HALF[slow.schedule.name]:g}.",
            "On a mixture base the mean of |a|² is carried by the few paths that stay between the "
            "modes, along which a grows exponentially; a finite K damps that growth, so that a "
            "chain's AM has less variance than that of continuous time. Both are known without "
            "noise by propagating p* E[a aᵀ|X] backward on a plane (solid line: the chain that "
            "was simulated; dashed: K → ∞): "
            + "; ".join(lean)
            + ". The standard errors of such means over paths are themselves rough. The claims on "
            "AM use K → ∞. Last, the integral of σ² c²:",
            frame_grid(table),
        ]
    )


def _path_mean(f: Integrals) -> str:
    assert f.profile is not None
    at = asked(f)
    mean, exact = value(f.whole["AM"][:, at]), float(f.exact["AM"][at])
    return (
        f"{f.label}: {mean} over paths of {f.profile.steps} steps ({f.profile.crowd:.0%} of it "
        f"from 1 path in 100), {exact:.2f} for that chain and {f.profile.limit[-1]:.2f} as K → ∞ "
        f"(extrapolated by {f.profile.step:.1%})"
    )


def claims(integrals: list[Integrals], pulls: list[Checked]) -> tuple[Claim, ...]:
    gaussian = [f for f in integrals if f.profile is None]
    mixtures = [f for f in integrals if f.profile and f.schedule.name == "RectifiedFlow"]
    return (
        agreement(
            "CSM's integral grows as 2 q d log(1/δ) near t = 1, whatever the target (q = 1 for "
            "rectified flow and trigonometric, 1/2 for VP and Foellmer).",
            logarithm(integrals),
        ),
        agreement(
            "TSM's integral grows near t = 0 as δ⁻² (rectified flow, trigonometric) and δ⁻¹ "
            "(Foellmer).",
            power([f for f in integrals if EXPONENT[f.schedule.name]]),
        ),
        _size(integrals),
        _saturation([f for f in integrals if not EXPONENT[f.schedule.name]]),
        _finite(integrals),
        _bound(gaussian),
        _settled(gaussian),
        _same(integrals),
        _identity(pulls),
        *(_excess(f) for f in mixtures),
        *(_example(f) for f in mixtures if f.target == "tilt_quadratic"),
    )


def _listed(comparison: Agreement) -> str:
    return "; ".join(
        f"{f.label}: {v.mean:.4g} ± {v.se:.1g} for {e:g}"
        for f, v, e in zip(*comparison, strict=True)
    )


def agreement(text: str, comparison: Agreement) -> Claim:
    worst = max(comparison.z)
    measured = f"{_listed(comparison)}. Worst: {worst:.1f} standard errors."
    return Claim(text, EQUAL.judge(worst), measured)


def _size(integrals: list[Integrals]) -> Claim:
    stated, mended = by_signal(integrals), by_noise_and_signal(integrals)
    off = [
        f"{f.label}: {v.mean:.3g}"
        for f, v, z in zip(integrals, stated.values, stated.z, strict=True)
        if z > EQUAL.apart
    ]
    measured = (
        f"Ratio of the two at δ = {integrals[0].cuts[-1]:g}: "
        + _listed(stated)
        + (f". It fails on {', '.join(off)}: " if off else ". ")
        + "where β does not start at 1 the law is I β²/α², the ratio to which is within "
        f"{max(mended.z):.1f} standard errors of 1 everywhere (worst value "
        f"{max((v.mean for v in mended.values), key=lambda m: abs(m - 1)):.4f})."
    )
    text = "TSM's integral is about I(p*)/α(δ)², I = E|∇ log p*|² (all schedules)."
    return Claim(text, EQUAL.judge(max(stated.z)), measured)


def _saturation(integrals: list[Integrals]) -> Claim:
    ratio, growth = saturated(integrals), grown(integrals)
    worst, first = max(ratio.z), integrals[0]
    still = max(g.mean + EQUAL.agrees * g.se for g in growth) < 2 * SMALL
    measured = (
        "Integral over I/α₀²: "
        + _listed(ratio)
        + f"; from δ = {first.cuts[asked(first)]:g} to {first.cuts[-1]:g} it grows by at most "
        f"{max(g.mean for g in growth):.2%}."
    )
    return Claim(
        "Where α₀ > 0 (VP) TSM's integral saturates near I/α₀².",
        verdict(worst < EQUAL.agrees and still, worst > EQUAL.apart or not still),
        measured,
    )


def _finite(integrals: list[Integrals]) -> Claim:
    shares, first = beyond(integrals), integrals[0]
    worst = max(shares, key=lambda key: shares[key].mean)
    high, v = max(b.mean + EQUAL.agrees * b.se for b in shares.values()), shares[worst]
    return Claim(
        "The integrals of NSM, AM and AS stay finite as δ → 0.",
        verdict(high < SMALL, v.mean - EQUAL.agrees * v.se > SMALL),
        f"Between δ = {first.cuts[asked(first)]:g} and {first.cuts[-1]:g} lies at most "
        f"{v.mean:.3%} ± {v.se:.3%} of the integral ({worst[1]} on {worst[0]}).",
    )


def _bound(integrals: list[Integrals]) -> Claim:
    """int NSM <= s^2 E|grad r|^2."""
    part = used(integrals)
    low, high = min(part, key=lambda k: part[k].mean), max(part, key=lambda k: part[k].mean)
    return Claim(
        "On a Gaussian base the integrals of NSM, AM and AS are at most s² E|∇r|².",
        verdict(
            all(v.mean + CLEAR * v.se < 1 for v in part.values()),
            any(v.mean - EQUAL.agrees * v.se > 1 for v in part.values()),
        ),
        f"They use {part[low].mean:.3f} ± {part[low].se:.3f} ({low[1]}, {low[0]}) to "
        f"{part[high].mean:.3f} ± {part[high].se:.3f} ({high[1]}, {high[0]}) of the bound.",
    )


def _settled(integrals: list[Integrals]) -> Claim:
    """int NSM = s^2 E|grad r|^2 - 2 KL."""
    z = settled(integrals)
    worst = max(z, key=lambda k: abs(z[k]))
    return Claim(
        "They are exactly s² E|∇r|² − 2 KL(p*|p_base), the bound less ∫E|u*|² dt (on a memoryless "
        "base; derived here).",
        EQUAL.judge(z[worst]),
        "; ".join(
            f"{f.label}: {value(f.ends.settled)} expected, NSM {value(f.whole['NSM'][:, -1])}"
            for f in integrals
        )
        + f". Worst: {abs(z[worst]):.1f} standard errors ({worst[1]}, {worst[0]}).",
    )


def _same(integrals: list[Integrals]) -> Claim:
    pairs = schedules(integrals)
    worst = max(pairs, key=lambda pair: pair.z)
    return Claim(
        "The integral of NSM is the same on every schedule that starts at α₀ ≈ 0 (derived here).",
        EQUAL.judge(worst.z),
        f"Of {len(pairs)} pairs of schedules the worst differs by {worst.z:.1f} standard errors: "
        f"{worst.one} on {worst.first.label}, {worst.other} on {worst.second.label}.",
    )


def _identity(pulls: list[Checked]) -> Claim:
    gap = max(abs(c.quadrature - c.pull.expected) for c in pulls)
    z = max(abs(c.sampled.z(c.pull.expected)) for c in pulls)
    return Claim(
        "∫σ² c² dt = s² (1 − α₀² s²/D₀) for every schedule and reference.",
        verdict(gap < IDENTICAL and z < EQUAL.agrees, gap > WRONG or z > EQUAL.apart),
        f"Over {len(pulls)} processes quadrature differs by at most {gap:.1e}, Monte Carlo by "
        f"{z:.1f} standard errors.",
    )


def _excess(f: Integrals) -> Claim:
    excesses, n = excess(f), asked(f)
    lines = [
        f"over {e.loss}: {e.worst} times at t = {e.time:.2f}, integrated {e.whole[0]:.2f} "
        f"times at δ = {f.cuts[0]:g} and {e.whole[1]:.2f} at δ = {f.cuts[n]:g}"
        for e in excesses
    ]
    return Claim(
        f"On a mixture base AM can be more than twice CSM and NSM, at its worst time ({f.target}).",
        verdict(
            all(e.worst.mean - EQUAL.agrees * e.worst.se > TWICE for e in excesses),
            any(e.worst.mean + EQUAL.agrees * e.worst.se < 1 for e in excesses),
        ),
        "AM (K → ∞) " + "; ".join(lines) + ".",
    )


def _example(f: Integrals) -> Claim:
    """math.md 7 states no constants beside these figures, so that a difference refutes nothing."""
    constants = example(f)
    means = constants.means()
    close = all(abs(means[name] / stated - 1) < NEAR for name, stated in STATED.items())
    return Claim(
        f"Mixture base, quadratic tilt, t = {MARK:g}: AM {STATED['AM']} against CSM "
        f"{STATED['CSM']} and NSM {STATED['NSM']}.",
        verdict(close, False),
        f"On {f.label}: AM {constants.lean:.1f} (K → ∞), CSM {constants.squares['CSM']}, NSM "
        f"{constants.squares['NSM']}; the constants of the example are not stated.",
    )
