"""The numbers behind the claims on gradients: duels of two losses, and exponents."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from tiltbench.studies.gradient_variance.gradients import (
    Interval,
    Split,
    against,
    quotient,
)
from tiltbench.studies.gradient_variance.measurements import (
    HALFWAY,
    Fit,
    Measurements,
    fitted,
    growth,
)

Measure = Callable[[Split, Split], Interval]
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
        interval = self.interval
        if interval.value == np.inf or interval.value <= 0 or np.isnan(interval.value):
            return f"{self.where} [{interval.low:.2g}, {interval.high:.2g}]"
        return f"{self.where} {interval.value:.2g} [{interval.low:.2g}, {interval.high:.2g}]"


def by_scale(one: Split, half: Split) -> Interval:
    """tr Cov of one over that of another which is half of it in the mean."""
    return quotient(one, half, TWICE)


def duels_of(
    data: Measurements,
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
                first = data.at(target, one, dim, stage, data.calls)
                second = data.at(target, other, dim, stage, data.calls)
                named = f"{_short(one)}/{_short(other)} {target} D = {dim} {stage}"
                a, b = first.split, second.split
                duels.append(Duel(named, measure(a, b), a, b))
    return duels


class Exponents(NamedTuple):
    """Powers by name: fits of log against log."""

    fits: dict[str, Fit]

    def off(self, aim: float, by: float) -> dict[str, Fit]:
        """Those more than `by` standard errors away from `aim`."""
        return {name: fit for name, fit in self.fits.items() if abs(self.z(name, aim)) > by}

    def above(self, aim: float, by: float) -> dict[str, Fit]:
        return {name: fit for name, fit in self.fits.items() if fit.slope - aim > by * fit.se}

    def z(self, name: str, aim: float) -> float:
        return (self.fits[name].slope - aim) / self.fits[name].se

    @property
    def mean(self) -> float:
        """Weighted by inverse variance."""
        weight = np.array([1 / fit.se**2 for fit in self.fits.values()])
        return float(np.average([fit.slope for fit in self.fits.values()], weights=weight))

    @property
    def errors(self) -> list[float]:
        return [fit.se for fit in self.fits.values()]


def in_batch(data: Measurements, density: str) -> Exponents:
    """Of the number of paths a batch, in tr Cov."""
    losses = data.losses(density)
    return Exponents({loss: fitted(data.over_calls(density, loss, HALFWAY)) for loss in losses})


def in_dimension(
    data: Measurements, targets: tuple[str, ...], dims: tuple[int, ...]
) -> tuple[Exponents, list[str]]:
    """Of D, in the relative variance; and the names whose fit is not resolved."""
    fits = {}
    for target in targets:
        for loss in data.losses(target):
            measurements = data.over_dims(target, loss, dims, HALFWAY, data.calls)
            if len(measurements) == len(dims):
                fits[f"{loss} ({target})"] = growth(measurements)
    known = {name: fit for name, fit in fits.items() if not np.isnan(fit.slope)}
    return Exponents(known), [name for name in fits if name not in known]


def noisiest(data: Measurements, target: str, loss: str, dims: tuple[int, ...]) -> list[float]:
    """The share of the noisiest batch in the noise, by dimension."""
    measurements = data.over_dims(target, loss, dims, HALFWAY, data.calls)
    return [measurement.split.worst for measurement in measurements]


class Jump(NamedTuple):
    """From one dimension to another."""

    before: int
    noise: Interval  # tr Cov after over tr Cov before
    ratio: Interval  # the same of tr Cov / |E g|^2


def jump(data: Measurements, target: str, loss: str, dims: tuple[int, ...], after: int) -> Jump:
    """From the last dimension below `after`."""
    before = max((dim for dim in dims if dim < after), default=dims[0])
    here, there = (data.at(target, loss, d, HALFWAY, data.calls).split for d in (before, after))
    return Jump(before, quotient(there, here), against(there, here))


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
