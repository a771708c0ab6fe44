"""Sequential Monte Carlo along temperatures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from tiltbench.samplers.classical import _anneal
from tiltbench.samplers.classical._anneal import Annealed
from tiltbench.samplers.classical._fields import COUNT, FRACTION, INSIDE, RATIO, require
from tiltbench.samplers.sampler import Draws, Sampler
from tiltbench.samplers.search import Search, Uniform
from tiltbench.targets.bases.linear import Linear
from tiltbench.targets.bases.references import Brownian
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem


@dataclass(frozen=True)
class Smc(Sampler[Annealed]):
    """SMC (Del Moral, Doucet and Jasra 2006): base -> p* along p_base exp(beta r), one MALA move at
    each beta, systematic resampling where the ess of the weights falls below `resample`, and before
    the last move in any case.

    The temperatures adapt to the target in a pilot, which spends about `warm_up` of the budget,
    places them at equal `ess` of the next weights, finds a step size for each, and is thrown away.
    The rest buys `islands` islands on the frozen schedule, `particles_per_beta` particles in all
    for every temperature; one step is one island.  log_w of a draw is its island's log Z estimate
    and E[exp(log_w) f(x)] = Z E_p*[f] is exact; `log_Z` is the log-mean-exp of the islands', its
    standard error their spread (inf with one island).  Drawing is free.
    """

    name: ClassVar[str] = "smc"
    reference: Linear = Brownian()
    particles_per_beta: float = 10.0
    islands: int = 6
    ess: float = 0.9
    resample: float = 0.5
    warm_up: float = 0.15

    def __post_init__(self) -> None:
        require(self, particles_per_beta=RATIO, islands=COUNT, ess=INSIDE)
        require(self, resample=FRACTION, warm_up=INSIDE)

    def init(self, problem: Problem, budget: Cost, generator: Generator) -> Annealed:
        return _anneal.begin(problem, budget)

    def step(self, problem: Problem, state: Annealed, generator: Generator) -> Annealed:
        """The pilot first, then one island a step."""
        if state.islands:
            least = torch.full_like(state.schedule.betas, self.resample)
            least[-1] = 1.0
            return _anneal.with_island(problem, state, least, generator)
        ratio, islands = self.particles_per_beta, self.islands
        return _anneal.plan(problem, state, self.warm_up, self.ess, ratio, islands, generator)

    def done(self, state: Annealed) -> bool:
        return state.complete

    def draw(self, problem: Problem, state: Annealed, n: int, generator: Generator) -> Draws:
        draws = _anneal.pick(problem, state, n, generator)
        if not state.x:
            return draws
        islands = torch.stack([log_w[0] for log_w in state.log_w])
        return draws._replace(log_Z=_anneal.log_mean_weight(islands))

    def search(self) -> Search:
        return {
            "ess": Uniform(0.8, 0.98),
            "resample": Uniform(0.2, 0.9),
            "warm_up": Uniform(0.05, 0.3),
        }

    def tensors(self, state: Annealed) -> dict[str, Tensor]:
        return _anneal.tensors(state)
