"""Why the gradient of adjoint matching has a heavy tail on a mixture: a few paths carry it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Generator

from tiltbench.studies.gradient_variance.cases import TEACHER, Case, halfway
from tiltbench.targets.problem import pose
from tiltbench.targets.target import Target

BATCHES = 8


class Tail(NamedTuple):
    growth: float  # the largest |a_k| / |a_K| of the lean adjoint, in control units, over all paths
    share: float  # of the largest path in the sum of |target|^2 over its batch, the median batch


def tail(every: list[Case], target: Target, paths: int, updates: int, device: str) -> Tail:
    """Of the regression targets of adjoint matching, half-way through its training."""
    case = next(case for case in every if case.name == TEACHER)
    state: Any = halfway(case, target, updates, device)
    sampler = replace(case.sampler, paths=paths)
    problem, growths, shares = pose(target, sampler.reference), [], []
    for seed in range(BATCHES):
        source = Generator(device).manual_seed(seed)
        y = sampler.batch(problem, state.model, 0.5, source)["y"]  # (K, paths, D)
        length = y.norm(dim=-1)
        growths.append(float((length / length[-1]).max()))
        whole = length.square().sum(0)
        shares.append(float(whole.max() / whole.sum()))
    return Tail(max(growths), float(torch.tensor(shares).median()))
