"""The largest batch: paths a second and memory as the number of paths grows."""

from __future__ import annotations

import time
from typing import Any

import torch

from tests.gpu.cases import training
from tests.gpu.environment import finish
from tests.gpu.section import Notes, Visit
from tests.tools.perf_page import high_water

RUNS = (  # target, sampler, the largest power of two that makes sense for it
    ("gmm9", "log_variance", 20),
    ("dw4", "log_variance[model=Equivariant]", 17),
    ("digits_even", "adjoint_matching", 15),
)
SMALLEST = 7  # 128 paths, as suites have them
SLOW = 1.5  # seconds an iteration, beyond which no larger batch is tried


def run(visit: Visit, notes: Notes) -> None:
    if not visit.on_gpu:
        notes.say("Memory of a GPU needs CUDA: here is the peak resident memory of the process.")
    for target, sampler, largest in RUNS[: None if visit.on_gpu else 1]:
        for power in range(SMALLEST, min(largest, visit.sizes.batch) + 1, 2 if visit.on_gpu else 1):
            try:
                seconds, row = enlarged(target, sampler, 2**power, visit)
            except (torch.OutOfMemoryError, MemoryError) as error:
                notes.say(f"{target}, {2**power:,} paths: {' '.join(str(error).split())[:150]}")
                break
            notes.row("batches", target=target, sampler=sampler, **row)
            if seconds > SLOW:
                break


def enlarged(target: str, sampler: str, paths: int, visit: Visit) -> tuple[float, dict[str, Any]]:
    """Seconds an iteration, and the row."""
    if visit.on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    run = training(target, sampler, visit.device, paths)
    run.step()
    finish(visit.device)
    start = time.perf_counter()
    for _ in range(2):
        run.step()
    finish(visit.device)
    seconds = (time.perf_counter() - start) / 2
    memory = torch.cuda.max_memory_allocated() / 2**20 if visit.on_gpu else high_water()
    return seconds, {
        "paths": paths,
        "ms": 1e3 * seconds,
        "paths_a_second": paths / seconds,
        "peak_MB": memory,
    }
