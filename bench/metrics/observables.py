"""Named statistics known under the target, against their averages over the draws."""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import Generator

from tiltbench.estimators import average
from tiltbench.metric import Metric, Outcome, Unknown
from tiltbench.samplers.weights import Estimate
from tiltbench.targets.target import Observable, Target, Truth


def _averages(truth: Truth, outcome: Outcome) -> Iterator[tuple[Observable, Estimate]]:
    draws = outcome.draws
    if len(draws.x) == 0:
        raise Unknown("there are no draws")
    for observable in truth.observables.values():
        yield observable, average(observable.f(draws.x).double().cpu(), draws.group)


def _worst_z(target: Target, truth: Truth, outcome: Outcome, generator: Generator) -> Estimate:
    """max |E_hat f - E f| / s.  s is the larger of the error measured over groups and sd/sqrt(n),
    that of n exact draws: a set that misses a region has no measured spread there."""
    worst, n = 0.0, 0
    for known, (mean, se, groups) in _averages(truth, outcome):
        if groups < 2:
            raise Unknown("all draws belong to one group, so no error is known")
        least = known.sd / math.sqrt(len(outcome.draws.x))
        error = math.hypot(max(se, least), known.se)
        worst, n = max(worst, abs(mean - known.mean) / error), groups
    return Estimate(worst, math.nan, n)


def _worst_b2(target: Target, truth: Truth, outcome: Outcome, generator: Generator) -> Estimate:
    """max (E_hat f - E f)^2 / Var f, with the delta method's error."""
    worst = Estimate(-1.0, math.nan, 0)
    for known, (mean, se, n) in _averages(truth, outcome):
        bias = (mean - known.mean) / known.sd
        if not bias**2 <= worst.value:  # NaN too
            worst = Estimate(bias**2, 2 * abs(bias) * se / known.sd, n)
    return worst


obs_z = Metric("obs_z", frozenset({"observables"}), "lower", "1", "floor", _worst_z)
"""worst |E_hat f - E f| / standard error over the target's observables"""

obs_b2 = Metric("obs_b2", frozenset({"observables"}), "lower", "1", "floor", _worst_b2)
"""worst squared bias (E_hat f - E f)^2 / Var f over the target's observables"""
