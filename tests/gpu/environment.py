"""The machine, and what one launch, one synchronisation and one constant cost on it."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib import metadata
from typing import Any

import torch

from tests.gpu.layout import PACKAGES
from tests.gpu.section import Notes, Visit
from tiltbench.records.provenance import environment

OTHERS = ("scipy", "pandas", "pyarrow", "matplotlib", "jaxtyping", "hypothesis", "pytest")


def run(visit: Visit, notes: Notes) -> None:
    for name, value in facts(visit).items():
        notes.row("what is there", what=name, value=value)
    for name in OTHERS + tuple(PACKAGES):
        notes.row("what is there", what=name, value=version(name))
    for name, call in calls(visit.device).items():
        host, done = cost(call, visit)
        notes.row("one call", call=name, host_us=1e6 * host, done_us=1e6 * done)
    notes.say("host: until the call returns; done: a call of many until the device has done all.")


def facts(visit: Visit) -> dict[str, Any]:
    """What the record of a cell says of its machine, and a little more."""
    made = {
        **environment(visit.device),
        "device of a generator": str(torch.Generator(visit.device).device),
    }
    if not visit.on_gpu:
        return made | {"GPU": "none is used: this is the dry run"}
    properties = torch.cuda.get_device_properties(0)
    return made | {
        "memory, GB": properties.total_memory / 2**30,
        "multiprocessors": properties.multi_processor_count,
    }


def version(name: str) -> str:
    """Of a distribution, by the name of what it installs: importing them all would take seconds."""
    try:
        return metadata.version({"ot": "POT"}.get(name, name))
    except metadata.PackageNotFoundError:
        return "missing"


def calls(device: str) -> dict[str, Callable[[], Any]]:
    """Single calls of the sizes that occur in a training step of 256 paths."""
    x, y = torch.zeros(256, 2, device=device), torch.ones(256, 2, device=device)
    p = torch.zeros(256, 2, device=device, requires_grad=True)
    h, w = torch.zeros(256, 64, device=device), torch.zeros(64, 64, device=device)
    b, g = torch.zeros(64, device=device), torch.Generator(device)
    return {
        "x + y": lambda: x + y,
        "x + y, recorded for a gradient": lambda: p + y,
        "a view": lambda: x.view(-1),
        "a layer of 64": lambda: torch.nn.functional.linear(h, w, b),
        "noise": lambda: torch.randn(256, 2, generator=g, device=device),
        "a number read by the host": lambda: x[0, 0].item(),
        "33 numbers sent to the device": lambda: torch.tensor([0.5] * 33, device=device),
    }


def cost(call: Callable[[], Any], visit: Visit) -> tuple[float, float]:
    """Seconds a call: until it returns, and until all are done."""
    for _ in range(10):
        call()
    finish(visit.device)
    start, n = time.perf_counter(), visit.sizes.calls
    for _ in range(n):
        call()
    host = time.perf_counter() - start
    finish(visit.device)
    return host / n, (time.perf_counter() - start) / n


def finish(device: str) -> None:
    """Waits until the device has done what it was asked for."""
    if device == "cuda":
        torch.cuda.synchronize()
