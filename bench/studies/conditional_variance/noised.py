"""Targets on an interpolant with their exact draws and the score of their noised law."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.plan.spec import build_target, parse
from tiltbench.samplers.loss import reward_and_grad
from tiltbench.studies.common.regression import interpolated, posed
from tiltbench.targets.bases.mixture_flow import MixtureFlow
from tiltbench.targets.bases.schedules import Schedule
from tiltbench.targets.densities._tabulated import TabulatedDensity, tabulate
from tiltbench.targets.densities.gaussian import Gaussian
from tiltbench.targets.densities.gmm9 import Gmm9
from tiltbench.targets.densities.many_well_mdelta import ManyWellMDelta
from tiltbench.targets.problem import Problem
from tiltbench.targets.target import Modes, Tilt, Truth

Score = Callable[..., Tensor]
# (x, signal, noise) -> grad log of the law of signal X + noise xi at x, X ~ p*, (*b, d)


class World(NamedTuple):
    """A problem on the interpolant `base` whose p* is known."""

    problem: Problem
    base: MixtureFlow  # problem.base
    sample: Callable[[int, Generator], Tensor]  # exact draws of p*, (n, d) float64
    noised_score: Score
    modes: Modes | None

    @property
    def linear(self) -> bool:
        """Whether p_base is one Gaussian, on which alone adjoint sampling is defined."""
        return len(self.base.weights) == 1


def gaussian(schedule: Schedule, steps: int) -> World:
    """N(1.2, .3) on the interpolant of N(0, 1): the example of math.md 7 and 11."""
    target = Gaussian(dim=1, mean=1.2, std=math.sqrt(0.3))
    base = MixtureFlow((1.0,), ((0.0,),), (1.0,), schedule, steps=steps)
    return _world(posed(target, base), target.truth())


def gmm9(schedule: Schedule, steps: int) -> World:
    return _world(interpolated(Gmm9(), schedule, steps), Gmm9().truth())


def many_well(schedule: Schedule, steps: int) -> World:
    """`many_well_mdelta` in D = 5, a product of five double wells."""
    target = ManyWellMDelta()
    well = dataclasses.replace(target, wells=1, dim=1)
    line = tabulate(lambda x: well.log_rho(x[:, None]), reach=math.sqrt(target.delta + 8))
    truth = target.truth()._replace(noised_score=product_score(line))
    return _world(interpolated(target, schedule, steps), truth)


def tilt(name: str) -> Callable[[Schedule, int], World]:
    """A tilt of the analytic mixture, its own base."""

    def build(schedule: Schedule, steps: int) -> World:
        target = build_target(parse(f"{name}[schedule={schedule.name},steps={steps}]"))
        assert isinstance(target, Tilt)
        return _world(Problem(target.dim, target.base, target.reward), target.truth())

    return build


def _world(problem: Problem, truth: Truth) -> World:
    assert truth.sample is not None and truth.noised_score is not None
    assert isinstance(problem.base, MixtureFlow)
    return World(problem, problem.base, truth.sample, truth.noised_score, truth.modes)


def product_score(line: TabulatedDensity, points: int = 2001) -> Score:
    """The noised score where the coordinates of p* are independent draws of `line`.

    (alpha E[X | alpha X + beta xi = y] - y) / beta^2 in every coordinate, the mean by the
    trapezoidal rule over at most `points` of the line and linear between `points` values of y."""
    every = max(1, (len(line.x) - 1) // (points - 1))
    nodes, log_p = line.x[::every], line.p[::every].log()

    def score(x: Float[Tensor, "*b d"], signal: float, noise: float) -> Float[Tensor, "*b d"]:
        edge = signal * float(nodes[-1]) + 6 * noise
        y = torch.linspace(-edge, edge, points, dtype=torch.float64)
        near = log_p - (y[:, None] - signal * nodes).square() / (2 * noise**2)
        mean = (torch.softmax(near, -1) @ nodes).to(x)
        place = (x + edge) * ((points - 1) / (2 * edge))
        i = place.long().clamp(0, points - 2)
        posterior_mean = mean[i] + (place - i) * (mean[i + 1] - mean[i])
        return (signal * posterior_mean - x) / noise**2

    return score


def slope(world: World, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """grad log p* = score of p_base + grad r."""
    return world.base.score(x, world.base.steps) + reward_and_grad(world.problem, x)[1]
