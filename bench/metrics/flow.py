"""The law of a method's probability flow, whose density is known (samplers/flows).

It is the law of an ODE, which away from the optimum is not that of the draws that all other metrics
judge (docs/mathematics.md)."""

from __future__ import annotations

from torch import Generator, Tensor

from tiltbench import estimators
from tiltbench.metric import Metric, Outcome, Unknown
from tiltbench.metrics.log_Z import drop_untrusted_error, minus
from tiltbench.samplers.weights import Estimate
from tiltbench.targets.target import Target, Truth

NOISIEST = 0.05  # variance of log q by random directions, at which exp of it is 2.5 % off


def _nll(target: Target, truth: Truth, outcome: Outcome, generator: Generator) -> Estimate:
    return estimators.average(-outcome.probes["ode_log_q"])


def _kl(target: Target, truth: Truth, outcome: Outcome, generator: Generator) -> Estimate:
    return minus(estimators.average(outcome.probes["ode_log_w_exact"]), truth)


def _ess(target: Target, truth: Truth, outcome: Outcome, generator: Generator) -> Estimate:
    return estimators.ess_model(_weights(outcome))


def _log_Z(target: Target, truth: Truth, outcome: Outcome, generator: Generator) -> Estimate:
    log_w = _weights(outcome)
    estimate, k = estimators.jarzynski(log_w), estimators.k_hat(log_w)
    return minus(
        drop_untrusted_error(estimate, k, log_w, outcome.probes.get("ode_log_w_exact"), ""), truth
    )


def _weights(outcome: Outcome) -> Tensor:
    noise = float(outcome.probes["ode_noise"].mean())
    if noise > NOISIEST:
        raise Unknown(
            f"the divergence is estimated, and log q has a variance of {noise:.2g} by its "
            f"directions, above {NOISIEST}: its exponential is biased"
        )
    return outcome.probes["ode_log_w"]


def _evaluations(target: Target, truth: Truth, outcome: Outcome, generator: Generator) -> Estimate:
    return Estimate(float(outcome.probes["ode_evaluations"]), 0.0, 1)


nll = Metric("nll", frozenset({"probe.ode_log_q"}), "lower", "nats", "", _nll)
"""mean of -log q over exact draws of the target, q the law of the method's probability flow"""

ode_kl = Metric("ode_kl", frozenset({"log_Z", "probe.ode_log_w_exact"}), "lower", "nats", "0", _kl)
"""KL(p* | q), q the law of the method's probability flow"""

ode_ess = Metric("ode_ess", frozenset({"probe.ode_log_w"}), "higher", "1", "1", _ess)
"""(sum w)^2 / (n sum w^2), w = p*/q, over draws of the method's probability flow"""

ode_log_Z_err = Metric(
    "ode_log_Z_err", frozenset({"log_Z", "probe.ode_log_w"}), "lower", "nats", "0", _log_Z
)
"""log mean of Z p*/q over draws of the method's probability flow, minus log Z"""

ode_evaluations = Metric(
    "ode_evaluations", frozenset({"probe.ode_evaluations"}), "lower", "1", "", _evaluations
)
"""evaluations of the flow's velocity for its draws, at rtol 1e-6: reported, not ranked"""
