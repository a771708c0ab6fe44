"""Arithmetic of log-weights, always in float64: E[exp(log_w) f(x)] = Z E_p*[f]."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from tiltbench.targets.checks import Checks
from tiltbench.targets.constants import constant


class Estimate(NamedTuple):
    """A number with its standard error and the count of samples (or groups) it rests on."""

    value: float
    se: float
    n: int


class Unbounded(Estimate):
    """A number of which nobody can say how far it is off, and why: its error is NaN."""

    why: str

    def __new__(cls, value: float, n: int, why: str) -> Unbounded:
        estimate = super().__new__(cls, value, math.nan, n)
        estimate.why = why
        return estimate


def log_mean_exp(log_w: Float[Tensor, " n"]) -> float:
    """log (1/n) sum exp log_w; -inf where every weight is zero."""
    return float(torch.logsumexp(log_w.double(), 0)) - math.log(len(log_w))


def ess(log_w: Float[Tensor, " n"]) -> float:
    """(sum w)^2 / (n sum w^2), in [1/n, 1]; 0 where every weight is zero."""
    log_w = log_w.double()
    size = torch.where(log_w.max() == -torch.inf, 0.0, _log_size(log_w).exp())
    return float(size) / len(log_w)


def _log_size(log_w: Float[Tensor, "*b n"]) -> Float[Tensor, " *b"]:
    """log (sum w)^2 / sum w^2; NaN where every weight is zero."""
    return 2 * torch.logsumexp(log_w, -1) - torch.logsumexp(2 * log_w, -1)


def temper(log_w: Float[Tensor, " n"], least: float, most: float = 1.0) -> Float[Tensor, ""]:
    """The largest exponent beta in [0, most] with ess(beta log_w) >= least."""
    log_w = log_w.double()
    below = log_w - log_w.max()  # NaN, where every weight is zero, is not enough

    def enough(betas: Tensor) -> Tensor:
        w = (betas * below).exp()
        return w.sum(-1).square() >= least * len(log_w) * w.square().sum(-1)

    return largest(enough, most, log_w)


def largest(
    holds: Callable[[Float[Tensor, "k 1"]], Bool[Tensor, " k"]], most: float, like: Tensor
) -> Float[Tensor, ""]:
    """The largest beta in [0, most] up to which `holds` is true, by bisection, float64.

    On the device of `like`, many halvings at once: the host waits for none of them."""
    low = torch.zeros((), dtype=torch.float64, device=like.device)
    high = torch.full_like(low, most)
    grid = constant([i / 2**AT_ONCE for i in range(2**AT_ONCE + 1)], low)
    for _ in range(ROUNDS):
        inner = torch.lerp(low, high, grid)
        below = holds(inner[1:, None]).cumprod(0).sum()[None]
        low = inner.gather(0, below)[0]
        high = inner.gather(0, (below + 1).clamp(max=2**AT_ONCE))[0]
    return low


AT_ONCE, ROUNDS = 5, 12  # halvings at once: 60 in all


def resample(
    log_w: Float[Tensor, " m"], n: int, generator: Generator, checks: Checks | None = None
) -> Int[Tensor, " n"]:
    """n indices by systematic resampling: each w_i is drawn floor or ceil of n w_i / sum w times.

    Raises ValueError where every weight is zero."""
    share = torch.softmax(log_w.double(), 0)
    (checks or Checks()).never(~share.isfinite().all(), _nothing)
    start = torch.rand(1, generator=generator, device=generator.device, dtype=torch.float64)
    points = (torch.arange(n, device=share.device, dtype=torch.float64) + start) / n
    return torch.searchsorted(share.cumsum(0), points).clamp_(max=len(share) - 1)


def _nothing() -> ValueError:
    return ValueError("no draw has a positive weight, so there is nothing to resample from")


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
