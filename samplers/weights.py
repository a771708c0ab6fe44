"""Arithmetic of log-weights, always in float64: E[exp(log_w) f(x)] = Z E_p*[f]."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor


class Estimate(NamedTuple):
    """A number with its standard error and the count of samples (or groups) it rests on."""

    value: float
    se: float
    n: int


def log_mean_exp(log_w: Float[Tensor, " n"]) -> float:
    """log (1/n) sum exp log_w; -inf where every weight is zero."""
    return float(torch.logsumexp(log_w.double(), 0)) - math.log(len(log_w))


def ess(log_w: Float[Tensor, " n"]) -> float:
    """(sum w)^2 / (n sum w^2), in [1/n, 1]; 0 where every weight is zero."""
    log_w = log_w.double()
    if not bool((log_w > -torch.inf).any()):
        return 0.0
    twice = 2 * torch.logsumexp(log_w, 0) - torch.logsumexp(2 * log_w, 0)
    return math.exp(float(twice)) / len(log_w)


def temper(log_w: Float[Tensor, " n"], least: float, most: float = 1.0) -> float:
    """The largest exponent beta in [0, most] with ess(beta log_w) >= least, by bisection."""
    if ess(most * log_w) >= least:
        return most
    low, high = 0.0, most
    for _ in range(60):
        middle = (low + high) / 2
        if ess(middle * log_w) >= least:
            low = middle
        else:
            high = middle
    return low


def resample(log_w: Float[Tensor, " m"], n: int, generator: Generator) -> Int[Tensor, " n"]:
    """n indices by systematic resampling: each w_i is drawn floor or ceil of n w_i / sum w times.

    Raises ValueError where every weight is zero."""
    share = torch.softmax(log_w.double(), 0)
    if not bool(share.isfinite().all()):
        raise ValueError("no draw has a positive weight, so there is nothing to resample from")
    start = torch.rand(1, generator=generator, device=generator.device, dtype=torch.float64)
    points = (torch.arange(n, device=share.device, dtype=torch.float64) + start) / n
    return torch.searchsorted(share.cumsum(0), points).clamp_(max=len(share) - 1)


def expectation(log_w: Float[Tensor, " n"], values: Float[Tensor, " n"]) -> Estimate:
    """sum w f / sum w, with the delta method's error sqrt(n/(n-1) sum w^2 (f - mean)^2) / sum w.

    With the weights of an escort at t_k it is an average under pi_t (math.md 5.2).  nan where every
    weight is zero."""
    share = torch.softmax(log_w.double(), 0)
    values, n = values.double(), len(values)
    mean = float((share * values).sum())
    spread = float((share * (values - mean)).square().sum())
    se = math.sqrt(n / (n - 1) * spread) if n > 1 else math.nan
    return Estimate(mean, se, n)
