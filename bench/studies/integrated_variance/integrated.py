"""Conditional variances of regression targets under P*, and their integrals over time (math.md 7).

All in control units, sigma = sqrt(2 eta).  E tr Cov(T_t | X_t) = E |T_t - u*(X_t)|^2 for a target T
whose conditional mean is u*, which under P* is that of every loss below.  Integrals are taken in
log-odds l, t = 1 / (1 + e^-l), dt = t (1 - t) dl, where powers at either end are exponentials.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.samplers.loss import reward_and_grad
from tiltbench.studies.common.regression import optimum, posed, sigmas, targets
from tiltbench.targets.bases.mixture_flow import MixtureFlow
from tiltbench.targets.bases.optimal import NoisedScore
from tiltbench.targets.bases.process import normal
from tiltbench.targets.bases.schedules import Schedule
from tiltbench.targets.problem import Problem
from tiltbench.targets.target import Density, Tilt, Truth

Array = np.ndarray


class Case(NamedTuple):
    """A base known at the times of a rule only, and the law p* it is tilted to."""

    name: str
    problem: Problem
    base: Timed
    truth: Truth

    @property
    def noised_score(self) -> NoisedScore:
        assert self.truth.noised_score is not None
        return self.truth.noised_score


@dataclass(frozen=True)
class Timed(MixtureFlow):
    """A mixture flow on any grid, so that a time may be as close to either end as is wanted."""

    grid_times: tuple[float, ...] = (0.0, 1.0)

    @cached_property
    def times(self) -> tuple[float, ...]:  # type: ignore[override]
        return self.grid_times


class Rule(NamedTuple):
    """Nodes in (0, 1) and the weights they have in each piece between neighbouring knots."""

    knots: tuple[float, ...]
    times: Array  # (n,)
    weights: Array  # (knots - 1, n)

    def over(self, low: float, high: float) -> Float[Array, " n"]:
        """Weights of int_low^high dt, both ends being knots."""
        first, last = (int(np.argmin(np.abs(np.array(self.knots) - t))) for t in (low, high))
        return self.weights[first:last].sum(0)

    @property
    def grid(self) -> tuple[float, ...]:
        """0, the nodes, 1: node j has index j + 1."""
        return (0.0, *self.times.tolist(), 1.0)


def gauss(knots: tuple[float, ...], order: int) -> Rule:
    """Gauss-Legendre in log-odds, `order` nodes a piece: good to 1e-5 for any of the integrands."""
    x, w = np.polynomial.legendre.leggauss(order)
    ends = log_odds(np.array(knots))
    n = len(knots) - 1
    weights, times = np.zeros((n, n * order)), np.zeros(n * order)
    for i in range(n):
        half, piece = (ends[i + 1] - ends[i]) / 2, slice(i * order, (i + 1) * order)
        t = at_log_odds(ends[i] + half * (1 + x))
        times[piece], weights[i, piece] = t, half * w * t * (1 - t)
    return Rule(knots, times, weights)


def trapezoid(knots: tuple[float, ...], step: float) -> Rule:
    """The trapezoidal rule with steps of at most `step` in log-odds; every knot is a node."""
    ends = log_odds(np.array(knots))
    counts = np.ceil(np.diff(ends) / step - 1e-9).astype(int)
    places = [np.linspace(a, b, n + 1) for a, b, n in zip(ends, ends[1:], counts, strict=False)]
    at = np.concatenate([places[0][:1], *(p[1:] for p in places)])
    times = at_log_odds(at)
    times[np.concatenate([[0], np.cumsum(counts)])] = knots
    weights, start = np.zeros((len(counts), len(at))), 0
    for i, (p, n) in enumerate(zip(places, counts, strict=True)):
        w = np.full(n + 1, p[1] - p[0])
        w[[0, -1]] /= 2
        piece = slice(start, start + n + 1)
        weights[i, piece] = w * times[piece] * (1 - times[piece])
        start += n
    return Rule(knots, times, weights)


def log_odds(t: Array) -> Array:
    return np.log(t) - np.log1p(-t)


def at_log_odds(log_odds: Array) -> Array:
    return 1 / (1 + np.exp(-log_odds))


def on_gaussian(density: Density, schedule: Schedule, s: float, rule: Rule) -> Case:
    """A density on the interpolant of N(0, s^2 I)."""
    base = _timed(MixtureFlow((1.0,), ((0.0,) * density.dim,), (s**2,), schedule), rule)
    return Case(density.name, posed(density, base), base, density.truth())


def on_mixture(tilt: Tilt, rule: Rule) -> Case:
    """A tilt of a mixture, on the grid of the rule."""
    assert isinstance(tilt.base, MixtureFlow)
    base = _timed(tilt.base, rule)
    return Case(tilt.name, Problem(tilt.dim, base, tilt.reward), base, tilt.truth())


def _timed(plain: MixtureFlow, rule: Rule) -> Timed:
    grid = rule.grid
    return Timed(
        plain.weights, plain.means, plain.variances, plain.schedule,
        steps=len(grid) - 1, grid_times=grid,
    )  # fmt: skip


@torch.no_grad()
def by_pairs(case: Case, n: int, generator: Generator) -> dict[str, Float[Array, " t"]]:
    """E |T - u*|^2 at every node for CSM, TSM, NSM and AS, and E |u*|^2 as "u*", each node with n
    pairs of its own: X_1 exact from p*, X_t re-noised."""
    assert case.truth.sample is not None
    nodes = case.base.steps - 1
    k = torch.arange(1, nodes + 1, device=generator.device)[:, None]
    x1 = case.truth.sample(nodes * n, generator).reshape(nodes, n, -1)
    _, slope = reward_and_grad(case.problem, x1)
    x = case.base.renoise(x1, k, generator)
    u = optimum(case.base, case.noised_score, k, x)
    gaps = {name: y - u for name, y in targets(case.base, k, x, x1, slope).items()}
    return {name: _square(y).mean(-1).cpu().numpy() for name, y in {**gaps, "u*": u}.items()}


@torch.no_grad()
def by_paths(case: Case, n: int, generator: Generator) -> Float[Array, "t n"]:
    """|sigma a - u*|^2 of the lean adjoint (AM) at every node of n whole paths.

    Paths run backward from exact draws of p* by the base's own kernels, which are exact; a is
    pulled back step by step, which is O(step) from continuous time unless the base is Gaussian."""
    base, sigma = case.base, sigmas(case.base)
    assert case.truth.sample is not None
    x = case.truth.sample(n, generator)
    _, a = reward_and_grad(case.problem, x)
    rows = []
    for k in range(base.steps - 1, 0, -1):
        mean, std = base.backward(x, k)
        x = mean + std * normal(tuple(x.shape), generator, x.dtype)
        a = base.pull_back(x, k, a)
        rows.append(_square(sigma[k] * a - optimum(case.base, case.noised_score, k, x)))
    return torch.stack(rows[::-1]).cpu().numpy()


def _square(x: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
    return x.square().sum(-1)


class TerminalMeans(NamedTuple):
    """Means over exact draws of p*, one a replicate."""

    information: Array  # I = E |grad log p*|^2
    bound: Array  # s^2 E |grad r|^2
    settled: Array  # s^2 E |grad r|^2 - 2 KL(p* | p_base), KL = E r - log Z


def at_the_end(case: Case, n: int, replicates: int, generator: Generator) -> TerminalMeans:
    """On a Gaussian base int sigma^2 c^2 dt = s^2 and int E |u*|^2 dt = 2 KL, so that the integral
    of NSM, AM and AS is `settled`, up to the memory of the base."""
    assert case.truth.sample is not None and case.truth.log_Z is not None
    x1 = case.truth.sample(replicates * n, generator)
    r, slope = reward_and_grad(case.problem, x1)
    score = slope + case.base.score(x1, case.base.steps)
    info, bound = (
        _square(v).reshape(replicates, n).mean(-1) for v in (score, case.base.spread * slope)
    )
    gain = (r - case.truth.log_Z).reshape(replicates, n).mean(-1)
    return TerminalMeans(info.cpu().numpy(), bound.cpu().numpy(), (bound - 2 * gain).cpu().numpy())


class Profile(NamedTuple):
    """A mixture base at the nodes of a path rule."""

    times: Float[Array, " t"]
    squares: dict[str, Float[Array, "r t"]]  # CSM and NSM, measured
    lean: Float[Array, " t"]  # AM in continuous time, by quadrature
    limit: Float[Array, " c"]  # its integral at the asked cut-offs
    crowd: float  # share of AM's integral that the worst hundredth of the paths carries
    step: float  # relative change of the last integral by extrapolation in the step
    steps: int  # of the paths that measured AM


class Integrals(NamedTuple):
    """What was measured of a target on a schedule, at cut-offs `cuts`."""

    target: str
    schedule: Schedule
    dim: int
    cuts: tuple[float, ...]
    fitted: int  # the last `fitted` of them serve the fits
    whole: dict[str, Float[Array, "r c"]]  # int_delta^{1-delta}, a loss
    upper: Float[Array, "r c"]  # CSM, int_{1/2}^{1-delta}
    lower: Float[Array, "r c"]  # TSM, int_delta^{1/2}
    ends: TerminalMeans
    exact: dict[str, Float[Array, " c"]]  # of `whole`, where known; nan where not
    profile: Profile | None  # of mixture bases

    @property
    def label(self) -> str:
        return f"{self.target}, {self.schedule.name}"


class Value(NamedTuple):
    """A mean over replicates with its standard error."""

    mean: float
    se: float

    def z(self, expected: float) -> float:
        """A constant has no error but that of rounding."""
        return (self.mean - expected) / max(self.se, 1e-9 * abs(expected))

    def __str__(self) -> str:
        digits = 6 if self.se < 1e-5 else max(1 - math.floor(math.log10(self.se)), 0)
        if self.mean >= 1e4:
            return f"{self.mean:.4g} ± {self.se:.2g}"
        return f"{self.mean:.{digits}f} ± {self.se:.{digits}f}"


def value(replicates: Float[Array, " r"]) -> Value:
    return Value(
        float(replicates.mean()), float(replicates.std(ddof=1) / math.sqrt(len(replicates)))
    )


def slope(values: Float[Array, "r c"], cuts: tuple[float, ...]) -> Value:
    """Least squares of each replicate against log 1/delta."""
    return value(np.polyfit(np.log(1 / np.array(cuts)), values.T, 1)[0])
