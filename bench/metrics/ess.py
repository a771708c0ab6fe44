"""Effective sample size from both sides (math.md 5.4): never read one without the other."""

from __future__ import annotations

from torch import Generator

from tiltbench import estimators
from tiltbench.metric import Metric, Outcome
from tiltbench.metrics._given import given, per_path
from tiltbench.samplers.weights import Estimate
from tiltbench.targets.target import Target, Truth


def _model(target: Target, truth: Truth, outcome: Outcome, generator: Generator) -> Estimate:
    draws = per_path(outcome.draws)
    return estimators.ess_model(given(draws.log_w), draws.group)


def _target(target: Target, truth: Truth, outcome: Outcome, generator: Generator) -> Estimate:
    return estimators.ess_target(given(outcome.log_w_reverse))


ess_model = Metric("ess_model", frozenset({"log_w"}), "higher", "1", "1", _model)
"""(sum w)^2 / (n sum w^2) over forward paths, the sampler's own: blind to modes it never visits"""

ess_target = Metric("ess_target", frozenset({"reverse"}), "higher", "1", "1", _target)
"""1 / (E[w] E[1/w]) over reverse paths, from exact draws: sees missing modes"""
