"""Maximum mean discrepancy to exact draws (Gretton et al., JMLR 13, 723, 2012), squared."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from tiltbench.metric import Metric, Outcome
from tiltbench.metrics._pairs import against, two_sample
from tiltbench.samplers.weights import Estimate
from tiltbench.targets.target import Target, Truth


def _mmd(target: Target, truth: Truth, outcome: Outcome, generator: Generator) -> Estimate:
    """E k(X,X') + E k(Y,Y') - 2 E k(X,Y), k = exp(-|x-y|^2 / 2h^2), h the median distance of the
    first 1,000 exact draws."""
    x, y = against(target, truth, outcome, generator)
    width = torch.pdist(y[:1000]).median()

    def gaussian(distance: Tensor) -> Tensor:
        return torch.exp(-(distance / width).square() / 2)

    value, se, n = two_sample(gaussian, x, y, outcome.draws.group)
    return Estimate(-value, se, n)


mmd = Metric("mmd", frozenset({"sample"}), "lower", "1", "0", _mmd)
"""squared maximum mean discrepancy, Gaussian kernel of median width, unbiased"""
