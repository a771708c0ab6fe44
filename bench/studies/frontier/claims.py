"""What is claimed of fine-tuning by reward, and what the stored runs say."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from tiltbench.samplers.weights import Estimate
from tiltbench.studies.frontier.lines import Line, Truth
from tiltbench.study import Claim, Verdict, verdict

SD = 2.0  # of the floor: an energy distance within is as good as that of exact draws
SAME = 3.0  # standard errors: a reward within is that of exact draws
SURE, DOUBT = 4.0, 2.0  # standard errors: beyond is a difference, within is none
CLOSE = 0.1  # share of KL(p* | p_base)
LEAST_ESS = 0.02  # of path weights, below which nothing is read off them


def judged(lines: Sequence[Line], truths: Sequence[Truth]) -> tuple[Claim, ...]:
    by = {truth.strength: truth for truth in truths}
    return (
        *(_reached(truth, lines) for truth in truths),
        _bound(lines),
        _equality(lines, by),
        _overshoot(lines, by),
        _diversity(lines, by),
        _weights(lines, by),
    )


def z(found: Estimate, true: Estimate) -> float:
    """Their difference in standard errors."""
    return (found.value - true.value) / math.hypot(found.se, true.se)


def _there(line: Line, truth: Truth) -> bool:
    """By energy distance and by reward: each is blind to what the other sees."""
    return line.off <= SD and abs(z(line.log_p, truth.exact.mean)) <= SAME


def _reached(truth: Truth, lines: Sequence[Line]) -> Claim:
    here = sorted(
        (line for line in lines if line.strength == truth.strength and not math.isnan(line.off)),
        key=lambda line: line.off,
    )
    arrived = [line for line in here if _there(line, truth)]
    mean, sd = here[0].floor if here else (math.nan, math.nan)
    named = ", ".join(
        f"`{line.method}` {line.distance.value:.4f} ({z(line.log_p, truth.exact.mean):+.1f})"
        for line in arrived or here[:3]
    )
    return Claim(
        f"Strength {truth.strength:g}: a method draws from the tilt, energy distance within {SD:g} "
        f"sd of its floor and E log P within {SAME:g} standard errors",
        verdict(bool(arrived), bool(here) and not arrived),
        f"{len(arrived)} of {len(here)}; floor {mean:.4f} ± {sd:.4f}; "
        f"{'there' if arrived else 'the nearest'} (standard errors of E log P): {named}.",
    )


def _bound(lines: Sequence[Line]) -> Claim:
    text = (
        "No method has its reward for a smaller path KL than the tilt of the same reward "
        "(Donsker-Varadhan): the exact tilts are the frontier"
    )
    known = [line for line in lines if line.path_kl.n]
    if not known:
        return Claim(text, Verdict.OPEN, "no path KL is known.")
    near = min(known, key=lambda line: line.wasted.value)
    score, least = min(
        ((line.wasted.value / line.wasted.se, line) for line in known), key=lambda pair: pair[0]
    )
    return Claim(
        text,
        verdict(score > -DOUBT, score < -SURE),
        f"of {len(known)} path KLs less the least, the lowest is {near.wasted.value:+.3f} ± "
        f"{near.wasted.se:.3f} nats (`{near.method}`, strength {near.strength:g}), the lowest in "
        f"standard errors {score:+.1f} (`{least.method}`, strength {least.strength:g}).",
    )


def _equality(lines: Sequence[Line], by: dict[float, Truth]) -> Claim:
    shares = {
        (line.method, line.strength): line.path_kl.value / by[line.strength].exact.kl.value - 1
        for line in lines
        if _there(line, by[line.strength]) and line.path_kl.n
    }
    return Claim(
        "Memoryless: a control that ends in the tilt has the path KL of the optimum, "
        "KL(p* | p_base), and not more",
        verdict(
            bool(shares) and all(abs(share) < CLOSE for share in shares.values()),
            any(share > 2 * CLOSE for share in shares.values()),
        ),
        "; ".join(
            f"`{method}` at {strength:g}: {share:+.1%}"
            for (method, strength), share in shares.items()
        )
        or "no method with path weights ends in its tilt.",
    )


def _overshoot(lines: Sequence[Line], by: dict[float, Truth]) -> Claim:
    scores = {_key(line): z(line.log_p, by[line.strength].exact.mean) for line in lines}
    over = [line for line in lines if scores[_key(line)] > SURE]
    return Claim(
        "No method overshoots the reward of the exact tilt",
        verdict(all(score < DOUBT for score in scores.values()), bool(over)),
        f"{len(over)} of {len(lines)} are more than {SURE:g} standard errors above it"
        + _listed(over, by),
    )


def _diversity(lines: Sequence[Line], by: dict[float, Truth]) -> Claim:
    over = [line for line in lines if z(line.log_p, by[line.strength].exact.mean) > SURE]
    lost = [line for line in over if z(line.diversity, by[line.strength].diversity) < -SURE]
    every = [line for line in lines if z(line.diversity, by[line.strength].diversity) < -SURE]
    return Claim(
        "Reward beyond the tilt's is paid for with diversity",
        verdict(bool(over) and len(lost) == len(over), len(lost) < len(over)),
        f"{len(lost)} of the {len(over)} that overshoot are less diverse than exact draws by more "
        f"than {SURE:g} standard errors, and {len(every)} of all {len(lines)}: "
        + (", ".join(f"`{m}` ({n})" for m, n in _counted(every)) or "none")
        + ".",
    )


def _weights(lines: Sequence[Line], by: dict[float, Truth]) -> Claim:
    read = [line for line in lines if line.tilt_kl.n and line.ess >= LEAST_ESS]
    few = sum(1 for line in lines if line.tilt_kl.n) - len(read)
    scores = [z(line.tilt_kl, by[line.strength].exact.kl) for line in read]
    worst = max(scores, key=abs, default=math.nan)
    return Claim(
        "Path weights find KL(p* | p_base) where they have an ESS",
        verdict(abs(worst) < SURE, abs(worst) > 2 * SURE),
        f"{len(read)} have an ESS of {LEAST_ESS:g} or more, {few} less"
        + (f"; the worst of the former is {worst:+.1f} standard errors off." if read else "."),
    )


def _key(line: Line) -> tuple[str, float]:
    return line.method, line.strength


def _listed(over: Sequence[Line], by: dict[float, Truth]) -> str:
    said = [
        f"`{line.method}` at {line.strength:g} "
        f"({line.log_p.value:.2f}, tilt {by[line.strength].exact.mean.value:.2f})"
        for line in over
    ]
    return f": {', '.join(said)}." if said else "."


def _counted(lines: Sequence[Line]) -> Iterator[tuple[str, int]]:
    methods = [line.method for line in lines]
    for method in dict.fromkeys(methods):
        yield method, methods.count(method)
