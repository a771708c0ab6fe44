"""What digits say of memoryless noise: the rules that judge it, and the sentences."""

from __future__ import annotations

from tiltbench.samplers.weights import Estimate
from tiltbench.studies.common.rules import Same
from tiltbench.studies.memoryless_digits.measured import (
    Digit,
    DigitsResult,
    Noises,
    by_noise,
    further,
    furthest,
    log_Z_scores,
)
from tiltbench.study import Claim, verdict

STARVED = 0.02  # share of X_0 with too few siblings, from which their draws say little
REMEMBERS, FORGETS = 0.3, 0.05  # correlations with X_0 that say so
FAINT = 0.1  # one between the two, that says neither
ENDS = Same(agrees=4.0, apart=6.0)  # sd of the floor: the optimum's draws and the tilt's
NO_PULL = 4.0  # standard errors of the coupling within which it is 0
COUPLED = Same(agrees=2.0, apart=6.0)  # standard errors of the coupling, or sd of the floor
SHARES = Same(agrees=3.0, apart=6.0)  # standard errors of a digit's share, of five
SURE = 3.0  # standard errors by which one noise ends further away
WEIGHTS = Same(agrees=3.0, apart=5.0)  # standard errors of log Z


def claims(results: list[DigitsResult]) -> tuple[Claim, ...]:
    noises = by_noise(results)
    return (
        _memory(noises),
        _ends_in_the_tilt(noises.quiet),
        _coupled(noises.loud),
        _seen(noises.loud, results[0].floor.n),
        _digits(furthest(noises.loud), furthest(noises.quiet)),
        _trained(noises),
        _weights(log_Z_scores(results)),
    )


def _memory(noises: Noises) -> Claim:
    loud, quiet = noises.loud[0], noises.quiet[0]
    remembered, calm = loud.memory.any, quiet.memory.any
    return Claim(
        "With sigma = 1 the images remember X_0, with memoryless noise they do not",
        verdict(remembered > REMEMBERS and calm < FORGETS, remembered < FAINT or calm > FAINT),
        f"corr(X_0, X_1) with any function: sigma = 1 {remembered:.3f}, memoryless {calm:.3f}; "
        f"a Gaussian's: {loud.gaussian:.3f} and {quiet.gaussian:.3f}.",
    )


def _ends_in_the_tilt(quiet: list[DigitsResult]) -> Claim:
    far = max(quiet, key=lambda row: row.sds)
    worst = max(quiet, key=lambda row: abs(row.pull))
    return Claim(
        "On a memoryless base the optimum of the control problem ends in the tilt",
        verdict(far.sds < ENDS.agrees and abs(worst.pull) < NO_PULL, far.sds > ENDS.apart),
        f"{len(quiet)} optima, memoryless and regularised: the farthest {far.sds:+.1f} sd of "
        f"the floor from it ({far.target}, {far.noise}); the coupling most off 0 is "
        f"{pm(worst.coupling)} ({worst.target}, {worst.noise}).",
    )


def _coupled(loud: list[DigitsResult]) -> Claim:
    least = min(row.pull for row in loud)
    return Claim(
        "With sigma = 1 how good an end X_0 can hope for depends on X_0, so that the optimum "
        "must end elsewhere",
        verdict(least > COUPLED.apart, abs(least) < COUPLED.agrees),
        "coupling: " + ", ".join(f"{row.target} {pm(row.coupling)}" for row in loud) + ".",
    )


def _seen(loud: list[DigitsResult], draws: int) -> Claim:
    fed = [row for row in loud if row.starved < STARVED]
    return Claim(
        f"With sigma = 1 the energy distance of {draws:,} draws shows that the optimum misses "
        "the tilt",
        verdict(
            bool(fed) and all(row.sds > COUPLED.apart for row in fed),
            bool(fed) and all(row.sds < COUPLED.agrees for row in fed),
        ),
        "optimum above the floor, in its sd (share of X_0 with too few siblings; not judged "
        f"from {STARVED:g} on): "
        + ", ".join(f"{row.target} {row.sds:+.1f} ({row.starved:.2f})" for row in loud)
        + ".",
    )


def _digits(wrong: Digit, still: Digit) -> Claim:
    return Claim(
        "With sigma = 1 the weighted shares of even digits show that the optimum misses the tilt",
        verdict(abs(wrong.z) > SHARES.apart, abs(wrong.z) < SHARES.agrees),
        f"of 5, the furthest is {_share(wrong)}; memoryless: {_share(still)}.",
    )


def _trained(noises: Noises) -> Claim:
    gaps = further(noises)
    return Claim(
        "Trained with sigma = 1 or without noise, draws end further from the tilt than with "
        "memoryless noise",
        verdict(min(gaps) > SURE, max(gaps) < -SURE),
        "trained, above the floor: "
        + ", ".join(
            f"{row.target}, {row.noise} {pm(row.above, 4)}"
            for row in noises.memoryless + noises.loud + noises.ode
        )
        + f"; the differences to memoryless are {min(gaps):+.1f} to {max(gaps):+.1f} standard "
        "errors.",
    )


def _weights(z: list[float]) -> Claim:
    worst = max(z, key=abs)
    return Claim(
        "Path weights find log Z whatever the noise",
        WEIGHTS.judge(worst),
        f"{len(z)} trained controls with noise: the worst error is {worst:+.1f} standard errors.",
    )


def _share(digit: Digit) -> str:
    return f"{digit.digit}, {digit.optimum:.4f} for {digit.tilt:.4f} (z = {digit.z:+.1f})"


def pm(estimate: Estimate | None, digits: int = 3) -> str:
    if estimate is None:
        return "–"
    return f"{estimate.value:.{digits}f} ± {estimate.se:.{digits}f}"
