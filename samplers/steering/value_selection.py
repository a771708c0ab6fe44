"""Value-based selection: every step is the best of some, by what it promises (SVDD)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.samplers.at_once import at_once
from tiltbench.samplers.classical._anneal import log_mean_weight
from tiltbench.samplers.recipes.resampling import felt
from tiltbench.samplers.sampler import Draws, TrainingFree
from tiltbench.samplers.steering._population import CHUNK, denoising, foreseen
from tiltbench.targets.bases.linear import Linear
from tiltbench.targets.bases.process import Path
from tiltbench.targets.bases.references import Brownian
from tiltbench.targets.constants import constant
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem


@dataclass(frozen=True)
class ValueSelection(TrainingFree):
    """Soft value-based decoding (SVDD-PM, arXiv 2408.08252): of `candidates` steps of the base's
    chain one is taken with probability proportional to exp(v / temperature), v = r of its denoised
    estimate.

    Each step is paid back by log mean_m exp(v_m / temperature) - v / temperature, so that log_w,
    with r(x_K), is exact at any number of candidates and any temperature (importance sampling with
    auxiliary candidates; the published method has no weights).  Without weights the law tends, as
    candidates grow, to that of the chain with kernels p(x' | x) exp(v(x') / temperature), which is
    p* where v is the soft value and temperature 1; as temperature falls it takes the best, a law
    that depends on the number of steps: on a Brownian base with a linear reward its mean lies
    sqrt(K) E max_m xi_m standard deviations out.  A draw costs K `candidates` values; nothing is
    spent in training."""

    name: ClassVar[str] = "value_selection"
    reference: Linear = Brownian()
    candidates: int = 4
    temperature: float = 2.0  # at 1 weights have heavy tails, even on a Gaussian

    def __post_init__(self) -> None:
        if self.candidates < 1:
            raise ValueError(f"candidates is {self.candidates}; it must be 1 or more")
        if not 0 < self.temperature < math.inf:
            raise ValueError(
                f"temperature is {self.temperature}; it must be positive and finite: a small one "
                "takes the best candidate"
            )

    def init(self, problem: Problem, budget: Cost, generator: Generator) -> None:
        """Raises Unsupported where the base has no denoiser."""
        denoising(problem)

    @torch.no_grad()
    def draw(self, problem: Problem, state: None, n: int, generator: Generator) -> Draws:
        some = max(at_once(CHUNK, problem.dim, generator.device) // self.candidates, 1)
        xs, log_ws = [], []
        for start in range(0, n, some):
            with problem.checks.together():
                x, log_w = self._simulated(problem, min(some, n - start), generator)
            xs.append(x)
            log_ws.append(log_w)
        log_w = torch.cat(log_ws)
        return Draws(torch.cat(xs), log_w, log_Z=log_mean_weight(log_w))

    def _simulated(
        self, problem: Problem, n: int, generator: Generator
    ) -> tuple[Float[Tensor, "n d"], Float[Tensor, " n"]]:
        base, m = denoising(problem), self.candidates
        x = base.start((n, problem.dim), generator, torch.float32)
        row = torch.arange(n, device=x.device)
        log_w = torch.zeros(n, dtype=torch.float64, device=x.device)
        xs, means, stds = [x], [], []
        for k in range(base.steps):
            mean, std = base.base(x, k)
            many = mean[:, None] + std * base.normal((n, m, problem.dim), generator, x.dtype)
            r = problem.reward(foreseen(base, many, k + 1)).double()
            value = felt(r.flatten(), n).reshape(n, m) / self.temperature
            race = torch.empty_like(value).exponential_(generator=generator)
            chosen = (value - race.log()).argmax(-1)
            log_w = log_w + value.logsumexp(-1) - math.log(m) - value[row, chosen]
            x, r_end = many[row, chosen], r[row, chosen]
            xs.append(x)
            means.append(mean)
            stds.append(std)
        points = torch.stack(xs)
        grid, sds = base.grid(points).clone(), constant(stds, points).clone()
        path = Path(grid, points, torch.stack(means), sds, points[:-1])
        return x, log_w + r_end + base.log_law_over_chain(path)
