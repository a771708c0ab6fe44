"""Simulation-based calibration: where the truth ranks among draws of its posterior.

With X ~ prior, Y | X from the model, and draws of the posterior given Y, the truth X and the draws
are exchangeable, so that the rank of f(X) is uniform for every f, of x and y both (Talts et al.,
arXiv 1804.06788; Modrak et al., arXiv 2211.02383).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Generator, Tensor

LEVEL = 0.05


def ranks(
    truth: Float[Tensor, "*f"], draws: Float[Tensor, " n *f"], generator: Generator
) -> Float[Tensor, "*f"]:
    """u = (b + (1 + e) V) / (n + 1), b draws below the truth, e equal to it, V uniform: uniform on
    [0, 1] where the n + 1 are exchangeable, ties or not, so that u lies in the central interval of
    probability p with probability p."""
    below, equal = (draws < truth).sum(0), (draws == truth).sum(0)
    v = torch.rand(truth.shape, generator=generator, device=generator.device, dtype=torch.float64)
    return (below + (1 + equal) * v) / (len(draws) + 1)


def uniformity(u: Float[ndarray, " n"]) -> float:
    """The exact two-sided p value of Kolmogorov and Smirnov that n ranks are uniform."""
    from scipy.stats import kstest

    return float(kstest(u, "uniform").pvalue)


def band(n: int, level: float = LEVEL) -> float:
    """How far the ECDF of n uniform ranks strays from the diagonal anywhere, but for a share
    `level` of the time: the same test as `uniformity`, for pictures."""
    from scipy.stats import kstwo

    return float(kstwo.isf(level, n))


def excess(u: Float[ndarray, " n"], at: Float[ndarray, " m"]) -> Float[ndarray, " m"]:
    """The ECDF of u less the diagonal, at the points `at`."""
    return (u[:, None] <= at).mean(0) - at
