"""Annealed importance sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from tiltbench.samplers.classical import _anneal
from tiltbench.samplers.classical._anneal import Annealed
from tiltbench.samplers.classical._fields import COUNT, INSIDE, RATIO, require
from tiltbench.samplers.sampler import Draws, Sampler
from tiltbench.samplers.search import Search, Uniform
from tiltbench.targets.bases.linear import Linear
from tiltbench.targets.bases.references import Brownian
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem


@dataclass(frozen=True)
class Ais(Sampler[Annealed]):
    """AIS (Neal, physics/9803008): base -> p* along p_base exp(beta r), one MALA move at each beta.

    A pilot population spends about `warm_up` of the budget on finding temperatures at equal
    `ess` of the next weights and a step size for each, and is thrown away: on the frozen schedule
    E[exp(log_w) f(x)] = Z E_p*[f] is exact.  The rest buys `particles_per_beta` particles for every
    temperature, in `islands` batches; one step is one batch.  The particles are independent given
    the schedule, so every draw is its own group; drawing is free.
    """

    name: ClassVar[str] = "ais"
    reference: Linear = Brownian()
    particles_per_beta: float = 10.0
    islands: int = 8
    ess: float = 0.9
    warm_up: float = 0.15

    def __post_init__(self) -> None:
        require(self, particles_per_beta=RATIO, islands=COUNT, ess=INSIDE, warm_up=INSIDE)

    def init(self, problem: Problem, budget: Cost, generator: Generator) -> Annealed:
        return _anneal.begin(problem, budget)

    def step(self, problem: Problem, state: Annealed, generator: Generator) -> Annealed:
        """The pilot first, then one island a step."""
        if state.islands:
            never = torch.zeros_like(state.schedule.betas)
            return _anneal.with_island(problem, state, never, generator)
        ratio, islands = self.particles_per_beta, self.islands
        return _anneal.plan(problem, state, self.warm_up, self.ess, ratio, islands, generator)

    def done(self, state: Annealed) -> bool:
        return state.complete

    def draw(self, problem: Problem, state: Annealed, n: int, generator: Generator) -> Draws:
        draws = _anneal.pick(problem, state, n, generator)
        if not state.x:
            return draws
        log_Z = _anneal.log_mean_weight(torch.cat(state.log_w))
        return draws._replace(group=None, log_Z=log_Z)

    def search(self) -> Search:
        return {"ess": Uniform(0.8, 0.98), "warm_up": Uniform(0.05, 0.3)}

    def tensors(self, state: Annealed) -> dict[str, Tensor]:
        return _anneal.tensors(state)
