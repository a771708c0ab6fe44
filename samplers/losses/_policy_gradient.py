"""What policy gradients share: advantages, clipped ratios of the steps, the KL (math.md 3.1).

A path is an episode of K actions x_{k+1} ~ N(m_k + std_k sqrt(dt_k) u, std_k^2 I), and
E_u[A grad log dP^u] is the gradient of E_u[A] for any A that does not depend on u.  The KL to the
base comes in two ways, with other fixed points:

    in the reward  A of r - kl log dP^u/dP^base of each path: the tilt p_base exp(r / kl);
    as a loss      kl sum_k dt_k / 2 |u(x_k)|^2 at the states of the batch, held fixed: its gradient
                   lacks what u does to later states, and the fixed point is half of the control of
                   the tilt by 2 r / kl as dt -> 0.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tiltbench.samplers.loss import Batch, batch_path, floored, hints, path_batch
from tiltbench.samplers.losses._additive import additive
from tiltbench.samplers.networks.model import Model
from tiltbench.targets.bases.process import Additive, Path, Process, along
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem

LEAST_STD = 1e-4  # nats: of advantages that all agree nothing is to be learned
LARGEST = 20.0  # of a log-ratio before it is exponentiated: beyond it there is no gradient


def centred(score: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Each less the mean of the others: the leave-one-out baseline, without bias."""
    n = len(score)
    return (score - score.mean()) * (n / (n - 1))


def standardised(score: Float[Tensor, " n"], group: int) -> Float[Tensor, " n"]:
    """Less the mean of its group, over the standard deviation there (that of the group as a
    population, as public code has it).

    As many groups as can be made of `group` or more each, of equal size up to one; a batch of fewer
    is one group."""
    n, device = len(score), score.device
    groups = max(n // group, 1)
    of = torch.arange(n, device=device) * groups // n
    member = (of == torch.arange(groups, device=device)[:, None]).to(score)
    share = member / member.sum(1, keepdim=True)
    away = score - (share @ score)[of]
    return away / ((share @ away.square()).sqrt() + LEAST_STD)[of]


def at_most_one(score: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """`centred`, over the standard deviation of the batch where that is above 1 nat."""
    return centred(score) / score.std().clamp(min=1.0)


def kl_in_reward(problem: Problem, base: Additive, path: Path, kl: float) -> Float[Tensor, " n"]:
    """r - kl log dP^u/dP^base of each path, float64; u is the control that simulated it.  Pays a
    value a path."""
    return floored(problem.reward(path.x[-1]).double() - kl * base.log_ratio(path), problem.checks)


def reward_alone(problem: Problem, path: Path) -> Float[Tensor, " n"]:
    """r of each path, float64.  Pays a value a path."""
    return floored(problem.reward(path.x[-1]).double(), problem.checks)


def advantage_batch(path: Path, advantage: Float[Tensor, " n"]) -> Batch:
    """A path with its advantage, in the place of its reward too."""
    return {**path_batch(path, advantage), "advantage": advantage}


def clipped(
    log_ratio: Float[Tensor, "*k n"], advantage: Float[Tensor, " n"], clip_range: float
) -> Float[Tensor, "*k n"]:
    """min(rho A, clip(rho, 1 - clip_range, 1 + clip_range) A), rho = exp(log_ratio): PPO's
    objective (arXiv 1707.06347), to be maximised."""
    ratio = log_ratio.clamp(max=LARGEST).exp()
    near = ratio.clamp(1 - clip_range, 1 + clip_range)
    return torch.minimum(ratio * advantage, near * advantage)


class Climbed(NamedTuple):
    """What is climbed on the paths of a batch, and what holds it."""

    objective: Float[Tensor, ""]  # E sum_k of PPO's clipped objective
    fixed_state_kl: Float[Tensor, ""]  # E sum_k dt_k / 2 |u(x_k)|^2 at the states of the paths


def climb(process: Process, name: str, model: Model, batch: Batch, clip_range: float) -> Climbed:
    """On an `advantage_batch`, of the control that simulated it.  Raises Unsupported for the chains
    of escorts."""
    base, path = additive(process, name), batch_path(process, batch)
    now = replace(path, u=along(model, path))
    log_ratio = base.log_ratios(now) - base.log_ratios(path)
    objective = clipped(log_ratio, batch["advantage"], clip_range).sum(0).mean()
    return Climbed(objective, base.running_cost(now).mean())


def price(paths: int, steps: int, guided: bool) -> Cost:
    """A value a path."""
    return Cost(values=paths).plus(hints(paths, steps, guided))


def check_kl(kl: float) -> None:
    """Raises ValueError."""
    if not 0 <= kl < math.inf:
        raise ValueError(f"kl is {kl}; it is the weight of the KL to the base: 0 or more, finite")


def check_clip(clip_range: float) -> None:
    """Raises ValueError."""
    if not 0 < clip_range < 1:
        raise ValueError(
            f"clip_range is {clip_range}; ratios are kept within 1 -+ clip_range: above 0, below 1"
        )


def check_group(group: int) -> None:
    """Raises ValueError."""
    if group < 2:
        raise ValueError(
            f"group is {group}; advantages compare the paths of a group: it must be 2 or more"
        )
