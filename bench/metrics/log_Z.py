"""log Z from every side, minus the truth; the gaps of its two bounds (protocol.md 3)."""

from __future__ import annotations

import math
import warnings

from torch import Generator, Tensor

from tiltbench import estimators
from tiltbench.metric import NOISED, Metric, Outcome, Unknown
from tiltbench.metrics._given import given, per_path
from tiltbench.samplers.weights import Estimate, Unbounded
from tiltbench.targets.target import Target, Truth


def minus(estimate: Estimate, truth: Truth) -> Estimate:
    """estimate - log Z, with the error of both."""
    value, se, n = estimate
    if value == -math.inf:
        raise Unknown("the estimate is -inf: a weight that must be positive is zero")
    value -= given(truth.log_Z)
    if isinstance(estimate, Unbounded):
        return Unbounded(value, n, estimate.why)
    return Estimate(value, math.hypot(se, truth.log_Z_se), n)


def drop_untrusted_error(
    estimate: Estimate, k: float, log_w: Tensor, other: Tensor | None, side: str
) -> Estimate:
    """The estimate of the mean of exp(log_w), without its error where the weights do not tell it:
    where their tail is too heavy, or where `other`, those along the other side's paths, show that
    the mean lacks more beyond the largest of them than the error (math.md 5.5)."""
    if math.isnan(estimate.se):
        return estimate
    most = estimators.steepest(estimate.n)
    if k > most:
        why = f"k_hat{side} is {k:.2f}, above {most:.2f}: the tail is too heavy"
        return Unbounded(estimate.value, estimate.n, f"no error bar, for {why}")
    beyond = 0.0 if other is None else estimators.unseen(log_w, other).value
    if beyond > estimate.se:
        why = f"unseen{side} is {beyond:.2g}, more than the error of {estimate.se:.2g}"
        return Unbounded(estimate.value, estimate.n, f"no error bar, for {why}")
    return estimate


def _forward(target: Target, truth: Truth, outcome: Outcome, generator: Generator) -> Estimate:
    draws = outcome.draws
    log_w, group = given(draws.log_w), draws.group
    estimate, k = estimators.jarzynski(log_w, group), estimators.k_hat(log_w, group)
    return minus(drop_untrusted_error(estimate, k, log_w, outcome.log_w_reverse, ""), truth)


def _reverse(target: Target, truth: Truth, outcome: Outcome, generator: Generator) -> Estimate:
    back, there = -given(outcome.log_w_reverse), outcome.draws.log_w
    estimate, k = estimators.reverse(-back), estimators.k_hat(back)
    if NOISED in outcome.probes:
        return minus(_noised(estimate), truth)
    return minus(
        drop_untrusted_error(estimate, k, back, None if there is None else -there, "_rev"), truth
    )


def _bar(target: Target, truth: Truth, outcome: Outcome, generator: Generator) -> Estimate:
    both = given(outcome.draws.log_w), given(outcome.log_w_reverse)
    with warnings.catch_warnings():  # the tables have a column and a section for this
        warnings.simplefilter("ignore", estimators.NoOverlap)
        estimate = estimators.bar(*both)
    return minus(_noised(estimate) if NOISED in outcome.probes else estimate, truth)


def _noised(estimate: Estimate) -> Estimate:
    why = "no error bar, for the reverse paths are those of the noising, not of the base's chain"
    return Unbounded(estimate.value, estimate.n, why)


def _overlap(target: Target, truth: Truth, outcome: Outcome, generator: Generator) -> Estimate:
    return estimators.overlap(given(outcome.draws.log_w), given(outcome.log_w_reverse))


def _sampler_estimate(
    target: Target, truth: Truth, outcome: Outcome, generator: Generator
) -> Estimate:
    return minus(given(outcome.draws.log_Z), truth)


def _below(target: Target, truth: Truth, outcome: Outcome, generator: Generator) -> Estimate:
    draws = per_path(outcome.draws)
    value, se, n = minus(estimators.elbo(given(draws.log_w), draws.group), truth)
    return Estimate(-value, se, n)


def _above(target: Target, truth: Truth, outcome: Outcome, generator: Generator) -> Estimate:
    return minus(estimators.eubo(given(outcome.log_w_reverse)), truth)


_WEIGHTS = frozenset({"log_Z", "log_w"})
_REVERSE = frozenset({"log_Z", "reverse"})

log_Z_err = Metric("log_Z_err", _WEIGHTS, "lower", "nats", "0", _forward)
"""log mean exp(log_w) - log Z over forward paths, the sampler's own"""

log_Z_rev_err = Metric("log_Z_rev_err", _REVERSE, "lower", "nats", "0", _reverse)
"""-log mean exp(-log_w) - log Z over reverse paths, from exact draws"""

# Beyond an error of 1 nat there is less than one path of information in the overlap.
log_Z_bar_err = Metric("log_Z_bar_err", _WEIGHTS | _REVERSE, "lower", "nats", "0", _bar, 1.0)
"""Bennett's acceptance ratio estimate from forward and reverse paths, minus log Z"""

overlap = Metric("overlap", frozenset({"log_w", "reverse"}), "higher", "1", "1", _overlap)
"""share of information that forward and reverse weights have in common; 0: none"""

log_Z_own_err = Metric(
    "log_Z_own_err", frozenset({"log_Z", "own_log_Z"}), "lower", "nats", "0", _sampler_estimate
)
"""the method's own estimate of log Z, minus log Z"""

elbo_gap = Metric("elbo_gap", _WEIGHTS, "lower", "nats", "0", _below)
"""log Z - mean log_w over forward paths: the lower bound's gap"""

eubo_gap = Metric("eubo_gap", _REVERSE, "lower", "nats", "0", _above)
"""mean log_w over reverse paths - log Z: the upper bound's gap"""
