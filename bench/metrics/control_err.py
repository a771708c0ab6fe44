"""E int |u - u*|^2 dt under P*, where the optimal control is closed form (protocol.md 3)."""

from __future__ import annotations

from torch import Generator

from tiltbench import estimators
from tiltbench.metric import Metric, Outcome
from tiltbench.samplers.weights import Estimate
from tiltbench.targets.target import Target, Truth


def fn(target: Target, truth: Truth, outcome: Outcome, generator: Generator) -> Estimate:
    """Twice the discrete KL(P*|P^u) in nats, up to the time step; paths start from exact draws."""
    return estimators.average(outcome.probes["control_gap"])


control_err = Metric("control_err", frozenset({"probe.control_gap"}), "lower", "nats", "0", fn)
