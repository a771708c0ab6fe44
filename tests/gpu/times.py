"""A training iteration and drawing on the device, and beside them on one thread of the CPU.

torch.profiler counts what the host asks of the GPU in one iteration: launches of kernels, and calls
that wait for them.  At a few microseconds a launch and some tens a wait, their numbers say whether
an iteration of small networks can be fast.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import torch

from tests.gpu.cases import CASES, training
from tests.gpu.environment import finish
from tests.gpu.section import Notes, Visit

DRAWN = 2000
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy")


def run(visit: Visit, notes: Notes) -> None:
    if not visit.on_gpu:
        notes.say("Launches and synchronisations need CUDA: here are the times of the CPU alone.")
    labels = list(CASES)[: visit.sizes.cases or None]
    for label in labels:
        try:
            row = {"iteration": label, **measured(label, visit)}
        except Exception as error:
            notes.fault(f"{label}: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
            continue
        notes.row("milliseconds", **row)


def measured(label: str, visit: Visit) -> dict[str, Any]:
    """Medians, in milliseconds; counts of one iteration."""
    cpu = timed(label, "cpu", visit)
    if not visit.on_gpu:
        return {"CPU step": cpu["step"], "CPU draw": cpu["draw"]}
    torch.cuda.reset_peak_memory_stats()
    gpu = timed(label, "cuda", visit)
    return {
        "GPU step": gpu["step"],
        "CPU step": cpu["step"],
        "times faster": cpu["step"] / gpu["step"],
        **profiled(label),
        "GPU draw": gpu["draw"],
        "CPU draw": cpu["draw"],
        "peak MB": torch.cuda.max_memory_allocated() / 2**20,
    }


def timed(label: str, device: str, visit: Visit) -> dict[str, float]:
    run = training(*CASES[label], device, small(visit))
    for _ in range(2):
        run.step()
    step = median(run.step, device, visit)
    n = DRAWN if visit.on_gpu else visit.sizes.points

    def draw() -> None:
        run.sampler.draw(run.problem, run.state, n, run.generator)

    return {"step": 1e3 * step, "draw": 1e3 * median(draw, device, visit, most=3)}


def small(visit: Visit) -> int:
    """Paths of the dry run; 0: as many as the sampler has."""
    return 0 if visit.on_gpu else visit.sizes.paths


def median(call: Callable[[], Any], device: str, visit: Visit, most: int | None = None) -> float:
    """Wall seconds of a call, the device waited for; of three calls or more while time lasts."""
    seconds: list[float] = []
    finish(device)
    end = time.perf_counter() + visit.sizes.seconds
    while len(seconds) < (most or visit.sizes.rounds):
        start = time.perf_counter()
        call()
        finish(device)
        seconds.append(time.perf_counter() - start)
        if time.perf_counter() > end and len(seconds) >= min(3, most or 3):
            break
    return sorted(seconds)[len(seconds) // 2]


def profiled(label: str) -> dict[str, float]:
    """What the host asks of the GPU in one iteration, and how long its kernels take."""
    from torch.profiler import ProfilerActivity, profile

    run = training(*CASES[label], "cuda")
    for _ in range(2):
        run.step()
    finish("cuda")
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        run.step()
        finish("cuda")
    return asked(seen.key_averages(), ours=1)


def asked(events: Iterable[Any], ours: int = 0) -> dict[str, float]:
    """Launches, waits (less `ours`) and kernel milliseconds in a profile's averages by key."""
    launches = waits = 0
    microseconds = 0.0
    for event in events:
        if "LaunchKernel" in event.key:
            launches += event.count
        if event.key in WAITS:
            waits += event.count
        microseconds += getattr(event, "self_device_time_total", 0.0)
    return {"launches": launches, "waits": waits - ours, "kernels": microseconds / 1e3}
