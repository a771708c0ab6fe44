"""CPU time of training iterations, measured in a process of one version of the code.

`PYTHONPATH=TREE/src python iterations.py` measures the package in TREE.  It reads a line
{"target": text, "sampler": text, "seconds": s} and answers with the times of single iterations,
until they add up to s; what it has built it keeps warm.  Only what all versions share is imported.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import cache

import torch

from tiltbench.plan.spec import build_sampler, build_target
from tiltbench.plan.text import parse
from tiltbench.run.meter import Meter
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import pose

HUGE = Cost(10**12, 10**12)


@cache
def iteration(target: str, sampler: str) -> Callable[[], None]:
    """One step of training, warm."""
    method, law = build_sampler(parse(sampler)), build_target(parse(target))
    problem = pose(law, method.reference, Meter(HUGE).watch)
    generator = torch.Generator().manual_seed(0)
    state = method.init(problem, HUGE, generator)

    def step() -> None:
        method.step(problem, state, generator)

    for _ in range(3):
        step()
    return step


def times(f: Callable[[], None], seconds: float) -> list[float]:
    """At least one."""
    seconds_taken: list[float] = []
    while not seconds_taken or sum(seconds_taken) < seconds:
        start = time.process_time()
        f()
        seconds_taken.append(time.process_time() - start)
    return seconds_taken


if __name__ == "__main__":
    torch.set_num_threads(1)
    for line in sys.stdin:
        asked = json.loads(line)
        step = iteration(asked["target"], asked["sampler"])
        print(json.dumps(times(step, asked["seconds"])), flush=True)
