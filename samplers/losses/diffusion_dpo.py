"""Direct preference optimisation: a control from pairs of paths of which one is preferred.

The implicit reward of a path is kl log dP^u/dP^base.  Of two paths i and j the reward prefers i
with probability sigmoid(r_i - r_j) (Bradley and Terry), and

    -log sigmoid(kl (log_ratio_winner - log_ratio_loser))

is least, for paths of any law with full support, where kl log_ratio = r + const on every path: at
the tilt p_base exp(r / kl) (arXiv 2305.18290; on paths, 2311.12908 before its bound, 2311.13231;
math.md 3.1).  The loss knows of r nothing but who won.  All pairs of a batch are compared: n calls
of the reward make n (n - 1) / 2 comparisons, drawn once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.samplers.diffusion import Diffusion, Preset
from tiltbench.samplers.loss import Batch, Loss, Options, batch_path, build_loss, path_batch
from tiltbench.samplers.losses import _forward_process as forward
from tiltbench.samplers.losses._additive import additive
from tiltbench.samplers.losses._matching import POINTS, noising, quiet_end, times
from tiltbench.samplers.losses._policy_gradient import price, reward_alone
from tiltbench.samplers.networks.model import Model
from tiltbench.targets.bases.process import Path, Process, along
from tiltbench.targets.problem import Problem


@dataclass(frozen=True)
class Preferences(Options):
    """`kl`: the weight of the KL to the base; the fixed point is the tilt p_base exp(r / kl)."""

    kl: float = 1.0

    def __post_init__(self) -> None:
        check_kl(self.kl)

    def loss(self) -> Loss:
        return Loss(
            "diffusion_dpo",
            label,
            self.value,
            price,
            any_law=True,
            biased=self.kl != 1,
            options=self,
        )

    def value(self, model: Model, process: Process, batch: Batch, generator: Generator) -> Tensor:
        base, path = additive(process, "diffusion_dpo"), batch_path(process, batch)
        implied = self.kl * base.log_ratio(replace(path, u=along(model, path)))
        margin = implied[:, None] - implied
        won = batch["won"]  # both of won[i, j] and won[j, i] are 0 where i and j do not meet
        return -(won * torch.nn.functional.logsigmoid(margin)).sum() / won.sum()


@dataclass(frozen=True)
class Published(Options):
    """`kl`: the weight of the KL to the base, as the bound has it."""

    kl: float = 1.0

    def __post_init__(self) -> None:
        check_kl(self.kl)

    def loss(self) -> Loss:
        name = "diffusion_dpo_published"
        return Loss(name, ranked, self.value, forward.price, biased=True, options=self)

    def value(self, model: Model, process: Process, batch: Batch, generator: Generator) -> Tensor:
        """-log sigmoid of kl times how much more u gains on the base at the winner than at the
        loser; both are noised to one time."""
        steer = batch["steer"]
        off = forward.control(model, process, batch) - steer
        winner, loser = (steer.square() - off.square()).sum(-1).mul(self.kl / 2).chunk(2)
        return -torch.nn.functional.logsigmoid(winner - loser).mean()


def label(problem: Problem, model: Model, path: Path, share: float, generator: Generator) -> Batch:
    """The path, with won[i, j] = 1 where i was preferred to j."""
    with torch.no_grad():
        r = reward_alone(problem, path)
        return {**path_batch(path, r), "won": preferences(r, generator)}


def preferences(r: Float[Tensor, " n"], generator: Generator) -> Float[Tensor, "n n"]:
    """One comparison of every two, won with probability sigmoid of the difference."""
    chance = torch.sigmoid(r[:, None] - r)
    dice = torch.rand(chance.shape, generator=generator, device=r.device, dtype=r.dtype)
    first = (dice < chance).to(r).triu(1)
    second = (1 - (dice < chance).to(r)).triu(1)
    return first + second.T


def ranked(problem: Problem, model: Model, path: Path, share: float, generator: Generator) -> Batch:
    """Pairs of end points at one time each, the winners first: the one of the greater reward."""
    with torch.no_grad():
        r, n = reward_alone(problem, path), len(path.x[-1])
        first = torch.arange(n, device=r.device).repeat(POINTS // 2)
        round_ = torch.arange(len(first), device=r.device) // n
        second = (first + 1 + round_ % max(n - 1, 1)) % n
        ahead = r[first] >= r[second]
        winner, loser = torch.where(ahead, first, second), torch.where(ahead, second, first)
        k = times(quiet_end(noising(problem.base)), len(first), generator)
        x1 = path.x[-1][torch.cat([winner, loser])]
        return forward.noised(problem, model, x1, k.repeat(2), generator)


def check_kl(kl: float) -> None:
    """Raises ValueError."""
    if not 0 < kl < math.inf:
        raise ValueError(f"kl is {kl}; it is the weight of the KL to the base: above 0, finite")


diffusion_dpo = Preset("diffusion_dpo", Diffusion(build_loss(Preferences()), repeats=4, memory=4))
"""Direct preference optimisation on paths."""

diffusion_dpo_published = Preset(
    "diffusion_dpo_published", Diffusion(build_loss(Published()), repeats=4)
)
"""The published form (Diffusion-DPO, arXiv 2311.12908): end points noised to one time, by the bound
that takes the mean over times out of log sigmoid; and the winner is whoever has the greater r, so
that the loss depends on the order of rewards only, not on r.  Its fixed point is no tilt (math.md
3.1)."""
