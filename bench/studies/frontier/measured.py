"""The numbers behind the claims on fine-tuning by reward: lines beside their exact tilt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from tiltbench.samplers.weights import Estimate
from tiltbench.studies.frontier.lines import Line, Truth

Pair = tuple[Line, Truth]


def z(found: Estimate, true: Estimate) -> float:
    """Their difference in standard errors."""
    return (found.value - true.value) / math.hypot(found.se, true.se)


def beside(lines: Sequence[Line], truths: Sequence[Truth]) -> list[Pair]:
    """Every line with the tilt of its strength."""
    by = {truth.strength: truth for truth in truths}
    return [(line, by[line.strength]) for line in lines]


def reward_z(pair: Pair) -> float:
    """E log P above that of exact draws, in standard errors."""
    line, truth = pair
    return z(line.log_p, truth.exact.mean)


def diversity_z(pair: Pair) -> float:
    line, truth = pair
    return z(line.diversity, truth.diversity)


def scored(pairs: Sequence[Pair], strength: float) -> list[Pair]:
    """Those of one strength that have an energy distance and its floor, the nearest first."""
    here = [p for p in pairs if p[1].strength == strength and not math.isnan(p[0].off)]
    return sorted(here, key=lambda pair: pair[0].off)


class Wasted(NamedTuple):
    """Path KL above the least that the reward allows."""

    known: list[Line]  # with a path KL
    lowest: Line
    surest: Line  # the lowest in standard errors

    @property
    def score(self) -> float:
        return self.surest.wasted.value / self.surest.wasted.se


def wasted(lines: Sequence[Line]) -> Wasted | None:
    """None where no path KL is known."""
    known = [line for line in lines if line.path_kl.n]
    if not known:
        return None
    lowest = min(known, key=lambda line: line.wasted.value)
    return Wasted(known, lowest, min(known, key=lambda line: line.wasted.value / line.wasted.se))


def excess(pairs: Sequence[Pair]) -> dict[tuple[str, float], float]:
    """The path KL over KL(p* | p_base), less 1, by method and strength, where it is known."""
    return {
        (line.method, line.strength): line.path_kl.value / truth.exact.kl.value - 1
        for line, truth in pairs
        if line.path_kl.n
    }


class Weights(NamedTuple):
    """KL(p* | p_base) by path weights."""

    few: int  # with too small an ESS to be read
    z: list[float]  # of the others, in standard errors


def weights(pairs: Sequence[Pair], least_ess: float) -> Weights:
    known = [(line, truth) for line, truth in pairs if line.tilt_kl.n]
    read = [(line, truth) for line, truth in known if line.ess >= least_ess]
    scores = [z(line.tilt_kl, truth.exact.kl) for line, truth in read]
    return Weights(len(known) - len(read), scores)
