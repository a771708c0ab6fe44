"""Processes side by side on one device: iterations a second of all of them together.

Small networks leave a GPU idle while the host prepares the next launch; so several cells on one GPU
do more than one, up to what cores and GPU bear.  `--gpu-share` rests on this table.
"""

from __future__ import annotations

import time
from multiprocessing.connection import Connection
from typing import NamedTuple

import torch

from tests.gpu.apart import answer
from tests.gpu.cases import Training, training
from tests.gpu.environment import finish
from tests.gpu.section import Notes, Visit
from tiltbench.processes import Workers
from tiltbench.targets.settings import standard

TARGET, SAMPLER = "gmm9", "log_variance"
READY_WITHIN = 60.0  # seconds for one process to start and step
WARM = 5


class Counted(NamedTuple):
    """Of one process."""

    rate: float  # iterations a second
    first: float  # seconds until its first iteration was done


def run(visit: Visit, notes: Notes) -> None:
    alone: float | None = None
    for many in visit.sizes.side_by_side:
        counted = beside(many, visit)
        rate = sum(one.rate for one in counted)
        alone = alone or rate
        notes.row(
            f"{SAMPLER} on {TARGET}",
            processes=many,
            iterations_a_second=rate,
            beside_one=rate / alone,
            seconds_to_the_first=max(one.first for one in counted),
        )


def beside(many: int, visit: Visit) -> list[Counted]:
    """Starts all, lets them begin together once each is warm, and asks each what it did."""
    workers = Workers()
    pairs = [workers.Pipe() for _ in range(many)]
    children = [
        workers.Process(target=iterate, args=(theirs, visit.device, visit.sizes.window))
        for _, theirs in pairs
    ]
    try:
        for child in children:
            child.start()
        firsts = [answer(ours, READY_WITHIN) for ours, _ in pairs]
        for ours, _ in pairs:
            ours.send("go")
        rates = [answer(ours, READY_WITHIN + visit.sizes.window) for ours, _ in pairs]
    finally:
        for child in children:
            if child.is_alive():
                child.join(5)
                child.kill()
    return [Counted(rate, first) for rate, first in zip(rates, firsts, strict=True)]


def iterate(pipe: Connection, device: str, window: float) -> None:
    """In a process of its own: says when it is warm, then counts iterations in `window` seconds."""
    torch.set_num_threads(1)
    try:
        with standard():
            run, first = warmed(device)
            pipe.send(("value", first))
            pipe.recv()
            start, done = time.perf_counter(), 0
            while time.perf_counter() - start < window:
                run.step()
                done += 1
            finish(device)
            pipe.send(("value", done / (time.perf_counter() - start)))
    except Exception as error:
        pipe.send(("error", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"))


def warmed(device: str) -> tuple[Training, float]:
    """A run that has stepped, and the seconds until its first iteration was done."""
    start = time.perf_counter()
    run = training(TARGET, SAMPLER, device)
    run.step()
    finish(device)
    first = time.perf_counter() - start
    for _ in range(WARM):
        run.step()
    finish(device)
    return run, first
