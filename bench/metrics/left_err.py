"""The weight of the left-handed conformations, by which papers on alanine dipeptide judge."""

from __future__ import annotations

import math

from torch import Generator

from tiltbench.estimators import average
from tiltbench.metric import Metric, Outcome, Unknown
from tiltbench.samplers.weights import Estimate
from tiltbench.targets.target import Target, Truth

LEFT = "left"  # the target's statistic: 1 in the basin phi > 0, 0 elsewhere


def _left_err(target: Target, truth: Truth, outcome: Outcome, generator: Generator) -> Estimate:
    """|w / w' - 1|, w the share of the draws in the basin phi > 0 and w' its weight, which long
    chains know better than any set of draws: 1 where the basin is lost.

    The error has that of w by groups and that of w'."""
    if LEFT not in truth.observables:
        raise Unknown(f"the weight of {LEFT}-handed conformations is not known")
    known = truth.observables[LEFT]
    if not known.mean > 0:
        raise Unknown("no exact draw is left-handed")
    if not len(outcome.draws.x):
        raise Unknown("there are no draws")
    share = average(known.f(outcome.draws.x).double().cpu(), outcome.draws.group)
    ratio = share.value / known.mean
    error = math.hypot(share.se, ratio * known.se) / known.mean
    return Estimate(abs(ratio - 1), error, share.n)


left_err = Metric(
    "left_err", frozenset({"observables", "torsions"}), "lower", "1", "floor", _left_err
)
"""relative error of the weight of the basin phi > 0"""
