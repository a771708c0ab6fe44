"""Estimates of log Z as they are, where log Z is not known; errors of them are in log_Z.py.

No side but the method's own has paths: reverse paths start at exact draws.  Each estimate is
too low where the method misses a part of the target, and none of them says so."""

from __future__ import annotations

import math

from torch import Generator

from tiltbench import estimators
from tiltbench.metric import Metric, Outcome, Unknown
from tiltbench.metrics._given import given, per_path
from tiltbench.metrics.log_Z import drop_untrusted_error
from tiltbench.samplers.weights import Estimate
from tiltbench.targets.target import Target, Truth


def _finite(estimate: Estimate) -> Estimate:
    if estimate.value == -math.inf:
        raise Unknown("the estimate is -inf: a weight that must be positive is zero")
    return estimate


def _forward(target: Target, truth: Truth, outcome: Outcome, generator: Generator) -> Estimate:
    log_w, group = given(outcome.draws.log_w), outcome.draws.group
    estimate, k = estimators.jarzynski(log_w, group), estimators.k_hat(log_w, group)
    return _finite(drop_untrusted_error(estimate, k, log_w, None, ""))


def _sampler_estimate(
    target: Target, truth: Truth, outcome: Outcome, generator: Generator
) -> Estimate:
    return _finite(given(outcome.draws.log_Z))


def _below(target: Target, truth: Truth, outcome: Outcome, generator: Generator) -> Estimate:
    draws = per_path(outcome.draws)
    return _finite(estimators.elbo(given(draws.log_w), draws.group))


_WEIGHTS = frozenset({"unknown_log_Z", "log_w"})
_OWN = frozenset({"unknown_log_Z", "own_log_Z"})

log_Z_forward = Metric("log_Z_forward", _WEIGHTS, "higher", "nats", "", _forward)
"""log mean exp(log_w) over forward paths; too low where a part of the target is missed"""

log_Z_own = Metric("log_Z_own", _OWN, "higher", "nats", "", _sampler_estimate)
"""the method's own estimate of log Z"""

elbo = Metric("elbo", _WEIGHTS, "higher", "nats", "", _below)
"""mean log_w over forward paths, a lower bound of log Z"""
