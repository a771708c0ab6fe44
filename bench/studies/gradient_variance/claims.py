"""What the gradient study says of the claims of the literature and of math.md 7: the rules that
judge them, and the sentences."""

from __future__ import annotations

from tiltbench.studies.gradient_variance.gradients import against, quotient
from tiltbench.studies.gradient_variance.measured import (
    Duel,
    Exponents,
    Jump,
    by_scale,
    duels_of,
    in_batch,
    in_dimension,
    jump,
    noisiest,
)
from tiltbench.studies.gradient_variance.measurements import FINISHED, HALFWAY, RANDOM, Measurements
from tiltbench.study import Claim, verdict

SLACK = 0.1  # of an exponent: "in proportion" is not meant to the last digit
APART = 3.0  # standard errors of an exponent: it is another
SURE = 4.0  # and surely so
MOST = 0.5  # share of the duels that is to be told
LEAN = ("adjoint_matching",), ("adjoint_matching_full",)
LOG_VARIANCE = ("log_variance",), ("relative_entropy",)
BALANCE = ("trajectory_balance",), ("log_variance",)


def claims(
    data: Measurements, tilt: str, density: str, dims: tuple[int, ...], after: int
) -> tuple[Claim, ...]:
    score = ("conditional_score_matching", "target_score_matching")
    adjoint = ("adjoint_matching", "adjoint_sampling")
    mid = [(HALFWAY, dim) for dim in dims]
    both = [(RANDOM, dims[0]), *mid]
    return (
        _in_proportion(in_batch(data, density)),
        *(
            _quieter(
                "Adjoint losses have a smaller relative gradient variance tr Cov / |E g|² than "
                f"{other.replace('_', ' ')} at equal calls (arXiv 2605.00229): Gaussian base, "
                f"`{density}`.",
                duels_of(data, density, adjoint, (other,), mid, against),
            )
            for other in score
        ),
        *(
            _tailed(
                _quieter(
                    "Adjoint matching has a smaller relative gradient variance than "
                    f"{other.replace('_', ' ')} also on a base that is not log-concave, where "
                    f"nothing bounds the lean adjoint: `{tilt}`.",
                    duels_of(data, tilt, adjoint[:1], (other,), mid, against),
                ),
                data,
                tilt,
                dims,
            )
            for other in score
        ),
        _quieter(
            "The lean adjoint makes a less noisy gradient than the full one (arXiv 2409.08861): "
            "tr Cov / |E g|² at one theta, tr Cov alone where trained.",
            [
                *duels_of(data, density, *LEAN, both, against),
                *duels_of(data, density, *LEAN, [(FINISHED, dims[0])], quotient),
                *duels_of(data, tilt, *LEAN, both, against),
            ],
        ),
        _quieter(
            "Near the optimum log-variance has the smaller gradient variance than relative "
            "entropy, whose gradient is half of it in the mean (arXiv 2307.01198).",
            duels_of(data, density, *LOG_VARIANCE, [(FINISHED, dims[0])], by_scale),
        ),
        _quieter(
            "Away from the optimum too log-variance has the smaller gradient variance of the two.",
            [
                *duels_of(data, density, *LOG_VARIANCE, both, by_scale),
                *duels_of(data, tilt, *LOG_VARIANCE, both, by_scale),
            ],
        ),
        _alike(
            [
                *duels_of(data, tilt, *BALANCE, both, quotient),
                *duels_of(data, density, *BALANCE, both, quotient),
            ]
        ),
        _in_dimension(*in_dimension(data, (tilt, density), dims)),
        _jump(
            jump(data, tilt, "nets_pinn", dims, after),
            jump(data, tilt, "cmcd_lv", dims, after),
            after,
        ),
    )


def _quieter(text: str, duels: list[Duel]) -> Claim:
    """Holds where most are told to be below 1 and none above, fails the other way round."""
    below = [d for d in duels if d.below]
    above = [d for d in duels if d.above]
    measured = (
        f"First over second, 99 % intervals: below 1 in {len(below)} of {len(duels)}, above it in "
        f"{len(above)}, not significantly different in {len(duels) - len(below) - len(above)}: "
        f"{'; '.join(map(str, duels))}."
    )
    most = MOST * len(duels)
    holds, fails = len(below) > most and not above, len(above) > most and not below
    return Claim(text, verdict(holds, fails), measured)


def _tailed(claim: Claim, data: Measurements, target: str, dims: tuple[int, ...]) -> Claim:
    """With the share of the noisiest batch, which tells a heavy tail from many small errors."""
    adjoint, score = (
        ", ".join(f"{share:.0%}" for share in noisiest(data, target, loss, dims))
        for loss in ("adjoint_matching", "conditional_score_matching")
    )
    more = (
        f" The noisiest single batch makes {adjoint} of the noise of adjoint matching at "
        f"D = {', '.join(map(str, dims))}, and {score} of that of conditional score matching."
    )
    return claim._replace(measured=claim.measured + more)


def _in_proportion(exponents: Exponents) -> Claim:
    off = exponents.off(-1, APART)
    worst = max(abs(exponents.z(name, -1)) for name in exponents.fits)
    named = "; ".join(f"{name} {fit.slope:.2f} ± {fit.se:.2f}" for name, fit in off.items())
    return Claim(
        "tr Cov(g) falls as 1/batch for every loss.",
        verdict(not off and abs(exponents.mean + 1) < SLACK, bool(exponents.off(-1, SURE))),
        f"{len(exponents.fits) - len(off)} of {len(exponents.fits)} exponents lie within three "
        f"errors of -1, the worst at {worst:.1f}; the errors are {min(exponents.errors):.2f} to "
        f"{max(exponents.errors):.2f}, the weighted mean of the exponents {exponents.mean:.2f}; "
        f"not: {named or 'none'}. (NETS draws the times of a batch once for all its paths, a part "
        "of the noise that no number of paths removes; it is not seen at these batches.)",
    )


def _alike(duels: list[Duel]) -> Claim:
    near = [1 - SLACK < d.interval.low and d.interval.high < 1 + SLACK for d in duels]
    far = [d.interval.low > 1 + SLACK or d.interval.high < 1 - SLACK for d in duels]
    return Claim(
        "Trajectory balance with log Z fitted has the gradient noise of log-variance, whose log Z "
        "is the mean of the batch (arXiv 2307.01198).",
        verdict(all(near), any(far)),
        f"tr Cov over tr Cov, same paths: {'; '.join(map(str, duels))}.",
    )


def _in_dimension(known: Exponents, lost: list[str]) -> Claim:
    fast, fits = known.above(1, APART), known.fits
    named = "; ".join(f"{name} {fit.slope:.2f} ± {fit.se:.2f}" for name, fit in fast.items())
    steepest = max(fits, key=lambda name: fits[name].slope, default="none")
    return Claim(
        "The relative gradient variance of no loss grows faster than in proportion to D.",
        verdict(not fast and not lost, bool(fast)),
        f"Exponents of D: {sum(f.slope < 1 for f in fits.values())} of {len(fits)} are below 1, "
        f"the largest that of {steepest}; above it by three errors: {named or 'none'}; not "
        f"resolved at three D: {', '.join(lost) or 'none'}. Theta is taken after the same number "
        "of updates at each D, so that at large D it is less far on its way and the signal larger.",
    )


def _jump(pinn: Jump, beside: Jump, after: int) -> Claim:
    """The last D with an exact divergence against the next, beside a loss that has none."""
    noise, ratio, other = pinn.noise, pinn.ratio, beside.noise
    return Claim(
        f"Hutchinson's estimate of the divergence (from D = {after} on) makes the gradient of the "
        "PINN loss noisier than the exact one.",
        verdict(noise.low > max(other.high, 1), noise.high < 1),
        f"From D = {pinn.before} (exact) to D = {after} (Hutchinson) tr Cov of nets_pinn changes "
        f"by a factor {noise.value:.2f} [{noise.low:.2f}, {noise.high:.2f}], its ratio to |E g|² "
        f"by {ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]; tr Cov of cmcd_lv, which takes "
        f"no divergence, at the same two thetas by {other.value:.2f} [{other.low:.2f}, "
        f"{other.high:.2f}].",
    )
