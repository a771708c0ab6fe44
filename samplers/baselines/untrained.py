"""Untrained: no training, draws of the base as they are; what every method has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.samplers.at_once import at_once
from tiltbench.samplers.baselines._pool import CHUNK, bought
from tiltbench.samplers.sampler import Draws, Sampler, Traced
from tiltbench.targets.bases.linear import Linear
from tiltbench.targets.bases.references import Brownian
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem


@dataclass(frozen=True)
class Untrained(Sampler[None]):
    """x ~ p_base with log_w = r(x): importance sampling of p* from the base, before any training.

    Of a density the base is N(0, scale^2 I), of a tilt its own chain.  Training is done at once and
    costs nothing; drawing costs a value a draw.  Paths of the uncontrolled chain have weight
    exp r(x_1) whatever their way, so that those traced back from x ~ p* have log_w = r(x), too.
    """

    name: ClassVar[str] = "untrained"
    reference: Linear = Brownian()

    def init(self, problem: Problem, allowance: Cost, generator: Generator) -> None:
        return None

    def step(self, problem: Problem, state: None, generator: Generator) -> None:
        return None

    def done(self, state: None) -> bool:
        return True

    def draw(self, problem: Problem, state: None, n: int, generator: Generator) -> Draws:
        most = at_once(CHUNK, problem.dim, generator.device)
        parts = [bought(problem, min(most, n - start), generator) for start in range(0, n, most)]
        x, r = (torch.cat(part) for part in zip(*parts, strict=True))
        return Draws(x, r.double())

    @torch.no_grad()
    def reverse(
        self, problem: Problem, state: None, x: Float[Tensor, "n d"], generator: Generator
    ) -> Traced:
        return Traced(problem.reward(x.float()).double())
