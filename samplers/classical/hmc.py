"""Hamiltonian Monte Carlo in many chains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from tiltbench.samplers.classical import _chains
from tiltbench.samplers.classical._chains import Chains
from tiltbench.samplers.classical._fields import COUNT, INSIDE, SHARE, require
from tiltbench.samplers.sampler import Draws, Sampler
from tiltbench.samplers.search import LogUniform, Search, Uniform
from tiltbench.targets.bases.linear import Linear
from tiltbench.targets.bases.references import Brownian
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem


@dataclass(frozen=True)
class Hmc(Sampler[Chains]):
    """HMC with unit mass (Duane et al. 1987; Neal, arXiv 1206.1901).

    As `mala`, with trajectories of several leapfrog steps: their number is drawn for every move,
    uniformly from 1 to 2 leaps - 1, so that no period of the target is hit for ever.  A step moves
    every chain once, for one value and one gradient a leap.  Drawing is free; there are no weights.
    """

    name: ClassVar[str] = "hmc"
    reference: Linear = Brownian()
    chains: int = 128
    leaps: int = 5
    acceptance: float = 0.8
    warm_up: float = 0.3
    keep: int = 20_000

    def __post_init__(self) -> None:
        require(self, chains=COUNT, leaps=COUNT, acceptance=INSIDE, warm_up=SHARE, keep=COUNT)

    def init(self, problem: Problem, budget: Cost, generator: Generator) -> Chains:
        return _chains.begin(
            problem, budget, generator, self.chains, self.leaps, self.warm_up, self.keep
        )

    def step(self, problem: Problem, state: Chains, generator: Generator) -> Chains:
        device = generator.device
        leaps = torch.randint(1, 2 * self.leaps, (), generator=generator, device=device)
        return _chains.advance(problem, state, int(leaps), self.acceptance, generator)

    def draw(self, problem: Problem, state: Chains, n: int, generator: Generator) -> Draws:
        return _chains.pick(state, n, generator)

    def search(self) -> Search:
        return {
            "leaps": LogUniform(1, 20),
            "acceptance": Uniform(0.5, 0.95),
            "warm_up": Uniform(0.1, 0.5),
        }

    def tensors(self, state: Chains) -> dict[str, Tensor]:
        return _chains.tensors(state)
