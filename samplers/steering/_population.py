"""Sequential Monte Carlo along the base's chain: what Feynman-Kac steering and twisted SMC share.

Slots of an island carry log-weights w_k.  At a boundary they are

    w_k = (log-ratio of base and proposal since the last resampling) + (what it left) + h_k,

h_k any function of the path so far.  Where an island is resampled by w_k every slot goes on from
one that was drawn, and is left with log mean exp w_k - h_k; at the end h_K = r(x_K).  Whatever h,

    E[mean_i exp(w_K^i) f(path_i)] = E_base[exp r(X_K) f(path)]

for the paths that lead to the slots, at any number of slots (Del Moral 2004, 7.4).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from tiltbench.samplers.at_once import at_once
from tiltbench.samplers.classical._anneal import log_mean_weight
from tiltbench.samplers.recipes.resampling import ancestors_of, felt
from tiltbench.samplers.sampler import Draws, TrainingFree, Unsupported
from tiltbench.targets.bases.linear import Linear
from tiltbench.targets.bases.noising import Noising
from tiltbench.targets.bases.process import Path
from tiltbench.targets.bases.references import Brownian
from tiltbench.targets.constants import constant
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem

CHUNK = 2048  # slots simulated `at_once`: bounds the memory


class Potential(ABC):
    """What a path is remembered by, rows (m, n), and its height h_k, from the rewards r^_k of what
    it is about to become, r^_k = r(E_base[X_1 | x_k])."""

    @abstractmethod
    def begin(self, like: Float[Tensor, " n"]) -> Float[Tensor, "m n"]: ...

    @abstractmethod
    def add(self, memory: Float[Tensor, "m n"], r: Float[Tensor, " n"]) -> Float[Tensor, "m n"]: ...

    @abstractmethod
    def height(self, memory: Float[Tensor, "m n"]) -> Float[Tensor, " n"]:
        """log of the product of the potentials so far."""


class Lead(NamedTuple):
    """r^_k of every slot, (n,), where it was worked out, and the control of the step from there."""

    r: Float[Tensor, " n"] | None
    u: Float[Tensor, "n d"] | None


Leader = Callable[[Float[Tensor, "n d"], int], Lead]


@dataclass(frozen=True)
class Population(TrainingFree):
    """n draws are the slots of as many islands of `particles` or more as divide n, resampled
    systematically at every `every`-th step where their effective sample size is below `least`.

    log_w is exact, E[exp(log_w) f(x)] = Z E_p*[f], with the island as the group; `log_Z` is the log
    of the mean over islands.  Nothing is learned and nothing spent in training.  A single path does
    not tell the weight of a population: there are no reverse paths."""

    reference: Linear = Brownian()
    particles: int = 50
    every: int = 5
    least: float = 0.5

    def __post_init__(self) -> None:
        if self.particles < 2:
            raise ValueError(f"particles is {self.particles}; an island needs 2 or more")
        if self.every < 1:
            raise ValueError(f"every is {self.every}; it must be 1 or more")
        if not 0 <= self.least <= 1:
            raise ValueError(f"least is {self.least}; it must be from 0 (never) to 1 (always)")

    @property
    @abstractmethod
    def potential(self) -> Potential: ...

    @abstractmethod
    def leader(self, problem: Problem) -> Leader: ...

    def init(self, problem: Problem, budget: Cost, generator: Generator) -> None:
        """Raises Unsupported where the base has no denoiser."""
        denoising(problem)

    @torch.no_grad()
    def draw(self, problem: Problem, state: None, n: int, generator: Generator) -> Draws:
        most = max(n // self.particles, 1)
        islands = next(m for m in range(most, 0, -1) if n % m == 0)
        size = n // islands
        some = max(at_once(CHUNK, problem.dim, generator.device) // size, 1)
        xs, log_ws = [], []
        for start in range(0, islands, some):
            with problem.checks.together():
                x, log_w = self._simulated(problem, min(some, islands - start), size, generator)
            xs.append(x)
            log_ws.append(log_w)
        x, log_w = torch.cat(xs), torch.cat(log_ws)
        each = log_w.reshape(islands, size).logsumexp(-1) - math.log(size)
        group = torch.arange(n, device=x.device) // size
        return Draws(x, log_w, group, log_mean_weight(each))

    def _simulated(
        self, problem: Problem, islands: int, size: int, generator: Generator
    ) -> tuple[Float[Tensor, "n d"], Float[Tensor, " n"]]:
        """The slots of some islands and their log-weights, float64."""
        base, lead, potential = denoising(problem), self.leader(problem), self.potential
        n = islands * size
        x = base.start((n, problem.dim), generator, torch.float32)
        noise = base.normal((base.steps, *x.shape), generator, x.dtype).unbind(0)
        turns = (base.steps, islands, 1)
        starts = torch.rand(turns, generator=generator, device=x.device, dtype=torch.float64)
        itself = torch.arange(n, device=x.device)
        rest = torch.zeros(n, dtype=torch.float64, device=x.device)
        memory = potential.begin(rest)
        xs, left, means, stds, ancestors = [x], [], [], [], []
        for k, root in enumerate(base.roots):
            r, u = lead(x, k)
            ancestor = itself
            if k and k % self.every == 0:
                assert r is not None
                # a path may come back from behind a wall: any height will do that is divided by
                memory = potential.add(memory, felt(r.double(), islands))
                tall = potential.height(memory)
                log_w = (rest + tall).reshape(islands, size)
                chosen, thin = ancestors_of(log_w, self.least, starts[k])
                ancestor, mean_w = chosen.flatten(), _log_mean(log_w)
                renewed = mean_w.expand_as(log_w).flatten() - tall[ancestor]
                rest = torch.where(thin.expand_as(log_w).flatten(), renewed, rest)
                x, memory = x[ancestor], memory[:, ancestor]
                u = None if u is None else u[ancestor]
            left.append(x)
            mean, std = base.base(x, k)
            x = torch.add(mean, noise[k], alpha=std)
            if u is not None:
                x = torch.add(x, u, alpha=std * root)
                cross, energy = (u * noise[k]).sum(-1).double(), u.square().sum(-1).double()
                rest = rest - root * cross - root * root / 2 * energy
            xs.append(x)
            means.append(mean)
            stds.append(std)
            ancestors.append(ancestor)
        path = _lineage(base, left, x, means, stds, ancestors)
        return x, rest + problem.reward(x).double() + base.log_law_over_chain(path)


def denoising(problem: Problem) -> Noising:
    """The base; raises Unsupported where it has no denoiser."""
    if not isinstance(problem.base, Noising):
        raise Unsupported("steering needs a base with a denoiser (Noising)")
    return problem.base


def foreseen(base: Noising, x: Float[Tensor, "*b d"], k: int) -> Float[Tensor, "*b d"]:
    """E_base[X_1 | X_{t_k} = x]; x itself at the end."""
    return base.denoise(x, k) if base.noises[k] or not k else x


def _log_mean(log_w: Float[Tensor, "m n"]) -> Float[Tensor, "m 1"]:
    return torch.logsumexp(log_w, -1, keepdim=True) - math.log(log_w.shape[-1])


def _lineage(
    base: Noising,
    left: list[Tensor],
    end: Tensor,
    means: list[Tensor],
    stds: list[float],
    ancestors: list[Int[Tensor, " n"]],
) -> Path:
    """The paths that lead to the slots at the end; what their proposal was is no matter."""
    slot = torch.arange(len(end), device=end.device)
    xs, ms = [end], []
    for k in reversed(range(len(left))):
        ms.append(means[k][slot])
        xs.append(left[k][slot])
        slot = ancestors[k][slot]
    x = torch.stack(xs[::-1])
    return Path(base.grid(x).clone(), x, torch.stack(ms[::-1]), constant(stds, x).clone(), x[:-1])
