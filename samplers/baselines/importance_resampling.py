"""Importance resampling: no training, draws of the base chosen by exp r."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from tiltbench.samplers.baselines._pool import CHUNK, Pool
from tiltbench.samplers.classical._anneal import log_mean_weight
from tiltbench.samplers.sampler import Draws, Sampler, Unsupported
from tiltbench.samplers.weights import resample
from tiltbench.targets.bases.linear import Linear
from tiltbench.targets.bases.process import Uncontrolled, simulate
from tiltbench.targets.bases.references import Brownian
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem, log_weight


@dataclass(frozen=True)
class ImportanceResampling(Sampler[Pool]):
    """The whole budget buys N draws of the base; n of them are drawn by systematic resampling
    with weights exp r (Rubin 1988), or of their paths where the law of the base is known and not
    that of its chain: p* up to O(1/N).

    Copies of one draw form a group, so that errors count what is different.  `log_Z` is the
    log-mean-exp of the N log-weights, with the standard error of `log_mean_weight`, which is inf
    for a single one.  Values only.
    """

    name: ClassVar[str] = "importance_resampling"
    reference: Linear = Brownian()
    paths: int = CHUNK

    def __post_init__(self) -> None:
        if self.paths < 1:
            raise ValueError(f"paths is {self.paths}; it must be 1 or more")

    def init(self, problem: Problem, budget: Cost, generator: Generator) -> Pool:
        return Pool((), (), budget.values)

    @torch.no_grad()
    def step(self, problem: Problem, state: Pool, generator: Generator) -> Pool:
        n = min(self.paths, state.left)
        path = simulate(problem.base, Uncontrolled(), (n, problem.dim), generator)
        log_w = log_weight(problem, path)
        return Pool((*state.x, path.x[-1]), (*state.r, log_w), state.left - n)

    def done(self, state: Pool) -> bool:
        return state.left == 0

    def draw(self, problem: Problem, state: Pool, n: int, generator: Generator) -> Draws:
        if not state.x:
            raise Unsupported("nothing has been drawn yet: the budget paid for no step")
        x, log_w = torch.cat(state.x), torch.cat(state.r)
        chosen = resample(log_w, n, generator)
        return Draws(x[chosen], group=chosen, log_Z=log_mean_weight(log_w))

    def tensors(self, state: Pool) -> dict[str, Tensor]:
        return {"x": torch.cat(state.x), "r": torch.cat(state.r)} if state.x else {}
