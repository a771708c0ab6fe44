"""How far the draws, and the tilt, are from the base model: two readings of the path weights."""

from __future__ import annotations

import torch
from torch import Generator

from tiltbench import estimators
from tiltbench.metric import Metric, Outcome, Unknown
from tiltbench.metrics._given import given, per_path, rewards
from tiltbench.samplers.weights import Estimate, log_mean_exp
from tiltbench.targets.target import Target, Truth


def _path(target: Target, truth: Truth, outcome: Outcome, generator: Generator) -> Estimate:
    """E[r - log_w] = E log dP^u/dP^base: at least the KL of the draws' own law to the base, the
    more above it the more a path says beyond its end."""
    draws = per_path(outcome.draws)
    log_ratio = rewards(target, draws.x.double().cpu()) - given(draws.log_w).cpu()
    if not bool(log_ratio.isfinite().all()):
        raise Unknown("a weight that must be positive is zero")
    return estimators.average(log_ratio, draws.group)


def _weighted(target: Target, truth: Truth, outcome: Outcome, generator: Generator) -> Estimate:
    """KL(p* | p_base) = E_p*[r] - log Z from sum w r / sum w - log mean w.

    Its error is the delta method's, sd of (w / mean w) (r - E_p*[r] - 1) over paths, by groups.
    Where the ess is that of a few paths both are too small: they know nothing of what none reached.
    """
    draws = outcome.draws
    log_w = given(draws.log_w).double().cpu()
    if not bool((log_w > -torch.inf).any()):
        raise Unknown("every weight is zero")
    w = (log_w - log_mean_exp(log_w)).exp()
    r = rewards(target, draws.x.double().cpu())
    r = torch.where(w > 0, r, torch.zeros_like(r))
    mean = float((w * r).mean())
    _, se, n = estimators.average(w * (r - mean - 1), draws.group)
    return Estimate(mean - log_mean_exp(log_w), se, n)


path_kl = Metric("path_kl", frozenset({"tilt", "log_w"}), "lower", "nats", "", _path)
"""KL of the controlled paths to the base's, which bounds that of the draws' law to the base"""

tilt_kl = Metric("tilt_kl", frozenset({"tilt", "log_w"}), "lower", "nats", "", _weighted)
"""KL(p* | p_base) as the weighted draws estimate it"""
