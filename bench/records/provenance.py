"""Where a result came from: version, commit, a hash of the code that decides it, machine."""

from __future__ import annotations

import os
import platform
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tiltbench.plan.cell import Cell
from tiltbench.plan.plugins import deciding, plugin_hash
from tiltbench.plan.source import package
from tiltbench.plan.spec import Spec
from tiltbench.samplers.registry import SAMPLERS
from tiltbench.targets.registry import TARGETS

HERE = Path(__file__).resolve().parents[1]
RUNNER = "run.phases"


def code_identity() -> dict[str, Any]:
    """{"version", "commit", "dirty"}; commit None outside git."""
    commit = _git("rev-parse", "HEAD")
    return {
        "version": _version(),
        "commit": commit,
        "dirty": bool(_git("status", "--porcelain")) if commit else None,
    }


def code_of(cell: Cell, identity: Mapping[str, Any]) -> dict[str, Any]:
    """`identity` with what decides the cell's result; see `deciding_code`."""
    return {**identity, **deciding_code(cell.target, cell.sampler)}


def deciding_code(target: Spec, sampler: Spec) -> dict[str, Any]:
    """{"syntax": 16 hex digits, "plugins": {name: 16 hex digits}} of a target and a sampler.

    `syntax` covers the files of this package that decide the result: those of target, sampler and
    their parts, the runner, and what they import (`plan.source`).  `plugins` covers what is named
    outside the package.  Records of earlier versions have "hash", over the bytes of every file."""
    modules, files = {RUNNER}, set()
    for named, registry in ((target, TARGETS), (sampler, SAMPLERS)):
        plugins, outside = deciding(named, registry)
        modules |= plugins
        files |= outside
    hashes = {named["name"]: plugin_hash(named["name"]) for named in (target, sampler)}
    return {
        "syntax": package().hash(modules, files),
        "plugins": {name: digits for name, digits in hashes.items() if digits},
    }


def same_code(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two records' `code` would have run alike; commits may differ by text alone.  Never
    for one of an earlier version, which says nothing that can be compared."""
    return "syntax" in one and all(one.get(key) == other.get(key) for key in ("syntax", "plugins"))


def of_earlier_version(code: Mapping[str, Any]) -> bool:
    """Whether a record's `code` has the hash of bytes that earlier versions wrote."""
    return "hash" in code and "syntax" not in code


def _version() -> str:
    try:
        return version("tiltbench")
    except PackageNotFoundError:
        return "unknown"


def _git(*arguments: str) -> str | None:
    """git's answer about the checkout this file lies in; None where there is none.

    `dirty` looks at the three source folders only: results and notes do not change a run."""
    root = HERE.parent
    if not (root / ".git").exists():
        return None
    paths = ["--", "bench", "targets", "samplers"] if arguments[0] == "status" else []
    try:
        done = subprocess.run(
            ["git", *arguments, *paths], cwd=root, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def environment(device: str) -> dict[str, Any]:
    """The record's `env`; of a GPU also what its numbers hang on (`_gpu`)."""
    import numpy as np
    import torch

    cuda = device == "cuda"
    return {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "device": device,
        "device_name": _or_none(torch.cuda.get_device_name) if cuda else _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "os": platform.platform(),
        "machine": platform.machine(),
        **(_gpu() if cuda else {}),
    }


def _gpu() -> dict[str, Any]:
    """Versions of CUDA, cuDNN and the driver, the compute capability ("9.0"), and whether TF32 is
    allowed now; None where it cannot be known."""
    import torch

    from tiltbench.targets import precision

    capability = _or_none(torch.cuda.get_device_capability)
    cudnn = _or_none(torch.backends.cudnn.version)
    return {
        "cuda": torch.version.cuda,
        "cudnn": None if cudnn is None else str(cudnn),
        "driver": _driver(),
        "capability": None if capability is None else "{}.{}".format(*capability),
        "tf32": precision.allowed(),
    }


def _or_none(ask: Callable[[], Any]) -> Any:
    """None where it cannot be had: after an error of CUDA every question to the device raises it
    again, and the record of that error is still to be written."""
    try:
        return ask()
    except Exception:
        return None


DRIVER = Path("/proc/driver/nvidia/version")


def _driver() -> str | None:
    try:
        match = re.search(r"Module\b.*?\b(\d+\.[\d.]+)", DRIVER.read_text(encoding="utf-8"))
    except OSError:
        return None  # not Linux, or no NVIDIA
    return match[1] if match else None


@lru_cache
def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def forget_peak(device: str) -> None:
    """From here on `peak_memory` is that of one cell, not of all that this process ran; on a CPU
    where the system can forget it, as Linux does."""
    if device == "cuda":
        import torch

        if torch.cuda.is_initialized():
            torch.cuda.reset_peak_memory_stats()
        return
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory(device: str) -> float:
    """MB since `forget_peak`: the process's largest resident size, or what torch held at most on
    the GPU."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() / 2**20
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, kilobytes here
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
