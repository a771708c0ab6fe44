"""What the gradient study says of the claims of the literature and of math.md 7."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from tiltbench.studies.gradient_variance.found import (
    FINISHED,
    HALFWAY,
    RANDOM,
    Found,
    fitted,
    growth,
)
from tiltbench.studies.gradient_variance.gradients import (
    Interval,
    Split,
    against,
    quotient,
    relative,
)
from tiltbench.study import Claim, verdict

Measure = Callable[[Split, Split], Interval]
SLACK = 0.1  # of an exponent: "in proportion" is not meant to the last digit
HEAVY = 0.4  # of the noise in one batch; of 24 with one chi-squared each, one time in a hundred
TWICE = 4.0  # tr Cov of a loss that is twice another


class Duel(NamedTuple):
    """A comparison of two losses at one place: below 1, the first is the quieter.

    Where one batch makes most of the noise the tail is heavy: the noise measured is more often too
    small than too large, and its interval too.  Then the loss is not said to be the quieter."""

    where: str
    interval: Interval
    first: Split
    second: Split

    @property
    def below(self) -> bool:
        return self.interval.high < 1 and self.first.worst < HEAVY

    @property
    def above(self) -> bool:
        return self.interval.low > 1 and self.second.worst < HEAVY

    def __str__(self) -> str:
        found = self.interval
        if found.value == np.inf or found.value <= 0 or np.isnan(found.value):
            return f"{self.where} [{found.low:.2g}, {found.high:.2g}]"
        return f"{self.where} {found.value:.2g} [{found.low:.2g}, {found.high:.2g}]"


def claims(
    found: Found, tilt: str, density: str, dims: tuple[int, ...], after: int
) -> tuple[Claim, ...]:
    score = ("conditional_score_matching", "target_score_matching")
    adjoint = ("adjoint_matching", "adjoint_sampling")
    mid = [(HALFWAY, dim) for dim in dims]
    both = [(RANDOM, dims[0]), *mid]
    return (
        _in_proportion(found, density),
        *(
            _quieter(
                "Adjoint losses have a smaller relative gradient variance tr Cov / |E g|² than "
                f"{other.replace('_', ' ')} at equal calls (arXiv 2605.00229): Gaussian base, "
                f"`{density}`.",
                _duels(found, density, adjoint, (other,), mid, against),
            )
            for other in score
        ),
        *(
            _tailed(
                _quieter(
                    "Adjoint matching has a smaller relative gradient variance than "
                    f"{other.replace('_', ' ')} also on a base that is not log-concave, where "
                    f"nothing bounds the lean adjoint (math.md 4, 7): `{tilt}`.",
                    _duels(found, tilt, adjoint[:1], (other,), mid, against),
                ),
                found,
                tilt,
                dims,
            )
            for other in score
        ),
        _quieter(
            "The lean adjoint makes a quieter gradient than the full one (arXiv 2409.08861): "
            "tr Cov / |E g|² at one theta, tr Cov alone where trained.",
            [
                *_duels(found, density, *_lean, both, against),
                *_duels(found, density, *_lean, [(FINISHED, dims[0])], quotient),
                *_duels(found, tilt, *_lean, both, against),
            ],
        ),
        _quieter(
            "Near the optimum log-variance has the smaller gradient variance than relative "
            "entropy, whose gradient is half of it in the mean (arXiv 2307.01198).",
            _duels(found, density, *_log_variance, [(FINISHED, dims[0])], _by_scale),
        ),
        _quieter(
            "Away from the optimum too log-variance has the smaller gradient variance of the two.",
            [
                *_duels(found, density, *_log_variance, both, _by_scale),
                *_duels(found, tilt, *_log_variance, both, _by_scale),
            ],
        ),
        _alike(found, (tilt, density), both),
        _in_dimension(found, (tilt, density), dims),
        _jump(found, tilt, dims, after),
    )


_lean = ("adjoint_matching",), ("adjoint_matching_full",)
_log_variance = ("log_variance",), ("relative_entropy",)


def _by_scale(one: Split, half: Split) -> Interval:
    return quotient(one, half, TWICE)


def _duels(
    found: Found,
    target: str,
    ours: Iterable[str],
    theirs: Iterable[str],
    places: list[tuple[str, int]],
    measure: Measure,
) -> list[Duel]:
    duels, theirs = [], list(theirs)
    for one in ours:
        for other in theirs:
            for stage, dim in places:
                first = found.at(target, one, dim, stage, found.calls)
                second = found.at(target, other, dim, stage, found.calls)
                named = f"{_short(one)}/{_short(other)} {target} D = {dim} {stage}"
                a, b = first.split, second.split
                duels.append(Duel(named, measure(a, b), a, b))
    return duels


def _quieter(text: str, duels: list[Duel]) -> Claim:
    """Holds where most are told to be below 1 and none above, fails the other way round."""
    below = [d for d in duels if d.below]
    above = [d for d in duels if d.above]
    measured = (
        f"First over second, 99 % intervals: below 1 in {len(below)} of {len(duels)}, above it in "
        f"{len(above)}, not told apart in {len(duels) - len(below) - len(above)}: "
        f"{'; '.join(map(str, duels))}."
    )
    most = len(duels) / 2
    holds, fails = len(below) > most and not above, len(above) > most and not below
    return Claim(text, verdict(holds, fails), measured)


def _tailed(claim: Claim, found: Found, target: str, dims: tuple[int, ...]) -> Claim:
    """With the share of the noisiest batch, which tells a heavy tail from many small errors."""
    shares = {}
    for loss in ("adjoint_matching", "conditional_score_matching"):
        cells = found.over_dims(target, loss, dims, HALFWAY, found.calls)
        shares[loss] = ", ".join(f"{cell.split.worst:.0%}" for cell in cells)
    adjoint, score = shares.values()
    more = (
        f" The noisiest single batch makes {adjoint} of the noise of adjoint matching at "
        f"D = {', '.join(map(str, dims))}, and {score} of that of conditional score matching."
    )
    return claim._replace(measured=claim.measured + more)


def _in_proportion(found: Found, density: str) -> Claim:
    fits = {
        loss: fitted(found.over_calls(density, loss, HALFWAY)) for loss in found.losses(density)
    }
    scores = {name: (fit.slope + 1) / fit.se for name, fit in fits.items()}
    off = {name: fits[name] for name, score in scores.items() if abs(score) > 3}
    sure = any(abs(scores[name]) > 4 for name in off)
    weight = np.array([1 / fit.se**2 for fit in fits.values()])
    mean = float(np.average([fit.slope for fit in fits.values()], weights=weight))
    named = "; ".join(f"{name} {fit.slope:.2f} ± {fit.se:.2f}" for name, fit in off.items())
    errors = [fit.se for fit in fits.values()]
    measured = (
        f"{len(fits) - len(off)} of {len(fits)} exponents lie within three errors of -1, the worst "
        f"at {max(map(abs, scores.values())):.1f}; the errors are {min(errors):.2f} to "
        f"{max(errors):.2f}, the weighted mean of the exponents {mean:.2f}; not: {named or 'none'}."
    )
    measured += (
        " (NETS draws the times of a batch once for all its paths, a part of the noise that no "
        "number of paths removes; it is not seen at these batches.)"
    )
    text = "tr Cov(g) falls as 1/batch for every loss."
    return Claim(text, verdict(not off and abs(mean + 1) < SLACK, sure), measured)


def _alike(found: Found, targets: tuple[str, ...], places: list[tuple[str, int]]) -> Claim:
    one, other = ("trajectory_balance",), ("log_variance",)
    duels = [d for t in targets for d in _duels(found, t, one, other, places, quotient)]
    near = [1 - SLACK < d.interval.low and d.interval.high < 1 + SLACK for d in duels]
    far = [d.interval.low > 1 + SLACK or d.interval.high < 1 - SLACK for d in duels]
    return Claim(
        "Trajectory balance with log Z fitted has the gradient noise of log-variance, whose log Z "
        "is the mean of the batch (arXiv 2307.01198).",
        verdict(all(near), any(far)),
        f"tr Cov over tr Cov, same paths: {'; '.join(map(str, duels))}.",
    )


def _in_dimension(found: Found, targets: tuple[str, ...], dims: tuple[int, ...]) -> Claim:
    fits = {}
    for target in targets:
        for loss in found.losses(target):
            cells = found.over_dims(target, loss, dims, HALFWAY, found.calls)
            if len(cells) == len(dims):
                fits[f"{loss} ({target})"] = growth(cells)
    known = {name: fit for name, fit in fits.items() if not np.isnan(fit.slope)}
    lost = [name for name in fits if name not in known]
    fast = {n: f for n, f in known.items() if f.slope - 1 > 3 * f.se}
    named = "; ".join(f"{name} {fit.slope:.2f} ± {fit.se:.2f}" for name, fit in fast.items())
    steepest = max(known, key=lambda name: known[name].slope, default="none")
    return Claim(
        "The relative gradient variance of no loss grows faster than in proportion to D.",
        verdict(not fast and not lost, bool(fast)),
        f"Exponents of D: {sum(f.slope < 1 for f in known.values())} of {len(known)} are below 1, "
        f"the largest that of {steepest}; above it by three errors: {named or 'none'}; not "
        f"resolved at three D: {', '.join(lost) or 'none'}. Theta is taken after the same number "
        "of updates at each D, so that at large D it is less far on its way and the signal larger.",
    )


def _jump(found: Found, tilt: str, dims: tuple[int, ...], after: int) -> Claim:
    """The last D with an exact divergence against the next, beside a loss that has none."""
    before = max((dim for dim in dims if dim < after), default=dims[0])
    steps = {}
    for loss in ("nets_pinn", "cmcd_lv"):
        here, there = (found.at(tilt, loss, d, HALFWAY, found.calls).split for d in (before, after))
        steps[loss] = quotient(there, here), against(there, here), relative(here), relative(there)
    noise, ratio, *_ = steps["nets_pinn"]
    beside = steps["cmcd_lv"][0]
    return Claim(
        f"Hutchinson's estimate of the divergence (from D = {after} on) makes the gradient of the "
        "PINN loss noisier than the exact one.",
        verdict(noise.low > max(beside.high, 1), noise.high < 1),
        f"From D = {before} (exact) to D = {after} (Hutchinson) tr Cov of nets_pinn changes by a "
        f"factor {noise.value:.2f} [{noise.low:.2f}, {noise.high:.2f}], its ratio to |E g|² by "
        f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]; tr Cov of cmcd_lv, which takes no "
        f"divergence, at the same two thetas by {beside.value:.2f} [{beside.low:.2f}, "
        f"{beside.high:.2f}].",
    )


def _short(loss: str) -> str:
    return SHORT.get(loss, loss)


SHORT = {
    "adjoint_matching": "AM",
    "adjoint_matching_full": "AM full",
    "adjoint_sampling": "AS",
    "conditional_score_matching": "CSM",
    "target_score_matching": "TSM",
    "log_variance": "LV",
    "relative_entropy": "RE",
    "trajectory_balance": "TB",
}
