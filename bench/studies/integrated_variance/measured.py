"""The numbers behind the claims on integrated variances."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tiltbench.studies.integrated_variance.exact import Pull, integral, of_reference, of_schedule
from tiltbench.studies.integrated_variance.integrated import Integrals, Value, slope, value
from tiltbench.targets.bases.references import Brownian, Stationary
from tiltbench.targets.bases.schedules import (
    Foellmer,
    RectifiedFlow,
    Trigonometric,
    VariancePreserving,
)

HALF = {"RectifiedFlow": 1.0, "Trigonometric": 1.0, "VariancePreserving": 0.5, "Foellmer": 0.5}
# q of beta ~ (1-t)^q, and the power of 1/delta in beta^2/alpha^2 at t = delta
EXPONENT = {"RectifiedFlow": 2.0, "Trigonometric": 2.0, "VariancePreserving": 0.0, "Foellmer": 1.0}
QUIET = ("NSM", "AM", "AS")
MARK = 0.2  # the time of math.md 7's example
PULLS = (
    *(of_schedule(schedule, s)
      for schedule in (RectifiedFlow(), VariancePreserving(), Trigonometric(), Foellmer())
      for s in (1.0, 2.0)),
    *(of_reference(base) for base in (
        Brownian(), Brownian(scale=2.0), Brownian(ratio=1.0), Stationary(), Stationary(scale=2.0))),
)  # fmt: skip


class Checked(NamedTuple):
    pull: Pull
    quadrature: float
    sampled: Value


def identity(draws: int) -> list[Checked]:
    """Each pull by quadrature and by uniform times, one by one since a schedule takes floats."""
    times = np.random.default_rng(3).random(draws).tolist()
    return [
        Checked(pull, integral(pull.integrand), value(np.array([pull.integrand(t) for t in times])))
        for pull in PULLS
    ]


class Agreement(NamedTuple):
    """What was found beside what is expected, case by case."""

    integrals: list[Integrals]
    values: list[Value]
    expected: list[float]

    @property
    def z(self) -> list[float]:
        """Distances in standard errors."""
        return [abs(v.z(e)) for v, e in zip(self.values, self.expected, strict=True)]


def asked(f: Integrals) -> int:
    """The index of the smallest cut-off that was asked for; the finer ones serve the fits."""
    return len(f.cuts) - f.fitted - 1


def against_exact(f: Integrals) -> list[float]:
    """Integrals against their closed forms, in standard errors."""
    return [
        abs(value(column).z(float(e)))
        for loss, rows in f.whole.items()
        for column, e in zip(rows.T, f.exact[loss], strict=True)
        if e == e
    ]


def logarithm(integrals: list[Integrals]) -> Agreement:
    """The slope of CSM's integral in log 1/delta near t = 1."""
    values = [slope(f.upper[:, -f.fitted :], f.cuts[-f.fitted :]) for f in integrals]
    return Agreement(integrals, values, [2 * HALF[f.schedule.name] * f.dim for f in integrals])


def power(integrals: list[Integrals]) -> Agreement:
    """The power of 1/delta in TSM's integral near t = 0."""
    values = [slope(np.log(f.lower[:, -f.fitted :]), f.cuts[-f.fitted :]) for f in integrals]
    return Agreement(integrals, values, [EXPONENT[f.schedule.name] for f in integrals])


def over_information(integrals: list[Integrals], to: Sequence[float]) -> Agreement:
    """TSM's integral at the smallest cut-off over I times `to`, which is to be 1."""
    values = [
        value(f.whole["TSM"][:, -1] / (f.ends.information.mean() * size))
        for f, size in zip(integrals, to, strict=True)
    ]
    return Agreement(integrals, values, [1.0] * len(integrals))


def by_signal(integrals: list[Integrals]) -> Agreement:
    """Over I / alpha^2, as stated."""
    end = integrals[0].cuts[-1]
    return over_information(integrals, [1 / f.schedule.signal(end) ** 2 for f in integrals])


def by_noise_and_signal(integrals: list[Integrals]) -> Agreement:
    """Over I beta^2 / alpha^2."""
    end = integrals[0].cuts[-1]
    sizes = [f.schedule.noise_power(end) / f.schedule.signal(end) ** 2 for f in integrals]
    return over_information(integrals, sizes)


def saturated(integrals: list[Integrals]) -> Agreement:
    """Over I / alpha_0^2."""
    return over_information(integrals, [1 / f.schedule.signal(0.0) ** 2 for f in integrals])


def grown(integrals: list[Integrals]) -> list[Value]:
    """By which share TSM's integral grows beyond the smallest asked cut-off."""
    at = asked(integrals[0])
    return [value(f.whole["TSM"][:, -1] / f.whole["TSM"][:, at] - 1) for f in integrals]


Labelled = dict[tuple[str, str], Value]  # by (case, loss)


def beyond(integrals: list[Integrals]) -> Labelled:
    """The share of an integral between the smallest asked cut-off and a hundredth of it."""
    at = asked(integrals[0])
    return {
        (f.label, loss): value(1 - rows[:, at] / rows[:, -1])
        for f in integrals
        for loss, rows in f.whole.items()
        if loss in QUIET
    }


def used(integrals: list[Integrals]) -> Labelled:
    """Integrals over the bound s^2 E|grad r|^2."""
    return {
        (f.label, loss): value(f.whole[loss][:, -1] / f.ends.bound.mean())
        for f in integrals
        for loss in QUIET
    }


def settled(integrals: list[Integrals]) -> dict[tuple[str, str], float]:
    """Integrals less s^2 E|grad r|^2 - 2 KL, in standard errors, by (case, loss)."""
    z = {}
    for f in integrals:
        goal = value(f.ends.settled)
        for loss in QUIET:
            v = value(f.whole[loss][:, -1])
            z[f.label, loss] = (v.mean - goal.mean) / math.hypot(v.se, goal.se)
    return z


class Two(NamedTuple):
    """NSM's integral on two schedules of one target."""

    z: float
    first: Integrals
    second: Integrals
    one: Value
    other: Value


def schedules(integrals: list[Integrals]) -> list[Two]:
    """Every pair."""
    rows = []
    for i, f in enumerate(integrals):
        for g in integrals[i + 1 :]:
            if g.target == f.target:
                a, b = (value(h.whole["NSM"][:, -1]) for h in (f, g))
                rows.append(Two(abs(a.mean - b.mean) / math.hypot(a.se, b.se), f, g, a, b))
    return rows


class Excess(NamedTuple):
    """AM as K -> infinity over another loss, at its worst time and integrated."""

    loss: str
    time: float
    worst: Value
    whole: tuple[float, float]  # at the largest and at the smallest asked cut-off


def excess(f: Integrals) -> list[Excess]:
    assert f.profile is not None
    excesses = []
    inside = (f.profile.times > f.cuts[0]) & (f.profile.times < 1 - f.cuts[0])
    for loss, rows in f.profile.squares.items():
        ratio = np.where(inside, f.profile.lean / rows.mean(0), 0.0)
        at = int(ratio.argmax())
        whole = [f.profile.limit[i] / f.whole[loss][:, i].mean() for i in (0, asked(f))]
        worst = value(f.profile.lean[at] / rows[:, at])
        excesses.append(Excess(loss, f.profile.times[at], worst, (whole[0], whole[1])))
    return excesses


class Example(NamedTuple):
    """Variances at t = MARK."""

    lean: float  # AM as K -> infinity
    squares: dict[str, Value]  # of the others

    def means(self) -> dict[str, float]:
        return {"AM": self.lean, **{name: v.mean for name, v in self.squares.items()}}


def example(f: Integrals) -> Example:
    assert f.profile is not None
    at = int(np.argmin(np.abs(f.profile.times - MARK)))
    squares = {name: value(rows[:, at]) for name, rows in f.profile.squares.items()}
    return Example(float(f.profile.lean[at]), squares)
