"""The numbers behind the claims on fine-tuning by reward: methods beside their exact tilt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from tiltbench.samplers.weights import Estimate
from tiltbench.studies.frontier.methods import MethodAtStrength, Truth

Pair = tuple[MethodAtStrength, Truth]


def z(measured: Estimate, true: Estimate) -> float:
    """Their difference in standard errors."""
    return (measured.value - true.value) / math.hypot(measured.se, true.se)


def beside(results: Sequence[MethodAtStrength], truths: Sequence[Truth]) -> list[Pair]:
    """Every result with the tilt of its strength."""
    by = {truth.strength: truth for truth in truths}
    return [(result, by[result.strength]) for result in results]


def reward_z(pair: Pair) -> float:
    """E log P above that of exact draws, in standard errors."""
    result, truth = pair
    return z(result.log_p, truth.exact.mean)


def diversity_z(pair: Pair) -> float:
    result, truth = pair
    return z(result.diversity, truth.diversity)


def scored(pairs: Sequence[Pair], strength: float) -> list[Pair]:
    """Those of one strength that have an energy distance and its floor, the nearest first."""
    here = [p for p in pairs if p[1].strength == strength and not math.isnan(p[0].off)]
    return sorted(here, key=lambda pair: pair[0].off)


class Wasted(NamedTuple):
    """Path KL above the least that the reward allows."""

    known: list[MethodAtStrength]  # with a path KL
    lowest: MethodAtStrength
    surest: MethodAtStrength  # the lowest in standard errors

    @property
    def score(self) -> float:
        return self.surest.wasted.value / self.surest.wasted.se


def wasted(results: Sequence[MethodAtStrength]) -> Wasted | None:
    """None where no path KL is known."""
    known = [result for result in results if result.path_kl.n]
    if not known:
        return None
    lowest = min(known, key=lambda result: result.wasted.value)
    return Wasted(
        known, lowest, min(known, key=lambda result: result.wasted.value / result.wasted.se)
    )


def excess(pairs: Sequence[Pair]) -> dict[tuple[str, float], float]:
    """The path KL over KL(p* | p_base), less 1, by method and strength, where it is known."""
    return {
        (result.method, result.strength): result.path_kl.value / truth.exact.kl.value - 1
        for result, truth in pairs
        if result.path_kl.n
    }


class PathWeightCheck(NamedTuple):
    """KL(p* | p_base) by path weights."""

    few: int  # with too small an ESS to be read
    z: list[float]  # of the others, in standard errors


def weights(pairs: Sequence[Pair], least_ess: float) -> PathWeightCheck:
    known = [(result, truth) for result, truth in pairs if result.tilt_kl.n]
    read = [(result, truth) for result, truth in known if result.ess >= least_ess]
    scores = [z(result.tilt_kl, truth.exact.kl) for result, truth in read]
    return PathWeightCheck(len(known) - len(read), scores)
