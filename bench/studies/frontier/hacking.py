"""Reward hacking, defined beside an exact tilt, and what a KL weight does to it.

A method hacks at strength s where its E log P is above that of p_base exp(s log P) at a larger KL
to the base or at a larger distance from the tilt.  The larger KL is no second condition: every law
with that mean has KL(q | p_base) of at least `least_kl`, which grows with the mean (Donsker and
Varadhan).  So reward beyond the tilt's is hacking, and `Hack` says what it costs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tiltbench.studies.frontier.measured import Pair, reward_z
from tiltbench.studies.frontier.methods import MethodAtStrength

SURE = 4.0  # standard errors of E log P above the tilt's


class Hack(NamedTuple):
    """What a method has beyond the exact tilt, and at what price."""

    result: MethodAtStrength
    reward: float  # nats of E log P above the tilt's
    kl: float  # nats by which KL(q | p_base) exceeds KL(p* | p_base), at least
    off: float  # standard deviations of its floor by which the energy distance exceeds it; nan

    def __str__(self) -> str:
        return f"+{self.reward:.2f} for KL ≥ +{self.kl:.2f}, {self.off:.1f} sd off"


def hack(pair: Pair) -> Hack | None:
    """None where the reward is that of the tilt, or below it, within SURE standard errors."""
    result, truth = pair
    if not reward_z(pair) > SURE:
        return None
    reward = result.log_p.value - truth.exact.mean.value
    return Hack(result, reward, result.least.kl - truth.exact.kl.value, result.off)


def hacks(pairs: Sequence[Pair]) -> list[Hack]:
    return [hacking for pair in pairs if (hacking := hack(pair))]


class Weighted(NamedTuple):
    """A sampler with one weight of its KL."""

    sampler: str
    kl: float
    hacked: frozenset[float]  # strengths
    of: int  # strengths that there are


def weighted(pairs: Sequence[Pair]) -> list[Weighted]:
    """Samplers that come with two KL weights or more, by name and weight."""
    kept: dict[tuple[str, float], list[Pair]] = {}
    for pair in pairs:
        if pair[0].kl is not None:
            kept.setdefault((pair[0].sampler, pair[0].kl), []).append(pair)
    several = [name for name, _ in kept]
    return [
        Weighted(name, kl, frozenset(h.result.strength for h in hacks(mine)), len(mine))
        for (name, kl), mine in sorted(kept.items())
        if several.count(name) > 1
    ]


def inversions(rows: Sequence[Weighted]) -> Iterator[tuple[Weighted, Weighted]]:
    """(lighter, heavier) of one sampler where the heavier hacks a strength that the lighter does
    not."""
    for lighter in rows:
        for heavier in rows:
            same = lighter.sampler == heavier.sampler and lighter.kl < heavier.kl
            if same and heavier.hacked - lighter.hacked:
                yield lighter, heavier
