"""Parallel tempering."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from tiltbench.samplers.classical import _replicas
from tiltbench.samplers.classical._fields import COUNT, INSIDE, require
from tiltbench.samplers.classical._replicas import Replicas
from tiltbench.samplers.sampler import Draws, Sampler
from tiltbench.samplers.search import LogUniform, Search, Uniform
from tiltbench.targets.bases.linear import Linear
from tiltbench.targets.bases.references import Brownian
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem


@dataclass(frozen=True)
class ParallelTempering(Sampler[Replicas]):
    """Replica exchange (Swendsen and Wang 1986; Geyer 1991) along p_base exp(beta r), by HMC moves.

    Each ladder runs from the base, drawn anew in every round, to p*; neighbours swap in alternate
    even and odd rounds.  A pilot places the temperatures at equal `ess` of the weights from one to
    the next, and the warm-up (`warm_up` of the budget, the pilot included) moves them to equal
    rates of refusal and tunes a step size for each.  Draws are thinned states at beta = 1, the
    ladder is the group, and there are no weights; `log_Z` is Bennett's estimate between neighbours
    with the error of independent ladders.  Drawing is free.
    """

    name: ClassVar[str] = "parallel_tempering"
    reference: Linear = Brownian()
    ladders: int = 16
    leaps: int = 5
    acceptance: float = 0.8
    ess: float = 0.5
    warm_up: float = 0.3
    keep: int = 20_000

    def __post_init__(self) -> None:
        require(self, ladders=COUNT, leaps=COUNT, acceptance=INSIDE, ess=INSIDE)
        require(self, warm_up=INSIDE, keep=COUNT)

    def init(self, problem: Problem, budget: Cost, generator: Generator) -> Replicas:
        return _replicas.begin(problem, budget, self.leaps, self.warm_up)

    def step(self, problem: Problem, state: Replicas, generator: Generator) -> Replicas:
        """The pilot first, then one round a step, its leaps drawn as in `hmc`."""
        if state.levels == 1:
            return _replicas.plan(
                problem, state, self.ess, self.ladders, self.leaps, self.keep, generator
            )
        device = generator.device
        leaps = torch.randint(1, 2 * self.leaps, (), generator=generator, device=device)
        return _replicas.advance(problem, state, int(leaps), self.acceptance, generator)

    def draw(self, problem: Problem, state: Replicas, n: int, generator: Generator) -> Draws:
        return _replicas.draws(problem, state, n, generator)

    def search(self) -> Search:
        return {
            "leaps": LogUniform(1, 20),
            "acceptance": Uniform(0.5, 0.95),
            "ess": Uniform(0.3, 0.8),
        }

    def tensors(self, state: Replicas) -> dict[str, Tensor]:
        return _replicas.tensors(state)
