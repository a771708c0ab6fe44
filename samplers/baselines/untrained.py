"""Untrained: no training, draws of the base as they are; what every method has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.samplers.at_once import at_once
from tiltbench.samplers.baselines._pool import CHUNK
from tiltbench.samplers.flows.probability_flow import ProbabilityFlow
from tiltbench.samplers.sampler import Draws, Traced, TrainingFree
from tiltbench.targets.bases.linear import Linear
from tiltbench.targets.bases.process import Uncontrolled, retrace, simulate
from tiltbench.targets.bases.references import Brownian
from tiltbench.targets.problem import Problem, log_weight


@dataclass(frozen=True)
class Untrained(TrainingFree):
    """x ~ p_base with log_w = r(x): importance sampling of p* from the base, before any training.

    Of a density the base is N(0, scale^2 I), of a tilt its own chain.  Training is done at once and
    costs nothing; drawing costs a value a draw.  Where the law of the base is known and is not that
    of its chain, weights are told of it (`log_weight`), which takes paths and not their ends alone.
    """

    name: ClassVar[str] = "untrained"
    reference: Linear = Brownian()

    @torch.no_grad()
    def draw(self, problem: Problem, state: None, n: int, generator: Generator) -> Draws:
        xs, log_ws, most = [], [], at_once(CHUNK, problem.dim, generator.device)
        for start in range(0, n, most):
            shape = (min(most, n - start), problem.dim)
            path = simulate(problem.base, Uncontrolled(), shape, generator)
            xs.append(path.x[-1])
            log_ws.append(log_weight(problem, path))
        return Draws(torch.cat(xs), torch.cat(log_ws))

    @torch.no_grad()
    def reverse(
        self, problem: Problem, state: None, x: Float[Tensor, "n d"], generator: Generator
    ) -> Traced:
        parts = x.float().split(at_once(CHUNK, problem.dim, x.device))
        paths = (retrace(problem.base, Uncontrolled(), part, generator) for part in parts)
        return Traced(torch.cat([log_weight(problem, path) for path in paths]))

    @torch.no_grad()
    def along(
        self, problem: Problem, state: None, x: Float[Tensor, "k1 n d"], generator: Generator
    ) -> Traced:
        """Of the chain's own paths the ends are all that counts."""
        return Traced(problem.reward(x[-1].float()).double())

    def flow(self, problem: Problem, state: None) -> ProbabilityFlow:
        """The base's own."""
        return ProbabilityFlow(problem.base, problem.dim)
