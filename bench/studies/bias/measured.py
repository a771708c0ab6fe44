"""The numbers behind the claims on the bias: shares that are left, and scores of twins."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from tiltbench.studies.bias.regressed import ROUNDING, Bias, Share
from tiltbench.studies.common.rules import Scores, scores

SURE = 3.0  # standard errors between a share and what it is said to be below or above
TELLING = 5.0  # standard errors by which twins tell the closed form from the control itself


def some(biases: Sequence[Bias], loss: str, ends: str) -> list[Bias]:
    return [b for b in biases if (b.loss, b.ends) == (loss, ends)]


def below(one: Share, other: Share) -> bool:
    return one.value + SURE * math.hypot(one.se, other.se) < other.value


def span(shares: Sequence[Share]) -> tuple[Share, Share]:
    """The least and the largest."""
    ranked = sorted(shares, key=lambda s: s.value)
    return ranked[0], ranked[-1]


def twins_of(biases: Sequence[Bias]) -> Scores:
    """Twins against the closed form, where there is one."""
    return scores(b.z for b in biases if not math.isnan(b.z))


class Contraction(NamedTuple):
    """What unweighted regressions of one loss leave, setting by setting."""

    left: list[Share]
    late: list[Share]  # over t > 1/2
    below: list[Bias]  # surely less than all
    above: list[Bias]  # surely more

    @property
    def where(self) -> list[str]:
        """The settings in which it grows."""
        return list(dict.fromkeys(b.world for b in self.above))


def contraction(biases: Sequence[Bias]) -> Contraction:
    return Contraction(
        [b.left for b in biases],
        [b.late for b in biases],
        [b for b in biases if b.left.value + SURE * b.left.se < 1],
        [b for b in biases if b.left.value - SURE * b.left.se > 1],
    )


class Lean(NamedTuple):
    """Adjoint matching's twins, those that can tell."""

    telling: Scores
    settings: int


def lean(biases: Sequence[Bias]) -> Lean:
    here = [b for b in biases if b.loss == "AM"]
    return Lean(scores(b.z for b in here if b.apart > TELLING), len(here))


class Weighted(NamedTuple):
    """Tempered weights beside none."""

    better: list[bool]  # surely less left, or nothing left before
    worse: list[bool]
    csm: tuple[Share, Share]  # what CSM leaves at lambda = 0, least and most
    nsm: tuple[Share, Share]


def weighted(biases: Sequence[Bias]) -> Weighted:
    pairs = [
        (b.left, t.left)
        for loss in ("CSM", "TSM", "NSM")
        for b, t in zip(
            some(biases, loss, "unweighted"), some(biases, loss, "tempered"), strict=True
        )
    ]

    def untrained(loss: str) -> tuple[Share, Share]:
        return span([b.left for b in some(biases, loss, "tempered") if not b.strength])

    return Weighted(
        [below(after, before) or before.value < ROUNDING for before, after in pairs],
        [below(before, after) and after.value > ROUNDING for before, after in pairs],
        untrained("CSM"),
        untrained("NSM"),
    )


def flatness(biases: Sequence[Bias]) -> float:
    """The largest bias of NSM and AS by twins, over the largest E|u_lambda - u*|^2, where the
    reward is linear on a Gaussian base."""
    straight = [
        b for b in biases if b.world == "Gaussian base, linear r" and b.ends == "unweighted"
    ]
    here = [b for b in straight if b.loss in ("NSM", "AS")]
    return max(float(b.square.abs().max() / b.before.max()) for b in here)


class Lopsided(NamedTuple):
    """What NSM leaves of misweighted modes, by half their distance in sd."""

    halves: tuple[float, float]  # the least and the largest
    near: Share
    far: Share


def lopsided(apart: dict[float, list[Bias]]) -> Lopsided:
    halves = min(apart), max(apart)
    near, far = (next(b.left for b in apart[half] if b.loss == "NSM") for half in halves)
    return Lopsided(halves, near, far)
