"""Total variation between the target's mode weights and those of the draws."""

from __future__ import annotations

import math

import torch
from torch import Generator

from tiltbench.estimators import jackknife
from tiltbench.metric import Metric, Outcome, Unknown
from tiltbench.metrics._given import given
from tiltbench.samplers.weights import Estimate
from tiltbench.targets.target import Target, Truth


def _mode_tv(target: Target, truth: Truth, outcome: Outcome, generator: Generator) -> Estimate:
    """1/2 sum_m |share_m - weight_m|, in [0, 1]; the error deletes one group at a time."""
    x, group = outcome.draws.x, outcome.draws.group
    if len(x) == 0:
        raise Unknown("there are no draws")
    modes = given(truth.modes)
    weight = modes.weight.double().cpu()
    mode = modes.assign(x).long().cpu()
    index = torch.arange(len(x)) if group is None else torch.unique(group, return_inverse=True)[1]
    groups = int(index.max()) + 1
    cells = len(weight)
    count = torch.bincount(index * cells + mode, minlength=groups * cells)
    count = count.reshape(groups, cells).double()
    value = float((count.sum(0) / len(x) - weight).abs().sum() / 2)
    if groups < 2:
        return Estimate(value, math.nan, groups)
    rest = count.sum(0) - count
    without = (rest / rest.sum(1, keepdim=True) - weight).abs().sum(1) / 2
    return Estimate(value, jackknife(value, without), groups)


mode_tv = Metric("mode_tv", frozenset({"modes"}), "lower", "1", "floor", _mode_tv)
"""total variation between the target's mode weights and the shares of the draws"""
