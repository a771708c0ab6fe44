"""Tails of the weights: whether a one-sided log Z may state an error (math.md 5.5)."""

from __future__ import annotations

import math

from torch import Generator, Tensor

from tiltbench import estimators
from tiltbench.metric import Metric, Outcome, Unknown
from tiltbench.metrics._given import given
from tiltbench.samplers.weights import Estimate
from tiltbench.targets.target import Target, Truth


def _forward(target: Target, truth: Truth, outcome: Outcome, generator: Generator) -> Estimate:
    log_w = given(outcome.draws.log_w)
    return _known(estimators.k_hat(log_w, outcome.draws.group), log_w)


def _reverse(target: Target, truth: Truth, outcome: Outcome, generator: Generator) -> Estimate:
    back = given(outcome.log_w_reverse)
    return _known(estimators.k_hat(-back), -back)


def _known(k: float, log_w: Tensor) -> Estimate:
    if bool(log_w.isinf().all()):
        raise Unknown("every weight is zero")
    if math.isnan(k):
        raise Unknown("too few weights that differ to fit a tail to")
    if math.isinf(k):
        raise Unknown(
            "most of the tail is alike, or nothing beside the largest weights: k_hat is infinite"
        )
    return Estimate(k, math.nan, len(log_w))


def _above(target: Target, truth: Truth, outcome: Outcome, generator: Generator) -> Estimate:
    return _lacking(given(outcome.draws.log_w), given(outcome.log_w_reverse))


def _below(target: Target, truth: Truth, outcome: Outcome, generator: Generator) -> Estimate:
    return _lacking(-given(outcome.log_w_reverse), -given(outcome.draws.log_w))


def _lacking(log_w: Tensor, other: Tensor) -> Estimate:
    if bool(log_w.isinf().all()):
        raise Unknown("every weight is zero")
    return estimators.unseen(log_w, other)


k_hat = Metric("k_hat", frozenset({"log_w"}), "lower", "1", "", _forward)
"""shape of the tail of exp(log_w) over forward paths: above .7 no error of log Z"""

k_hat_rev = Metric("k_hat_rev", frozenset({"reverse"}), "lower", "1", "", _reverse)
"""shape of the tail of exp(-log_w) over reverse paths"""

unseen = Metric("unseen", frozenset({"log_w", "reverse"}), "lower", "1", "", _above)
"""the share of exp(log_Z) in weights above all of the forward paths, by the reverse paths"""

unseen_rev = Metric("unseen_rev", frozenset({"log_w", "reverse"}), "lower", "1", "", _below)
"""the same of exp(-log_Z) from reverse paths, by the forward ones"""
