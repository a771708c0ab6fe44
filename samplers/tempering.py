"""A tilt that grows while a sampler trains: lambda r, lambda rising to 1."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from tiltbench.samplers.loss import Batch, Loss
from tiltbench.targets.bases.process import Process
from tiltbench.targets.problem import Graded


def growing(share: float, start: float, until: float) -> float:
    """lambda when `share` of the training is done: `start` at first, linearly to 1 at `until`."""
    return start + (1 - start) * min(share / until, 1.0)


def tempered(reward: Graded, tilt: float) -> Graded:
    """lambda r with its gradient: the law p_lambda proportional to p_base exp(lambda r).

    r = -inf stays so, for lambda > 0."""

    def value(x: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
        return tilt * reward.value(x)

    def with_grad(x: Float[Tensor, "*b d"]) -> tuple[Tensor, Tensor]:
        r, g = reward.value_and_grad(x)
        return tilt * r, tilt * g

    return reward if tilt == 1 else Graded(value, with_grad, reward.checks)


def marked(batch: Batch, tilt: float) -> Batch:
    """The batch with the lambda it was bought at, on its own device."""
    device = next(iter(batch.values())).device
    return {**batch, TILT: torch.full((), tilt, dtype=torch.float64, device=device)}


def present(loss: Loss, process: Process, batch: Batch, tilt: float) -> Batch:
    """A marked batch as it would have been at this lambda, where the loss can say that; elsewhere
    it stays at its own."""
    if loss.tempered is None or TILT not in batch:
        return batch
    return loss.tempered(process, batch, tilt / batch[TILT])


TILT = "tilt"
