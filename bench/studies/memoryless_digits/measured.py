"""What digits say of memoryless noise: the figures of one noise, and those that are compared."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from tiltbench.samplers.weights import Estimate
from tiltbench.score.floor import Floor
from tiltbench.studies.memoryless.study import ODE
from tiltbench.studies.memoryless_digits.coupled import Memory, Shares


class Seen(NamedTuple):
    """Of draws."""

    hits: Estimate  # share of them that are what is asked for
    reward: Estimate
    diversity: Estimate


class DigitsResult(NamedTuple):
    target: str
    noise: str
    memory: Memory
    gaussian: float  # corr(X_0, X_1) of a Gaussian base of the same rms
    ends: Estimate  # energy distance of the base's ends to the memoryless chain's
    coupling: Estimate | None  # Var Z(X_0) / Z^2; None without noise, as all of the optimum is
    starved: float  # share of X_0 with too few siblings for the optimum's draw; nan without noise
    best: Estimate | None  # energy distance of the optimum's draws to the tilt
    shares: Shares | None  # of the digits, at the optimum
    floor: Floor  # what draws of the tilt score
    exact: Tensor  # draws of the tilt of this chain's own ends
    tilt: Seen  # of them
    x: Tensor  # draws after training
    trained: Seen
    distance: Estimate  # to the tilt
    log_Z_err: Estimate | None  # by path weights, to the tilt of this chain's own ends

    @property
    def sds(self) -> float:
        """How far the optimum is above the floor, in its sd."""
        assert self.best is not None
        return (self.best.value - self.floor.mean) / self.floor.sd

    @property
    def above(self) -> Estimate:
        """How far the trained draws are above the floor."""
        far, floor = self.distance, self.floor
        return Estimate(far.value - floor.mean, math.hypot(far.se, floor.sd), far.n)

    @property
    def pull(self) -> float:
        """The coupling in its standard errors."""
        assert self.coupling is not None
        return score(self.coupling)


def score(estimate: Estimate) -> float:
    """In its standard errors."""
    return estimate.value / estimate.se


def minus(a: Estimate, b: Estimate) -> Estimate:
    return Estimate(a.value - b.value, math.hypot(a.se, b.se), a.n)


class Noises(NamedTuple):
    """The rows by their noise."""

    memoryless: list[DigitsResult]
    quiet: list[DigitsResult]  # memoryless and regularised
    loud: list[DigitsResult]  # sigma = 1
    ode: list[DigitsResult]  # without noise


def by_noise(results: list[DigitsResult]) -> Noises:
    def of(noise: str) -> list[DigitsResult]:
        return [row for row in results if row.noise == noise]

    memoryless = of("memoryless")
    return Noises(memoryless, memoryless + of("regularised"), of("sigma = 1"), of(ODE))


class Digit(NamedTuple):
    """An even digit's share at the optimum, and in the tilt."""

    digit: int
    optimum: float
    tilt: float
    z: float


def furthest(rows: list[DigitsResult]) -> Digit:
    """The even digit whose share at the optimum is most errors off, on digits_even."""
    row = next(row for row in rows if row.target == "digits_even")
    assert row.shares is not None
    even = row.shares.z[::2].abs().nan_to_num(0.0)
    digit = 2 * int(even.argmax())
    optimum, tilt = float(row.shares.optimum[digit]), float(row.shares.tilt[digit])
    return Digit(digit, optimum, tilt, float(row.shares.z[digit]))


def further(noises: Noises) -> list[float]:
    """How much further from the tilt trained draws end than with memoryless noise, in standard
    errors, by target and noise."""
    return [
        score(minus(row.distance, still.distance))
        for still in noises.memoryless
        for row in noises.loud + noises.ode
        if row.target == still.target
    ]


def log_Z_scores(results: list[DigitsResult]) -> list[float]:
    """Errors of log Z in standard errors, where there are weights."""
    return [score(row.log_Z_err) for row in results if row.log_Z_err is not None]
