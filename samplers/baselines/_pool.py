"""Draws of the base with their rewards: what baselines without a control choose from."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.targets.bases.process import Uncontrolled, simulate
from tiltbench.targets.problem import Problem

CHUNK = 2048  # paths simulated `at_once`: bounds the memory


class Pool(NamedTuple):
    """Points bought so far, in the order of purchase."""

    x: tuple[Tensor, ...]  # (n, D) each
    r: tuple[Tensor, ...]  # (n,) each, or the log-weights
    left: int  # values of the reward still to be had

    @property
    def size(self) -> int:
        return sum(len(x) for x in self.x)


@torch.no_grad()
def bought(
    problem: Problem, n: int, generator: Generator
) -> tuple[Float[Tensor, "n d"], Float[Tensor, " n"]]:
    """n ends of the base's own chain and their rewards, for a value each."""
    path = simulate(problem.base, Uncontrolled(), (n, problem.dim), generator)
    return path.x[-1], problem.reward(path.x[-1])
