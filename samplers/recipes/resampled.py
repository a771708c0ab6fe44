"""The recipe of an escort that is resampled along the path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from tiltbench.samplers.networks.model import Model
from tiltbench.samplers.recipes.annealing import Annealing, ThroughFlow
from tiltbench.samplers.recipes.escort import KernelRatio
from tiltbench.samplers.recipes.escorted import Kernels, started
from tiltbench.samplers.recipes.resampling import Resampling
from tiltbench.targets.bases.process import Path
from tiltbench.targets.problem import Problem, Reward


@dataclass(frozen=True)
class Resampled(Kernels):
    """`Escorted` with sequential Monte Carlo along the path (SCLD, arXiv 2412.07081).

    At every `every`-th step the islands are resampled, systematically, whose effective sample size
    is below `least`; n paths are as many islands of `island` or more as divide n.  A draw's weight
    is that of its island, E[exp(log_w) f(x)] = Z E_p*[f], and the island is its group.  Other
    losses than segment_log_variance see the same weights, so that log-variance is right only where
    nothing is resampled any more.

    Nothing is traced back: what is likely under a population is not said by one path of it, and the
    weights of single paths would be held against those of islands."""

    name: ClassVar[str] = "Resampled"
    annealing: Annealing = ThroughFlow()
    eps: float = 1.0
    ratio: float = 4.0
    every: int = 2
    least: float = 0.5
    island: int = 200

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.every < 1:
            raise ValueError(f"every is {self.every}; it must be 1 or more")
        if not 0 <= self.least <= 1:
            raise ValueError(f"least is {self.least}; it must be from 0 (never) to 1")
        if self.island < 2:
            raise ValueError(f"island is {self.island}; it must be 2 or more")

    def process(self, problem: Problem, tamed: Reward) -> Resampling:
        flow, weighing = started(problem.base), KernelRatio()
        chosen = (self.annealing, self.noise(flow), weighing, self.every, self.least, self.island)
        return Resampling(flow, tamed, *chosen)

    def retrace(
        self, problem: Problem, model: Model, x: Float[Tensor, "n d"], generator: Generator
    ) -> None:
        return None

    def groups(self, problem: Problem, path: Path) -> Int[Tensor, " n"]:
        """The island of every path."""
        assert isinstance(problem.base, Resampling)
        n = path.x.shape[1]
        return torch.arange(n, device=path.x.device) // (n // problem.base.islands(n))
