"""Feynman-Kac steering (arXiv 2501.06848): the base's own paths, resampled by what they promise.

With r^_k = r(E_base[X_1 | x_k]) at the boundaries k = `every`, 2 `every`, ... < K, the potentials

    difference   G_k = exp(r^_k - r^_{k-1})
    max          G_k = exp(max_{j <= k} r^_j)
    sum          G_k = exp(sum_{j <= k} r^_j)

guide the population, and the last one, G_K = exp(r(x_K)) / prod_{k < K} G_k, makes the product
exp r(x_K): weighted draws are of p* for each of them, and Z is unbiased.  What differs is the
variance.  Without weights the slots have the law of the population after its last resampling, which
is p* for none.  A draw costs a value at each boundary and one at the end.
"""

from __future__ import annotations

from abc import abstractmethod
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
from tiltbench.targets.problem import Problem


@dataclass(frozen=True)
class _FeynmanKac(Population):
    @property
    @abstractmethod
    def potential(self) -> Potential: ...

    def leader(self, problem: Problem) -> Leader:
        base = denoising(problem)

        def lead(x: Float[Tensor, "n d"], k: int) -> Lead:
            if not k or k % self.every:
                return Lead(None, None)
            return Lead(problem.reward(foreseen(base, x, k)), None)

        return lead


@dataclass(frozen=True)
class FeynmanKacDifference(_FeynmanKac):
    """Feynman-Kac steering by how much the reward of the denoised estimate has risen (arXiv
    2501.06848), with exact weights: h_k = r^_k."""

    name: ClassVar[str] = "feynman_kac_difference"

    @property
    def potential(self) -> Potential:
        return Difference()


@dataclass(frozen=True)
class FeynmanKacMax(_FeynmanKac):
    """Feynman-Kac steering by the largest reward of a denoised estimate so far (arXiv 2501.06848),
    with exact weights: h_k = sum_{j <= k} max_{i <= j} r^_i."""

    name: ClassVar[str] = "feynman_kac_max"

    @property
    def potential(self) -> Potential:
        return Max()


@dataclass(frozen=True)
class FeynmanKacSum(_FeynmanKac):
    """Feynman-Kac steering by the sum of the rewards of denoised estimates so far (arXiv
    2501.06848), with exact weights: h_k = sum_{j <= k} sum_{i <= j} r^_i."""

    name: ClassVar[str] = "feynman_kac_sum"

    @property
    def potential(self) -> Potential:
        return Sum()


class Difference(Potential):
    """The last reward: all earlier ones cancel."""

    def begin(self, like: Float[Tensor, " n"]) -> Float[Tensor, "1 n"]:
        return torch.zeros_like(like)[None]

    def add(self, memory: Float[Tensor, "1 n"], r: Float[Tensor, " n"]) -> Float[Tensor, "1 n"]:
        return r[None]

    def height(self, memory: Float[Tensor, "1 n"]) -> Float[Tensor, " n"]:
        return memory[0]


class Max(Potential):
    """The largest reward so far, and the sum of what it was at the boundaries."""

    def begin(self, like: Float[Tensor, " n"]) -> Float[Tensor, "2 n"]:
        return torch.stack([torch.full_like(like, -torch.inf), torch.zeros_like(like)])

    def add(self, memory: Float[Tensor, "2 n"], r: Float[Tensor, " n"]) -> Float[Tensor, "2 n"]:
        most = torch.maximum(memory[0], r)
        return torch.stack([most, memory[1] + most])

    def height(self, memory: Float[Tensor, "2 n"]) -> Float[Tensor, " n"]:
        return memory[1]


class Sum(Potential):
    """The sum of the rewards so far, and the sum of what it was at the boundaries."""

    def begin(self, like: Float[Tensor, " n"]) -> Float[Tensor, "2 n"]:
        return torch.zeros_like(like).expand(2, -1)

    def add(self, memory: Float[Tensor, "2 n"], r: Float[Tensor, " n"]) -> Float[Tensor, "2 n"]:
        total = memory[0] + r
        return torch.stack([total, memory[1] + total])

    def height(self, memory: Float[Tensor, "2 n"]) -> Float[Tensor, " n"]:
        return memory[1]
