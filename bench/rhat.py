"""R-hat, whether chains have forgotten where they started, and their effective sizes
(arviz-stats, on arrays of chains)."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

Chains = Float[Tensor, "chains states"]


def rank_rhat(chains: Chains) -> float:
    """Rank-normalised split R-hat, the larger of bulk and folded (Vehtari, Gelman, Simpson,
    Carpenter and Buerkner, Bayesian Analysis 16, 667, 2021): sqrt of (N-1)/N + B/(N W) for the
    halves of the chains, of N states each, after ranks have become normal scores.

    1 for independent draws, inf for chains that never move, each at a place of its own; nan where
    nothing varies at all, and for one chain or fewer than 4 states."""
    return _rhat(chains, "rank")


def split_rhat(values: Float[Tensor, " n"], group: Int[Tensor, " n"]) -> float:
    """sqrt(((n - 1) W + B) / (n W)) of half-chains of n values: W their mean variance, B / n the
    variance of their means (Gelman et al., Bayesian Data Analysis, 11.4).

    About sqrt(1 + m / ess) of m half-chains (Vats and Knudson, arXiv 1812.09384): the smaller, the
    more often a chain has forgotten its start.  Of chains of several lengths the first and the last
    halves of the shortest's length are taken.  inf where none moves; nan with fewer than 4 values a
    chain, 8 of a single one, or a value that is not finite."""
    chains = [values[group == g] for g in group.unique()]
    n = min(len(chain) for chain in chains) // 2
    if n < 2 or not bool(values.isfinite().all()):
        return math.nan
    ends = [(c[:n], c[len(c) - n :]) for c in chains]
    if len(ends) == 1:
        return _rhat(torch.stack(ends[0]), "identity")
    return _rhat(torch.stack([torch.cat(both) for both in ends]), "split")


def bulk_ess(chains: Chains) -> float:
    """The bulk effective sample size of all chains together, in states: that of the rank-normalised
    halves of the chains (Vehtari et al. 2021).  nan where nothing varies, and for fewer than 4
    states."""
    from arviz_stats.base import array_stats

    array = chains.double().cpu().numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(array_stats.ess(array, method="bulk"))


def _rhat(chains: Chains, method: str) -> float:
    from arviz_stats.base import array_stats  # 0.3 s, which other commands need not pay

    array = chains.double().cpu().numpy()
    with np.errstate(divide="ignore", invalid="ignore"):  # chains that never move
        return float(array_stats.rhat(array, method=method))
