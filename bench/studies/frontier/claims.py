"""What is claimed of fine-tuning by reward: the rules that judge it, and the sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from tiltbench.studies.common.rules import Same
from tiltbench.studies.frontier.hacking import SURE, Weighted, hacks, inversions, weighted
from tiltbench.studies.frontier.measured import (
    Pair,
    PathWeightCheck,
    Wasted,
    beside,
    diversity_z,
    excess,
    reward_z,
    scored,
    wasted,
    weights,
)
from tiltbench.studies.frontier.methods import MethodAtStrength, Truth
from tiltbench.study import Claim, Verdict, verdict

SD = 2.0  # of the floor: an energy distance within is as good as that of exact draws
SAME = 3.0  # standard errors: a reward within is that of exact draws
DOUBT = 2.0  # standard errors: within is no difference, beyond SURE is one
CLOSE = Same(agrees=0.1, apart=0.2)  # shares of KL(p* | p_base)
READ = Same(agrees=SURE, apart=2 * SURE)  # standard errors, of the worst of many
LEAST_ESS = 0.02  # of path weights, below which nothing is read off them
NEAREST = 3  # named where none has arrived


def judged(results: Sequence[MethodAtStrength], truths: Sequence[Truth]) -> tuple[Claim, ...]:
    pairs = beside(results, truths)
    return (
        *(_reached(truth, scored(pairs, truth.strength)) for truth in truths),
        _bound(wasted(results)),
        _equality(excess([pair for pair in pairs if _there(pair)])),
        _hacking(pairs),
        _by_weight(weighted(pairs)),
        _diversity(pairs),
        _weights(weights(pairs, LEAST_ESS)),
    )


def _there(pair: Pair) -> bool:
    """By energy distance and by reward: each is blind to what the other sees."""
    return pair[0].off <= SD and abs(reward_z(pair)) <= SAME


def _reached(truth: Truth, here: list[Pair]) -> Claim:
    arrived = [pair for pair in here if _there(pair)]
    mean, sd = here[0][0].floor if here else (math.nan, math.nan)
    named = ", ".join(
        f"`{pair[0].method}` {pair[0].distance.value:.4f} ({reward_z(pair):+.1f})"
        for pair in arrived or here[:NEAREST]
    )
    return Claim(
        f"Strength {truth.strength:g}: a method draws from the tilt, energy distance within {SD:g} "
        f"sd of its floor and E log P within {SAME:g} standard errors",
        verdict(bool(arrived), bool(here) and not arrived),
        f"{len(arrived)} of {len(here)}; floor {mean:.4f} ± {sd:.4f}; "
        f"{'there' if arrived else 'the nearest'} (standard errors of E log P): {named}.",
    )


def _bound(waste: Wasted | None) -> Claim:
    text = (
        "No method has its reward for a smaller path KL than the tilt of the same reward "
        "(Donsker-Varadhan): the exact tilts are the frontier"
    )
    if waste is None:
        return Claim(text, Verdict.OPEN, "no path KL is known.")
    near, least = waste.lowest, waste.surest
    return Claim(
        text,
        verdict(waste.score > -DOUBT, waste.score < -SURE),
        f"of {len(waste.known)} path KLs less the least, the lowest is {near.wasted.value:+.3f} ± "
        f"{near.wasted.se:.3f} nats (`{near.method}`, strength {near.strength:g}), the lowest in "
        f"standard errors {waste.score:+.1f} (`{least.method}`, strength {least.strength:g}).",
    )


def _equality(shares: dict[tuple[str, float], float]) -> Claim:
    """`shares`: of the methods that have arrived."""
    return Claim(
        "Memoryless: a control that ends in the tilt has the path KL of the optimum, "
        "KL(p* | p_base), and not more",
        verdict(
            bool(shares) and all(abs(share) < CLOSE.agrees for share in shares.values()),
            any(share > CLOSE.apart for share in shares.values()),
        ),
        "; ".join(
            f"`{method}` at {strength:g}: {share:+.1%}"
            for (method, strength), share in shares.items()
        )
        or "no method with path weights ends in its tilt.",
    )


def _hacking(pairs: list[Pair]) -> Claim:
    over = hacks(pairs)
    named = "; ".join(f"`{h.result.method}` at {h.result.strength:g} ({h})" for h in over)
    return Claim(
        "No method hacks: none has more E log P than the exact tilt, which it could have at a "
        "larger KL only",
        verdict(all(reward_z(pair) < DOUBT for pair in pairs), bool(over)),
        f"{len(over)} of {len(pairs)} are more than {SURE:g} standard errors above it"
        + (f": {named}." if named else "."),
    )


def _by_weight(rows: list[Weighted]) -> Claim:
    crossed = list(inversions(rows))
    named = "; ".join(
        f"`{row.sampler}` with {row.kl:g}: {len(row.hacked)} of {row.of}" for row in rows
    )
    return Claim(
        "A larger KL weight hacks nowhere where a smaller one of the same method does not",
        verdict(not crossed and any(row.hacked for row in rows), bool(crossed)),
        f"strengths that are hacked, by KL weight: {named}."
        if rows
        else "no method comes with two KL weights.",
    )


def _diversity(pairs: list[Pair]) -> Claim:
    over = [pair for pair in pairs if reward_z(pair) > SURE]
    lost = [pair for pair in over if diversity_z(pair) < -SURE]
    every = [pair for pair in pairs if diversity_z(pair) < -SURE]
    return Claim(
        "Reward beyond the tilt's is paid for with diversity",
        verdict(bool(over) and len(lost) == len(over), len(lost) < len(over)),
        f"{len(lost)} of the {len(over)} that overshoot are less diverse than exact draws by more "
        f"than {SURE:g} standard errors, and {len(every)} of all {len(pairs)}: "
        + (", ".join(f"`{m}` ({n})" for m, n in _counted(every)) or "none")
        + ".",
    )


def _weights(by_path: PathWeightCheck) -> Claim:
    worst = max(by_path.z, key=abs, default=math.nan)
    return Claim(
        "Path weights find KL(p* | p_base) where they have an ESS",
        READ.judge(worst),
        f"{len(by_path.z)} have an ESS of {LEAST_ESS:g} or more, {by_path.few} less"
        + (f"; the worst of the former is {worst:+.1f} standard errors off." if by_path.z else "."),
    )


def _counted(pairs: list[Pair]) -> Iterator[tuple[str, int]]:
    methods = [result.method for result, _ in pairs]
    for method in dict.fromkeys(methods):
        yield method, methods.count(method)
