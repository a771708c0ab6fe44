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
SELDOM = "targets/purity.py"  # looks at the calls 1, 2, 4, 8, ... of a reward: left out


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
            calls = [call for call in gpu.calls if SELDOM not in call]
            syncs = Counter({at: k for at, k in gpu.syncs.items() if not at.startswith(SELDOM)})
            found.append(Iteration(gpu.launches - len(gpu.calls) + len(calls), syncs, calls, state))
    gpu.calls = None
    return found
