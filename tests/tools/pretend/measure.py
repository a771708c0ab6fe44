"""What one iteration of a sampler costs on the device."""

from collections import Counter
from typing import NamedTuple

from tests.tools.pretend.device import Gpu
from tiltbench.api import cell
from tiltbench.plan.spec import build_sampler, build_target
from tiltbench.run.meter import Meter
from tiltbench.run.streams import generator
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import pose

AMPLE = Cost(10**9, 10**9)


class Iteration(NamedTuple):
    launches: int
    syncs: Counter[str]
    calls: list[str]
    state: object  # after it


def iterations(
    gpu: Gpu, target: str, sampler: str, n: int = 3, warm: int = 2, allowance: Cost = AMPLE
) -> list[Iteration]:
    """Those of n steps in a row after `warm` others, which copy constants and fill rings."""
    todo = cell(target, sampler, device="cuda")
    what, method = build_target(todo.target), build_sampler(todo.sampler)
    problem = pose(what, method.reference, Meter(AMPLE).watch)
    source, found = generator(0, "train", "cuda"), []
    state = method.init(problem, allowance, source)
    for i in range(warm + n):
        if method.done(state):
            break
        gpu.forget()
        gpu.calls = []
        state = method.step(problem, state, source)
        if i >= warm:
            found.append(Iteration(gpu.launches, gpu.syncs, gpu.calls, state))
    gpu.calls = None
    return found
