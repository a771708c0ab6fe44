"""How many calls of the target a budget pays for, for samplers that plan by them.

A sampler such as SMC fits its population to the calls that it may make.  Where operations or
seconds limit training, that is what they would pay for if nothing but the target took any.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from tiltbench.plan.budget import Budget
from tiltbench.run.clock import Clock
from tiltbench.run.operations import Operations
from tiltbench.samplers.sampler import Sampler
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem, graded, pose
from tiltbench.targets.target import Target

POINTS = 256  # at which one call is priced; on the harness's account


def planned(budget: Budget, target: Target, sampler: Sampler[Any], device: str) -> Cost:
    """The calls of training, lowered to what its operations and seconds pay for."""
    if budget.flops == math.inf and budget.seconds == math.inf:
        return budget.train
    flops, seconds = a_call(pose(target, sampler.reference), device)
    affordable = min(budget.flops / max(flops, 1.0), budget.seconds / seconds)
    most = int(min(affordable, budget.train.calls))
    return Cost(min(most, budget.train.values), min(most, budget.train.grads))


def a_call(problem: Problem, device: str) -> tuple[float, float]:
    """Operations and seconds of a value with its gradient at one point, of POINTS of them at once
    drawn from N(0, spread^2 I); the second time counts, when nothing is made for the first time."""
    source = torch.Generator(device).manual_seed(0)
    x = problem.base.spread * torch.randn(
        POINTS, problem.dim, generator=source, device=source.device
    )
    both = graded(problem.reward, problem.checks).value_and_grad
    both(x)
    with Operations() as counter:
        both(x)
    clock = Clock(device)
    both(x)
    clock.stop()
    return counter.flops / POINTS, clock.seconds / POINTS
