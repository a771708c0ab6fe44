"""Energy distance to exact draws."""

from __future__ import annotations

from torch import Generator, Tensor

from tiltbench.metric import Metric, Outcome
from tiltbench.metrics._pairs import against, two_sample
from tiltbench.samplers.weights import Estimate
from tiltbench.targets.target import Target, Truth


def _energy(target: Target, truth: Truth, outcome: Outcome, generator: Generator) -> Estimate:
    x, y = against(target, truth, outcome, generator)
    return two_sample(_distance, x, y, outcome.draws.group)


def _distance(distance: Tensor) -> Tensor:
    return distance


energy_distance = Metric("energy_distance", frozenset({"sample"}), "lower", "length", "0", _energy)
"""2 E|X-Y| - E|X-X'| - E|Y-Y'| between draws X and exact draws Y, unbiased"""
