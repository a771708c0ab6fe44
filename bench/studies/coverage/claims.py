"""What is claimed of stated intervals, judged from the repetitions."""

from __future__ import annotations

import math

import numpy as np

from tiltbench.estimators import steepest
from tiltbench.samplers.weights import Estimate
from tiltbench.studies.coverage.measured import SIDES, MeasuredControl, covered
from tiltbench.study import Claim, Verdict, verdict

LOW, HIGH = 0.92, 0.98
LEAST = 0.90  # of one-sided estimates
FEW = 20  # stated intervals: fewer are not judged
FAR = 2.0  # errors of the coverage beyond which it is another one

Case = tuple[str, Estimate]


def claims(tilts: list[MeasuredControl], densities: list[MeasuredControl]) -> tuple[Claim, ...]:
    both, sides = [*tilts, *densities], ("forward", "reverse")
    before = cases(tilts, "Bennett", now=False)
    one_sided = [case for side in sides for case in cases(both, side)]
    unmarked = [case for side in sides for case in by_tail(both, side)]
    raw, smooth = pooled(both, "bare"), pooled(both, "smooth")
    moved = max(float((m.before.forward - m.after.forward).abs().max()) for m in densities)
    moved = max(
        moved, *(float((m.before.reverse - m.after.reverse).abs().max()) for m in densities)
    )
    return (
        Claim(
            "With weights against the chain and reverse paths by the noising, Bennett's intervals "
            f"cover log Z in {LOW:.0%} to {HIGH:.0%} of repetitions on tilts.",
            within(before),
            summary(before),
        ),
        Claim(
            "With weights against the law of the base, or along paths of the base's own chain, "
            f"Bennett's intervals cover log Z in {LOW:.0%} to {HIGH:.0%} of repetitions on tilts.",
            within(cases(tilts, "Bennett")),
            summary(cases(tilts, "Bennett")),
        ),
        *(
            Claim(
                f"The {side} intervals that are stated on tilts cover log Z in {LOW:.0%} to "
                f"{HIGH:.0%} of repetitions too.",
                within(cases(tilts, side)),
                summary(cases(tilts, side)),
            )
            for side in sides
        ),
        Claim(
            "On Gaussian bases, where the chain is the law, no weight has changed.",
            verdict(moved == 0.0, moved > 0.0),
            f"The largest change of a log-weight is {moved:g}.",
        ),
        Claim(
            f"One-sided intervals that are stated hold log Z in {LEAST:.0%} of cases or more.",
            verdict(
                all(e.value >= LEAST for _, e in one_sided),
                any(e.value + FAR * e.se < LEAST for _, e in one_sided),
            ),
            summary(one_sided),
        ),
        Claim(
            "If k_hat alone decided which one-sided intervals are stated, they would cover log Z "
            f"in {LEAST:.0%} of cases or more.",
            verdict(
                all(e.value >= LEAST for _, e in unmarked),
                any(e.value + FAR * e.se < LEAST for _, e in unmarked),
            ),
            summary(unmarked),
        ),
        Claim(
            "Pareto-smoothed weights cover better than the weights themselves.",
            verdict(
                smooth.value > raw.value + smooth.se + raw.se,
                smooth.value < raw.value + smooth.se / 2,
            ),
            f"Where intervals are stated, all one-sided cases together: {shown(smooth)} against "
            f"{shown(raw)}.",
        ),
    )


def cases(controls: list[MeasuredControl], side: str, now: bool = True) -> list[Case]:
    """Coverage of what is stated, of those with FEW intervals or more."""
    stated = []
    for m in controls:
        estimate = m.estimates[side]
        e = covered(estimate.after if now else estimate.before)
        if e.n >= FEW:
            stated.append((f"{m.target}, {m.control}, {side}", e))
    return stated


def by_tail(controls: list[MeasuredControl], side: str) -> list[Case]:
    """The same, if k_hat were all that an error hung on."""
    stated = []
    for m in controls:
        estimate = m.estimates[side]
        e = covered(estimate.bare, estimate.k <= steepest(m.after.forward.shape[1]))
        if e.n >= FEW:
            stated.append((f"{m.target}, {m.control}, {side}", e))
    return stated


def pooled(controls: list[MeasuredControl], which: str) -> Estimate:
    estimates = [m.estimates[side] for m in controls for side in SIDES if side != "Bennett"]
    errors = np.concatenate([getattr(t, which)[t.stated] for t in estimates])
    return covered(errors, np.full(len(errors), True))


def within(stated: list[Case]) -> Verdict:
    if not stated:
        return Verdict.OPEN
    return verdict(
        all(LOW <= e.value <= HIGH for _, e in stated),
        any(e.value + FAR * e.se < LOW or e.value - FAR * e.se > HIGH for _, e in stated),
    )


def summary(stated: list[Case]) -> str:
    if not stated:
        return "No case has intervals enough."
    values = [e.value for _, e in stated]
    name, worst = min(stated, key=lambda case: case[1].value)
    mean = math.fsum(values) / len(values)
    return (
        f"{len(stated)} cases with {FEW} intervals or more: {min(values):.3f} to "
        f"{max(values):.3f}, {mean:.3f} on average; the least is {name}, "
        f"{shown(worst)} of {worst.n}."
    )


def shown(e: Estimate) -> str:
    return f"{e.value:.3f} ± {e.se:.3f}"
