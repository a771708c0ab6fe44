"""The Metropolis-adjusted Langevin algorithm in many chains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Generator, Tensor

from tiltbench.samplers.classical import _chains
from tiltbench.samplers.classical._chains import Chains
from tiltbench.samplers.classical._fields import COUNT, INSIDE, SHARE, require
from tiltbench.samplers.sampler import Draws, Sampler
from tiltbench.samplers.search import Search, Uniform
from tiltbench.targets.bases.linear import Linear
from tiltbench.targets.bases.references import Brownian
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem


@dataclass(frozen=True)
class Mala(Sampler[Chains]):
    """MALA: x' ~ N(x + h^2/2 grad log p*(x), h^2 I), accepted or not (Roberts and Tweedie 1996).

    `chains` chains start from the base.  During the first `warm_up` of the budget h follows the
    acceptance rate towards `acceptance` (.574 is optimal in high dimension: Roberts and Rosenthal
    1998); then it is frozen and about `keep` states are stored, thinned evenly.  A step moves every
    chain once, for one value and one gradient each.  Drawing is free; there are no weights.
    """

    name: ClassVar[str] = "mala"
    reference: Linear = Brownian()
    chains: int = 128
    acceptance: float = 0.574
    warm_up: float = 0.3
    keep: int = 20_000

    def __post_init__(self) -> None:
        require(self, chains=COUNT, acceptance=INSIDE, warm_up=SHARE, keep=COUNT)

    def init(self, problem: Problem, budget: Cost, generator: Generator) -> Chains:
        return _chains.begin(problem, budget, generator, self.chains, 1, self.warm_up, self.keep)

    def step(self, problem: Problem, state: Chains, generator: Generator) -> Chains:
        return _chains.advance(problem, state, 1, self.acceptance, generator)

    def draw(self, problem: Problem, state: Chains, n: int, generator: Generator) -> Draws:
        return _chains.pick(state, n, generator)

    def search(self) -> Search:
        return {"acceptance": Uniform(0.3, 0.9), "warm_up": Uniform(0.1, 0.5)}

    def tensors(self, state: Chains) -> dict[str, Tensor]:
        return _chains.tensors(state)
