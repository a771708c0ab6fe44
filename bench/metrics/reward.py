"""The reward of draws, and how far it is from that of exact ones."""

from __future__ import annotations

import math

from torch import Generator

from tiltbench.estimators import average
from tiltbench.metric import Metric, Outcome
from tiltbench.metrics._given import rewards
from tiltbench.metrics._pairs import both
from tiltbench.samplers.weights import Estimate
from tiltbench.targets.target import Target, Truth


def _expected(target: Target, truth: Truth, outcome: Outcome, generator: Generator) -> Estimate:
    draws = outcome.draws
    return average(rewards(target, draws.x.double().cpu()), draws.group)


def _error(target: Target, truth: Truth, outcome: Outcome, generator: Generator) -> Estimate:
    x, y = both(truth, outcome, generator)
    mine, exact = average(rewards(target, x), outcome.draws.group), average(rewards(target, y))
    return Estimate(abs(mine.value - exact.value), math.hypot(mine.se, exact.se), mine.n)


expected_reward = Metric("expected_reward", frozenset({"tilt"}), "higher", "nats", "", _expected)
"""E r over the draws, the reward as the tilt has it: not ranked, for more of it may be too much"""

reward_err = Metric("reward_err", frozenset({"sample", "tilt"}), "lower", "nats", "floor", _error)
"""|E r over the draws - E r over exact draws|; expected_reward tells which is larger"""
