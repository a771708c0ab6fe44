"""What a metric's `needs` guarantee."""

from __future__ import annotations

from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from tiltbench.metric import Unknown
from tiltbench.samplers.sampler import Draws
from tiltbench.targets.target import Target, Tilt

T = TypeVar("T")


def given(x: T | None) -> T:
    """x, which is there because the metric needs it."""
    assert x is not None
    return x


def per_path(draws: Draws) -> Draws:
    """The draws, where their weights are those of paths.

    Raises Unknown where every draw carries its group's weight, as the survivors of an island that
    resampled do: a handful of averaged numbers says nothing of how the paths' weights spread."""
    log_w, group = given(draws.log_w), draws.group
    if group is None:
        return draws
    labels, index = torch.unique(group, return_inverse=True)
    if len(labels) < len(log_w):
        last = log_w.new_empty(len(labels)).index_copy(0, index, log_w)
        if torch.equal(last[index], log_w):
            raise Unknown("weights are per island, not per path")
    return draws


def tilt(target: Target) -> Tilt:
    """The target, which is a tilt because the metric needs one."""
    assert isinstance(target, Tilt)
    return target


@torch.no_grad()
def rewards(target: Target, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """r of draws as they are scored: after the run, off its meter."""
    return tilt(target).reward(target.project(x)).double()
