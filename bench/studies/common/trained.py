"""A sampler trained outside the harness, for studies that look inside it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator

from tiltbench.run.meter import BudgetExceeded, Meter
from tiltbench.samplers.sampler import Sampler
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import pose
from tiltbench.targets.target import Target


def trained(target: Target, sampler: Sampler[Any], points: int, device: str, seed: int = 1) -> Any:
    """The sampler's state after `points` values and gradients; 0 gives the untrained state."""
    meter = Meter(Cost(points, points))
    problem = pose(target, sampler.reference, meter.watch)
    source = Generator(device).manual_seed(seed)
    state = sampler.init(problem, meter.budget, source)
    while points and not sampler.done(state):
        try:
            state = sampler.step(problem, state, source)
        except BudgetExceeded:
            break
    return state


def shaken(state: Any, size: float, seed: int = 5) -> Any:
    """The untrained state with a random last layer: a control that has nothing to do with the
    problem, of typical length `size`."""
    source = Generator(state.model.network.field.out.weight.device).manual_seed(seed)
    with torch.no_grad():
        state.model.network.field.out.weight.normal_(0.0, size, generator=source)
        state.model.network.field.out.bias.normal_(0.0, size, generator=source)
    return state
