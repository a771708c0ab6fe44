"""Tilts p_base exp(s f) of one statistic f, for any strength s: what fine-tuning is to reach."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tiltbench.estimators import average
from tiltbench.samplers.weights import Estimate, ess, log_mean_exp

STRENGTHS = torch.linspace(0, 30, 601, dtype=torch.float64)  # tried for the least KL


class Exact(NamedTuple):
    """The tilt of one strength, by self-normalised weights of draws of the base."""

    mean: Estimate  # E* f
    kl: Estimate  # KL(p* | p_base) = s E* f - log Z, nats
    log_Z: float
    ess: float  # of the draws, a share


def exact(f: Float[Tensor, " n"], strength: float) -> Exact:
    """From f at n draws of p_base; errors by the delta method."""
    log_w = strength * f.double()
    log_Z = log_mean_exp(log_w)
    w = (log_w - log_Z).exp()
    mean = float((w * f).mean())
    of_mean, of_kl = average(w * (f - mean)), average(w * (log_w - strength * mean - 1))
    return Exact(
        Estimate(mean, of_mean.se, of_mean.n),
        Estimate(strength * mean - log_Z, of_kl.se, of_kl.n),
        log_Z,
        ess(log_w),
    )


class Least(NamedTuple):
    kl: float  # nats
    strength: float  # of the tilt that has it: the slope of kl in the mean


def ladder(f: Float[Tensor, " n"]) -> Float[Tensor, " 601"]:
    """log E_base exp(s f) at STRENGTHS, from f at n draws of p_base."""
    rows = [(s[:, None] * f.double()).logsumexp(1) for s in STRENGTHS.split(8)]
    return torch.cat(rows) - math.log(len(f))


def least_kl(log_Z: Float[Tensor, " 601"], mean: float) -> Least:
    """The least KL(q | p_base) of any law q with E_q f = mean, log_Z the `ladder` of f:
    max over s of s mean - log Z_s (Donsker and Varadhan).

    It is that of the tilt with this mean.  Any s gives a lower bound, so a maximum over STRENGTHS
    alone errs on the safe side."""
    bound = STRENGTHS * mean - log_Z
    best = int(bound.argmax())
    return Least(float(bound[best]), float(STRENGTHS[best]))
