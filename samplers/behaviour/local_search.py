"""Local search: Langevin chains that start from replayed points, and find others nearby.

The Metropolis-adjusted Langevin algorithm, one move `x' ~ N(x + h^2/2 grad log p*, h^2 I)`, leaves
p* invariant: points that the control has found become points of the modes nearest to them (arXiv
2402.05098).  Its moves are paid for, a value and a gradient each.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Generator, Tensor

from tiltbench.samplers.classical._fields import COUNT, INSIDE, require
from tiltbench.samplers.classical._leapfrog import (
    DTYPE,
    Points,
    adapted,
    evaluate,
    move,
    unknown,
)
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem


class Walk(NamedTuple):
    """Chains of a local search, on the way."""

    at: Points  # (chains, D), float64
    log_size: Tensor  # () log h
    moves: int  # of a chain so far, in all searches


class LocalSearch(ABC):
    """Where replayed points are looked for; a frozen dataclass, `name` registers it."""

    name: ClassVar[str]

    @property
    @abstractmethod
    def searches(self) -> bool:
        """Whether there is one."""

    @abstractmethod
    def begin(self, chains: int, dim: int, device: torch.device) -> Walk:
        """Chains that have not started."""

    @abstractmethod
    def advance(
        self,
        problem: Problem,
        walk: Walk,
        starts: Callable[[], Tensor],
        iteration: int,
        generator: Generator,
    ) -> tuple[Walk, list[Points]]:
        """What is done in an iteration, 0 being the first that has a buffer to start from.

        `starts` are fresh points (chains, D) of the buffer.  Also the points visited."""

    @abstractmethod
    def price(self, chains: int, iteration: int) -> Cost:
        """What `advance` pays."""


@dataclass(frozen=True)
class NoSearch(LocalSearch):
    """None."""

    name: ClassVar[str] = "NoSearch"

    @property
    def searches(self) -> bool:
        return False

    def begin(self, chains: int, dim: int, device: torch.device) -> Walk:
        raise TypeError("there is no search to begin")

    def advance(
        self,
        problem: Problem,
        walk: Walk,
        starts: Callable[[], Tensor],
        iteration: int,
        generator: Generator,
    ) -> tuple[Walk, list[Points]]:
        return walk, []

    def price(self, chains: int, iteration: int) -> Cost:
        return Cost()


@dataclass(frozen=True)
class Langevin(LocalSearch):
    """MALA chains, as many as there are paths in a batch, started anew from the buffer.

    A search is `steps` moves of every chain; those after the first `burn_in` are visits.  They are
    spread over the `every` iterations from one search to the next, so that iterations cost alike: a
    burst would be as dear as a hundred of them, which no share of a budget is fine enough for.
    A start costs a gradient, and a value with it.  The step size follows the acceptance rate from
    one search to the next.
    """

    name: ClassVar[str] = "Langevin"
    every: int = 100  # iterations from one search to the next
    steps: int = 200  # moves of a chain in a search
    burn_in: int = 100  # the first of them, whose points are not kept
    start: float = 1e-3  # the first step size, h^2 / 2: the drift's factor of grad log p*
    acceptance: float = 0.574  # wanted (Roberts and Rosenthal 1998)

    def __post_init__(self) -> None:
        require(self, every=COUNT, steps=COUNT, acceptance=INSIDE)
        if not 0 <= self.burn_in < self.steps:
            raise ValueError(
                f"burn_in is {self.burn_in}; it must be at least 0 and below steps, {self.steps}"
            )
        if not 0 < self.start < math.inf:
            raise ValueError(f"start is {self.start}; it must be positive and finite")

    @property
    def searches(self) -> bool:
        return True

    def begin(self, chains: int, dim: int, device: torch.device) -> Walk:
        size = torch.tensor(math.log(2 * self.start) / 2, dtype=DTYPE, device=device)
        return Walk(unknown(torch.zeros(chains, dim, dtype=DTYPE, device=device)), size, 0)

    def advance(
        self,
        problem: Problem,
        walk: Walk,
        starts: Callable[[], Tensor],
        iteration: int,
        generator: Generator,
    ) -> tuple[Walk, list[Points]]:
        at, log_size, moves = walk
        visited = []
        if iteration % self.every == 0:
            at = evaluate(problem, starts().to(DTYPE))
        for number in self._moves(iteration):
            at, chance = move(problem, at, 1.0, log_size.exp(), 1, generator)
            log_size, moves = adapted(log_size, chance, self.acceptance, moves), moves + 1
            if number >= self.burn_in:
                visited.append(at)
        return Walk(at, log_size, moves), visited

    def _moves(self, iteration: int) -> range:
        """Which moves of a search an iteration makes."""
        here = iteration % self.every
        return range(here * self.steps // self.every, (here + 1) * self.steps // self.every)

    def price(self, chains: int, iteration: int) -> Cost:
        points = chains * (len(self._moves(iteration)) + (iteration % self.every == 0))
        return Cost(points, points)
