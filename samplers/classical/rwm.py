"""Random-walk Metropolis in many chains."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from tiltbench.samplers.classical import _chains
from tiltbench.samplers.classical._chains import Chains
from tiltbench.samplers.classical._fields import COUNT, FRACTION, INSIDE, SHARE, require
from tiltbench.samplers.classical._leapfrog import DTYPE, FAR, Points, adapted, known_base
from tiltbench.samplers.sampler import Draws, Sampler
from tiltbench.samplers.search import Search, Uniform
from tiltbench.targets.bases.linear import Linear
from tiltbench.targets.bases.references import Brownian
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem


@dataclass(frozen=True)
class Rwm(Sampler[Chains]):
    """x' ~ N(x, h^2 I), accepted with probability min(1, p*(x') / p*(x)) (Metropolis et al.,
    J. Chem. Phys. 21, 1953): no gradient.

    `chains` chains start from the base, with h = `step_size`, a length of the target.  During the
    first part `tuned` of the warm-up h follows the acceptance rate towards `acceptance` (.234 is
    optimal in high dimension: Roberts, Gelman and Gilks 1997); 0 leaves it as stated.  After the
    first `warm_up` of the budget about `keep` states are stored, thinned evenly.  A step moves
    every chain once, for one value each.  Drawing is free; there are no weights.
    """

    name: ClassVar[str] = "rwm"
    reference: Linear = Brownian()
    step_size: float = 1.0
    chains: int = 128
    acceptance: float = 0.234
    warm_up: float = 0.3
    tuned: float = 1.0
    keep: int = 20_000

    def __post_init__(self) -> None:
        require(self, chains=COUNT, acceptance=INSIDE, warm_up=SHARE, tuned=FRACTION, keep=COUNT)
        if not 0 < self.step_size < math.inf:
            raise ValueError(f"step_size is {self.step_size}; it must be positive and finite")

    def init(self, problem: Problem, budget: Cost, generator: Generator) -> Chains:
        chains = _chains.begin(problem, budget, generator, self.chains, 1, self.warm_up, self.keep)
        return chains._replace(log_size=torch.full_like(chains.log_size, math.log(self.step_size)))

    @torch.no_grad()
    def step(self, problem: Problem, state: Chains, generator: Generator) -> Chains:
        at, spent = state.at, state.spent
        if state.moves == 0:
            at, spent = valued(problem, at.x), len(at.r)
        at, chance = moved(problem, at, state.log_size.exp(), generator)
        moves, before, spent = state.moves + 1, spent, spent + len(at.r)
        log_size, stored = state.log_size, state.stored
        if before < self.tuned * state.warm:
            log_size = adapted(log_size, chance, self.acceptance, moves)
        if before < state.warm <= spent:
            at = _chains.rescued(at, generator)
        elif before >= state.warm and moves % state.every == 0:
            stored = (*stored, at.x)
        return state._replace(at=at, log_size=log_size, stored=stored, moves=moves, spent=spent)

    def draw(self, problem: Problem, state: Chains, n: int, generator: Generator) -> Draws:
        return _chains.pick(state, n, generator)

    def search(self) -> Search:
        return {"acceptance": Uniform(0.1, 0.5), "warm_up": Uniform(0.1, 0.5)}

    def tensors(self, state: Chains) -> dict[str, Tensor]:
        return _chains.tensors(state)


def moved(
    problem: Problem, at: Points, size: Tensor, generator: Generator
) -> tuple[Points, Tensor]:
    """One transition of every chain, for a value each, and the mean acceptance probability of those
    that have density; NaN where none has.

    A proposal beyond FAR spreads is refused unseen.  Chains without density walk under the base
    until they meet some, as those of `mala` do."""
    base = known_base(problem)
    x = at.x + size * base.normal(at.x.shape, generator, DTYPE)
    near = x.square().mean(-1) < (FAR * base.spread) ** 2
    new = valued(problem, torch.where(near[:, None], x, at.x))
    inside = at.r > -torch.inf
    gain = base.log_end(new.x) - base.log_end(at.x) + torch.where(inside, new.r - at.r, 0.0)
    chance = torch.where(near, gain.clamp(max=0).exp(), 0.0)
    coin = torch.rand(chance.shape, generator=generator, device=x.device, dtype=DTYPE)
    return new.where(coin < chance, at), torch.where(inside, chance, 0.0).sum() / inside.sum()


def valued(problem: Problem, x: Tensor) -> Points:
    """The points with their reward, for one value each; the gradient is not asked for."""
    return Points(x, problem.reward(x), torch.zeros_like(x))
