"""log Z from every side, minus the truth; the gaps of its two bounds (protocol.md 3)."""

from __future__ import annotations

import math
import warnings

from torch import Generator

from tiltbench import estimators
from tiltbench.metric import Metric, Outcome, Unknown
from tiltbench.metrics._given import given, per_path
from tiltbench.samplers.weights import Estimate
from tiltbench.targets.target import Target, Truth


def _minus(estimate: Estimate, truth: Truth) -> Estimate:
    """estimate - log Z, with the error of both."""
    value, se, n = estimate
    if value == -math.inf:
        raise Unknown("the estimate is -inf: a weight that must be positive is zero")
    return Estimate(value - given(truth.log_Z), math.hypot(se, truth.log_Z_se), n)


def _forward(target: Target, truth: Truth, outcome: Outcome, generator: Generator) -> Estimate:
    draws = outcome.draws
    return _minus(estimators.jarzynski(given(draws.log_w), draws.group), truth)


def _reverse(target: Target, truth: Truth, outcome: Outcome, generator: Generator) -> Estimate:
    return _minus(estimators.reverse(given(outcome.log_w_reverse)), truth)


def _bar(target: Target, truth: Truth, outcome: Outcome, generator: Generator) -> Estimate:
    both = given(outcome.draws.log_w), given(outcome.log_w_reverse)
    with warnings.catch_warnings():  # the tables have a column and a section for this
        warnings.simplefilter("ignore", estimators.NoOverlap)
        return _minus(estimators.bar(*both), truth)


def _overlap(target: Target, truth: Truth, outcome: Outcome, generator: Generator) -> Estimate:
    return estimators.overlap(given(outcome.draws.log_w), given(outcome.log_w_reverse))


def _own(target: Target, truth: Truth, outcome: Outcome, generator: Generator) -> Estimate:
    return _minus(given(outcome.draws.log_Z), truth)


def _below(target: Target, truth: Truth, outcome: Outcome, generator: Generator) -> Estimate:
    draws = per_path(outcome.draws)
    value, se, n = _minus(estimators.elbo(given(draws.log_w), draws.group), truth)
    return Estimate(-value, se, n)


def _above(target: Target, truth: Truth, outcome: Outcome, generator: Generator) -> Estimate:
    return _minus(estimators.eubo(given(outcome.log_w_reverse)), truth)


_WEIGHTS = frozenset({"log_Z", "log_w"})
_REVERSE = frozenset({"log_Z", "reverse"})

log_Z_err = Metric("log_Z_err", _WEIGHTS, "lower", "nats", "0", _forward)
"""log mean exp(log_w) - log Z over the sampler's own paths"""

log_Z_rev_err = Metric("log_Z_rev_err", _REVERSE, "lower", "nats", "0", _reverse)
"""-log mean exp(-log_w) - log Z over paths traced back from exact draws"""

# Beyond an error of 1 nat there is less than one path of information in the overlap.
log_Z_bar_err = Metric("log_Z_bar_err", _WEIGHTS | _REVERSE, "lower", "nats", "0", _bar, 1.0)
"""Bennett's acceptance ratio estimate from both sides, minus log Z"""

overlap = Metric("overlap", frozenset({"log_w", "reverse"}), "higher", "1", "1", _overlap)
"""share of information that forward and reverse weights have in common: 0, they do not meet"""

log_Z_own_err = Metric(
    "log_Z_own_err", frozenset({"log_Z", "own_log_Z"}), "lower", "nats", "0", _own
)
"""the method's own estimate of log Z, minus log Z"""

elbo_gap = Metric("elbo_gap", _WEIGHTS, "lower", "nats", "0", _below)
"""log Z - mean log_w over the sampler's own paths: the lower bound's gap"""

eubo_gap = Metric("eubo_gap", _REVERSE, "lower", "nats", "0", _above)
"""mean log_w over paths from exact draws - log Z: the upper bound's gap"""
