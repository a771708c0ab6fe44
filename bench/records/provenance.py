"""Where a result came from: version, commit, a hash of the source that decides a run, machine."""

from __future__ import annotations

import hashlib
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tiltbench.plan.cell import Cell
from tiltbench.plan.plugins import plugin_hash

HERE = Path(__file__).resolve().parents[1]


def code_identity() -> dict[str, Any]:
    """{"version", "commit", "dirty", "hash"}; commit None outside git."""
    commit = _git("rev-parse", "HEAD")
    return {
        "version": _version(),
        "commit": commit,
        "dirty": bool(_git("status", "--porcelain")) if commit else None,
        "hash": source_hash(),
    }


def code_of(cell: Cell, identity: Mapping[str, Any]) -> dict[str, Any]:
    """`identity` and {"plugins": {name: hash}}: what the cell names outside the package."""
    names = (cell.target["name"], cell.sampler["name"])
    hashes = {name: plugin_hash(name) for name in names}
    return {**identity, "plugins": {name: digest for name, digest in hashes.items() if digest}}


def same_code(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two records' `code` would have run alike; commits may differ by text alone."""
    return all(one.get(key) == other.get(key) for key in ("hash", "plugins"))


def source_hash() -> str:
    """16 hex digits over every source file of targets/ and samplers/ and the runner in bench/."""
    import tiltbench.samplers
    import tiltbench.targets

    files = [*HERE.glob("run/*.py"), *HERE.glob("records/*.py"), *HERE.glob("plan/*.py")]
    for package in (tiltbench.targets, tiltbench.samplers):
        files += Path(str(package.__file__)).parent.rglob("*.py")
    return _digest(sorted(files))


def _digest(files: Iterable[Path]) -> str:
    total = hashlib.sha256()
    for path in files:
        content = path.read_bytes()
        total.update(f"{path.name} {len(content)}\n".encode())
        total.update(content)
    return total.hexdigest()[:16]


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
    """The record's `env`."""
    import numpy as np
    import torch

    cuda = device == "cuda"
    return {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "device": device,
        "device_name": torch.cuda.get_device_name() if cuda else _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "os": platform.platform(),
        "machine": platform.machine(),
    }


@lru_cache
def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def peak_memory(device: str) -> float:
    """MB: the process's largest resident size, or what torch held on the GPU at most."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() / 2**20
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, kilobytes here
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
