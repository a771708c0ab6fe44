"""What the losses for a control regress on, at any time of a base, in control units (math.md 3, 7).

The targets are those of continuous time, sigma = sqrt(2 eta), on a grid fine enough to be read as
such; tests hold them against what the losses themselves regress on.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tiltbench.samplers.losses._matching import share_of_signal
from tiltbench.targets.bases.mixture_flow import MixtureFlow
from tiltbench.targets.bases.noising import Known, Noising, Step, pick
from tiltbench.targets.bases.optimal import NoisedScore
from tiltbench.targets.bases.schedules import Schedule
from tiltbench.targets.problem import Problem, checked
from tiltbench.targets.target import Density


def interpolated(density: Density, schedule: Schedule, steps: int) -> Problem:
    """The problem of a density on the interpolant of N(0, scale^2 I), memoryless noise."""
    zero = (0.0,) * density.dim
    base = MixtureFlow((1.0,), (zero,), (density.scale**2,), schedule, steps=steps)
    return posed(density, base)


def posed(density: Density, base: Known) -> Problem:
    """The problem of a density on a base of any spread."""
    sound = checked(density.log_rho, f"log rho of {density.name}", density.dim)
    return Problem(density.dim, base, lambda x: sound(x) - base.log_end(x))


def optimum(
    base: Noising, noised_score: NoisedScore, k: Step, x: Float[Tensor, "*b d"]
) -> Float[Tensor, "*b d"]:
    """u*(x, t_k) = sigma (grad log p*_t - grad log p_t), 0 < k < K (math.md 2)."""
    signal, noise = (
        v[..., 0] if isinstance(v, Tensor) else torch.tensor(v, dtype=x.dtype, device=x.device)
        for v in (pick(base.signals, k, x), pick(base.noises, k, x))
    )
    return pick(sigmas(base), k, x) * (noised_score(x, signal, noise) - base.score(x, k))


def sigmas(base: Noising) -> list[float]:
    """sigma(t_k) = sqrt(2 eta), eta = alpha'/alpha beta^2 - (beta^2)'/2, for k = 0 ... K; inf where
    alpha = 0."""
    values = []
    for (rate, power), alpha, beta in zip(base.rates, base.signals, base.noises, strict=True):
        eta = rate / alpha * beta**2 - power / 2 if alpha else math.inf
        values.append(math.sqrt(2 * max(eta, 0.0)))
    return values


def targets(
    base: Noising,
    k: Int[Tensor, " *b"] | int,
    x: Float[Tensor, "*b d"],
    x1: Float[Tensor, "*b d"],
    slope: Float[Tensor, "*b d"],
) -> dict[str, Float[Tensor, "*b d"]]:
    """Regression targets of u(x, t_k), 0 < k < K, given the end point x1 and slope = grad r(x1).

    CSM (alpha x1 - x) / beta^2 - s_t, TSM (s_1(x1) + slope) / alpha - s_t, NSM the blend
    (1 - w) CSM + w TSM with w = alpha^2 s^2 / D, and AS c_t slope with c_t = alpha s^2 / D, which
    is adjoint sampling's on a Gaussian base only: all times sigma(t)."""
    alpha, beta = pick(base.signals, k, x), pick(base.noises, k, x)
    sigma, s = pick(sigmas(base), k, x), base.spread
    weight = pick([*share_of_signal(base), 1.0], k, x)
    score = base.score(x, k)
    csm = (alpha * x1 - x) / beta**2 - score
    tsm = (base.score(x1, base.steps) + slope) / alpha - score
    pull = alpha * s**2 / (alpha**2 * s**2 + beta**2)
    return {
        "CSM": sigma * csm,
        "TSM": sigma * tsm,
        "NSM": sigma * ((1 - weight) * csm + weight * tsm),
        "AS": sigma * pull * slope,
    }
