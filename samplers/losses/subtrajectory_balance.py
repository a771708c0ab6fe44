"""Sub-trajectory balance: every stretch of a path balances a learned flow along it.

A flow F_k(x) is a positive function with F_K = rho, learned at the other times.  It is written
beside the base's own density p_k, F_k = p_k exp phi_k, so that P_B is the base's exact reversal and
everything is of the same chain as the path weights.  With

    phi_K = r,    phi_k(x) = log Z + V(x, t_k),    phi_0(x) = log Z + V(x, 0) - log E exp V(X_0, 0),
    S_k = phi_k(X_k) - sum_{l < k} log N(X_{l+1}; controlled) / N(X_{l+1}; base),

the imbalance of the stretch from i to j, log F_i + log P_F - log F_j - log P_B, is S_i - S_j, and

    L = E sum_{i < j} w_{j - i} (S_j - S_i)^2,    w_l proportional to lam^l,

the weights such that a step is covered with weight 1 on the average over steps.  All stretches are
balanced, for paths of any control with full support, at the optimum alone: phi_k(x) = log
E_base[exp r(X_1) | X_k = x] and u* (GFlowNets, arXiv 2209.12782; diffusion samplers, 2310.02679).
It holds for any base and start, X_0 remembered or not; the last term of phi_0 is the mean over the
batch, whose X_0 no control moves, and 0 where X_0 is a point.  (Where the end remembers X_0, paths
in reverse from replayed ends have other X_0, and their log Z is off.)  In continuous time grad phi
= u / sigma; on a grid a Gaussian step balances up to O(dt).

lam -> infinity leaves the stretch from 0 to K, trajectory balance, and lam -> 0 single steps:
detailed balance, whose errors add up along the path.  V costs its share of compute and has to be
learned from the end backward, so that short stretches pay in long trainings only.  lr_log_Z is
higher here than elsewhere: what log Z is off by, V has to make up for at every time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.samplers.diffusion import Diffusion, Preset
from tiltbench.samplers.loss import Batch, Loss, Options, batch_path, build_loss
from tiltbench.samplers.losses._additive import additive
from tiltbench.samplers.losses.trajectory_balance import trajectory_balance
from tiltbench.samplers.networks.model import Model
from tiltbench.samplers.networks.valued import Valued
from tiltbench.targets.bases.process import Path, Process, along
from tiltbench.targets.constants import constant

Weights = Callable[[int], tuple[float, ...]]  # K -> w_1, ..., w_K


def balance(name: str, weights: Weights) -> Loss:
    """L with these weights, on what trajectory balance buys.  Raises Unsupported for the chains of
    escorts and for networks without a flow."""

    def value(model: Model, process: Process, batch: Batch, generator: Generator) -> Tensor:
        path = batch_path(process, batch)
        path = replace(path, u=along(model, path))
        ahead = additive(process, name).log_ratios(path).cumsum(0)
        levels = log_flows(model, path, batch["r"])
        levels = torch.cat([levels[:1], levels[1:] - ahead])
        return imbalance(levels, constant(weights(len(ahead)), levels)).mean()

    return trajectory_balance._replace(name=name, value=value, by_weights=False, needs="flow")


def log_flows(model: Model, path: Path, r: Float[Tensor, " b"]) -> Float[Tensor, "k1 b"]:
    """phi_0, ..., phi_K along paths, float64."""
    V = model.log_flow(path.x[:-1], path.t[:-1, None]).double()
    start = V[:1] - (torch.logsumexp(V[:1], 1, keepdim=True) - math.log(V.shape[1]))
    return torch.cat([model.log_Z + start, model.log_Z + V[1:], r.double()[None]])


def imbalance(levels: Float[Tensor, "k1 b"], weights: Float[Tensor, " k"]) -> Float[Tensor, " b"]:
    """sum_{i < j} w_{j - i} (S_j - S_i)^2 of S = `levels`: S . L S with L the Laplacian of a graph
    that joins i and j with weight w_{|j - i|}."""
    k = torch.arange(len(levels), device=levels.device)
    joined = torch.nn.functional.pad(weights, (1, 0))[(k[:, None] - k).abs()]
    away = levels - levels.mean(0)  # L sees differences only, float64 more of them
    return (away.square() * joined.sum(1)[:, None] - away * (joined @ away)).sum(0)


def normalised(weights: list[float]) -> tuple[float, ...]:
    """Multiplied such that sum_{i < j} w_{j - i} (j - i) = K."""
    K = len(weights)
    covered = sum(w * length * (K + 1 - length) for length, w in enumerate(weights, 1))
    return tuple(K * w / covered for w in weights)


@dataclass(frozen=True)
class Geometric(Options):
    """`lam`: a stretch of l steps weighs in proportion to lam^l."""

    lam: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.lam < math.inf:
            raise ValueError(f"lam is {self.lam}; it must be positive and finite")

    def loss(self) -> Loss:
        return balance("subtrajectory_balance", self.weights)._replace(options=self)

    def weights(self, steps: int) -> tuple[float, ...]:
        log_lam = math.log(self.lam)
        longest = max(log_lam, steps * log_lam)  # the greatest term is 1: nothing overflows
        return normalised([math.exp(k * log_lam - longest) for k in range(1, steps + 1)])


def single_steps(steps: int) -> tuple[float, ...]:
    return normalised([1.0] + [0.0] * (steps - 1))


subtrajectory_balance = Preset(
    "subtrajectory_balance", Diffusion(build_loss(Geometric()), model=Valued(), lr_log_Z=0.3)
)
"""Sub-trajectory balance over all stretches (arXiv 2310.02679)."""

detailed_balance = Preset(
    "detailed_balance",
    Diffusion(balance("detailed_balance", single_steps), model=Valued(), lr_log_Z=0.3),
)
"""Detailed balance: the stretches of one step (arXiv 2201.13259)."""
