"""Twisted SMC: a population led by the gradient of the reward of the denoised estimate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from tiltbench.samplers.steering._population import (
    Lead,
    Leader,
    Population,
    Potential,
    denoising,
    foreseen,
)
from tiltbench.samplers.steering.feynman_kac import Difference
from tiltbench.targets.problem import Problem, graded


@dataclass(frozen=True)
class TwistedSmc(Population):
    """The twisted diffusion sampler (TDS, arXiv 2306.17775): steps N(m_k(x) + std_k^2 grad r^_k(x),
    std_k^2 I), weighed and resampled by the twisting function exp r^_k, r^_k(x) =
    r(E_base[X_1 | X_{t_k} = x]).

    Exact weights, as for a particle filter: what the gradient does wrong costs variance and no
    bias.  For a linear reward on a Gaussian base without drift every weight is Z.  A draw costs a
    gradient and a value a step, and a value at the end."""

    name: ClassVar[str] = "twisted_smc"
    every: int = 1

    @property
    def potential(self) -> Potential:
        return Difference()

    def leader(self, problem: Problem) -> Leader:
        base, reward = denoising(problem), graded(problem.reward, problem.checks)

        def lead(x: Float[Tensor, "n d"], k: int) -> Lead:
            with torch.enable_grad():
                y = x.detach().requires_grad_()
                clean = 1 * foreseen(base, y, k)
                r, slope = reward.value_and_grad(clean.detach())
                (pull,) = torch.autograd.grad(clean, y, slope)
            dt = base.times[k + 1] - base.times[k]
            return Lead(r, base.base(x, k).std / math.sqrt(dt) * base.project(pull))

        return lead
