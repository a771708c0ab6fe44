"""What one iteration of a sampler costs on the device."""

from collections import Counter
from typing import Any, NamedTuple

import torch

from tests.tools.pretend.device import Gpu  # before torch
from tiltbench.api import cell
from tiltbench.plan.spec import build_sampler, build_target
from tiltbench.run.meter import Meter
from tiltbench.run.streams import generator
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem, pose

AMPLE = Cost(10**9, 10**9)
SELDOM = "targets/purity.py"  # looks at the calls 1, 2, 4, 8, ... of a reward: left out


class Iteration(NamedTuple):
    launches: int
    syncs: Counter[str]
    calls: list[str]
    state: object  # after it


def iterations(
    gpu: Gpu, target: str, sampler: str, n: int = 3, warm: int = 2, budget: Cost = AMPLE
) -> list[Iteration]:
    """Those of n steps in a row after `warm` others, which copy constants and fill rings."""
    problem, method = _posed(target, sampler)
    source, measured = generator(0, "train", "cuda"), []
    state = method.init(problem, budget, source)
    for i in range(warm + n):
        if method.done(state):
            break
        gpu.forget()
        gpu.calls = []
        state = method.step(problem, state, source)
        if i >= warm:
            calls = [call for call in gpu.calls if SELDOM not in call]
            syncs = Counter({at: k for at, k in gpu.syncs.items() if not at.startswith(SELDOM)})
            measured.append(
                Iteration(gpu.launches - len(gpu.calls) + len(calls), syncs, calls, state)
            )
    gpu.calls = None
    return measured


def simulated(gpu: Gpu, target: str, sampler: str) -> int:
    """Launches of one simulation, with the graph that its loss asks for."""
    problem, method = _posed(target, sampler)
    source = generator(0, "train", "cuda")
    state = method.init(problem, AMPLE, source)
    for _ in range(2):  # the first copies constants
        gpu.forget()
        with torch.set_grad_enabled(method.loss.through_path):
            method.recipe.simulate(method.posed(problem), state.model, method.paths, source)
    return gpu.launches


def _posed(target: str, sampler: str) -> tuple[Problem, Any]:
    todo = cell(target, sampler, device="cuda")
    method = build_sampler(todo.sampler)
    meter = Meter(AMPLE)
    return pose(build_target(todo.target), method.reference, meter.watch), method
