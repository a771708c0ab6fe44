"""A CUDA graph of a whole training iteration against eager steps of the project's own code.

Two runs start alike and step alike until everything is allocated.  Then one steps eagerly, and the
other replays a recording of its next step as often, on the same state of the generator: parameters
and what the meter has counted must be equal.  The budget is endless, so the learning rate, which
falls with what is paid, is the same number in all of these steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Generator, Tensor

from tests.gpu.apart import apart
from tests.gpu.cases import CASES, Training, training
from tests.gpu.environment import finish
from tests.gpu.section import Notes, Visit
from tests.gpu.times import small
from tiltbench.run.states import modules
from tiltbench.targets.checks import Checks

MAIN = (  # one batch a step, none kept: which batch is drawn from a memory the host must know
    "log_variance, gmm9, 128 x 32",
    "log_variance, gmm9, 512 x 100",
    "log_variance, guided, gmm9, 128 x 32",
    "trajectory_balance, gmm9",
    "pis, gmm9",
    "adjoint_matching, gmm9",
    "adjoint_matching, tilt_linear",
    "adjoint_matching, digits_even",
)
WARM = 3
WITHIN = 30.0  # seconds for one of them

Step = Callable[[], None]
Record = Callable[[Step, Generator], Step]  # (a step, its generator) -> a replay of it


def run(visit: Visit, notes: Notes) -> None:
    if not visit.on_gpu:
        notes.say("A graph needs CUDA: here a step itself stands for its replay.")
    for label in MAIN[: visit.sizes.cases or None]:
        try:
            if visit.on_gpu:  # a recording that fails may spoil its process
                row = apart(WITHIN, replayed, label, visit, recorded)
            else:
                row = replayed(label, visit, stand_in)
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            notes.fault(f"{label}: no graph: {reason}")
            continue
        notes.row("milliseconds an iteration", iteration=label, **row)
        if row["parameters"] != "equal" or not row["charged alike"]:
            notes.fault(f"{label}: replays do not do what eager steps do: {row['parameters']}")


def replayed(label: str, visit: Visit, record: Record) -> dict[str, Any]:
    """Times of an eager step and of a replay, and whether as many of each end alike."""
    eager, graph = (training(*CASES[label], visit.device, small(visit)) for _ in range(2))
    with beside(visit):
        for one in (eager, graph):
            for _ in range(WARM):
                one.step()
    finish(visit.device)
    replay = graph.meter.captured(lambda: record(lambda: unread(graph), graph.generator))
    n = visit.sizes.replays
    slow = seconds(eager.step, n, visit.device)
    fast = seconds(replay, n, visit.device)
    row = {
        "eager": 1e3 * slow,
        "graph": 1e3 * fast,
        "times faster": slow / fast,
        "parameters": alike(parameters(eager), parameters(graph)),
        "charged alike": eager.meter.spent == graph.meter.spent,
    }
    probe = parameters(graph)[0].flatten()[0]

    def read() -> None:
        replay()
        probe.item()  # what training would read: whether all was finite

    return row | {"graph, one number read": 1e3 * seconds(read, n, visit.device)}


def unread(run: Training) -> None:
    """A step whose checks nobody reads: while a graph is recorded there is nothing to read."""
    with deferred(run.problem.checks):
        run.step()


@contextmanager
def deferred(checks: Checks) -> Iterator[None]:
    try:
        with checks.together():
            yield
            raise _Unread
    except _Unread:
        pass


class _Unread(BaseException):
    """Leaves `Checks.together` without reading: what is no Exception makes it forget."""


def recorded(step: Step, generator: Generator) -> Step:
    """The step as a CUDA graph; nothing is run yet."""
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(generator)
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def stand_in(step: Step, generator: Generator) -> Step:
    return step


@contextmanager
def beside(visit: Visit) -> Iterator[None]:
    """On a stream of its own, as recording wants what ran before it."""
    if not visit.on_gpu:
        yield
        return
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        yield
    torch.cuda.current_stream().wait_stream(side)


def seconds(step: Step, n: int, device: str) -> float:
    """Wall seconds a step, the mean of n."""
    finish(device)
    start = time.perf_counter()
    for _ in range(n):
        step()
    finish(device)
    return (time.perf_counter() - start) / n


def parameters(run: Training) -> list[Tensor]:
    return [p.detach() for module in modules(run.state) for p in module.parameters()]


def alike(first: list[Tensor], second: list[Tensor]) -> str:
    """ "equal" to the bit, or how far apart."""
    if all(torch.equal(a, b) for a, b in zip(first, second, strict=True)):
        return "equal"
    far = max(float((a - b).abs().max()) for a, b in zip(first, second, strict=True))
    return f"up to {far:.1e} apart"
