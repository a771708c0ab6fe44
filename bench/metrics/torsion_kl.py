"""Relative entropy between histograms of a torsion angle."""

from __future__ import annotations

import math
from functools import partial

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.estimators import jackknife
from tiltbench.metric import Metric, Outcome
from tiltbench.metrics._pairs import both
from tiltbench.metrics._torsions import angle, bin_of
from tiltbench.samplers.weights import Estimate
from tiltbench.targets.target import Target, Truth

BINS = 200
EPSILON = 1e-4  # added to the share of every bin, or an empty one would make it infinite


def _kl(
    name: str, target: Target, truth: Truth, outcome: Outcome, generator: Generator
) -> Estimate:
    """KL(exact || draws) = sum_k p_k log(p_k / q_k) in nats over 200 bins of (-pi, pi], with

        p_k = (s_k + 1e-4) / (1 + 200 * 1e-4),  s_k the share of the exact draws in bin k,

    and q_k the same of the draws.  Two sets of exact draws differ, too: the floor says by how much.
    Printed values of others have other bins, epsilons and numbers of draws.  The error deletes one
    group at a time; that of the exact draws is in the floor."""
    x, y = both(truth, outcome, generator)
    group = outcome.draws.group
    index = torch.arange(len(x)) if group is None else torch.unique(group, return_inverse=True)[1]
    groups = int(index.max()) + 1
    cell = bin_of(angle(target, name, x), BINS)
    exact = torch.bincount(bin_of(angle(target, name, y), BINS), minlength=BINS).double()
    count = torch.zeros(groups, BINS, dtype=torch.float64)
    count.index_put_((index, cell), torch.ones(len(x), dtype=torch.float64), accumulate=True)
    total = count.sum(0)
    value = float(relative_entropy(exact, total))
    if groups < 2:
        return Estimate(value, math.nan, groups)
    return Estimate(value, jackknife(value, relative_entropy(exact, total - count)), groups)


def relative_entropy(exact: Float[Tensor, " k"], counts: Float[Tensor, "*b k"]) -> Tensor:
    """(*b): of the counts of exact draws and of draws in the same bins."""
    p, q = (
        (c / c.sum(-1, keepdim=True) + EPSILON) / (1 + c.shape[-1] * EPSILON)
        for c in (exact, counts)
    )
    return (p * (p / q).log()).sum(-1)


_NEEDS = frozenset({"sample", "torsions"})

phi_kl = Metric("phi_kl", _NEEDS, "lower", "nats", "floor", partial(_kl, "phi"))
"""relative entropy of the histogram of phi, 200 bins, from that of exact draws to that of draws"""

psi_kl = Metric("psi_kl", _NEEDS, "lower", "nats", "floor", partial(_kl, "psi"))
"""relative entropy of the histogram of psi, 200 bins, from that of exact draws to that of draws"""
