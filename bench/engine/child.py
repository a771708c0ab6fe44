"""One cell in a process of its own, from a forkserver that has torch loaded: quiet,
limited, gone when its parent is gone."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TextIO

from tiltbench.engine.hold import Hold
from tiltbench.plan.cell import Cell, Limits
from tiltbench.processes import die_with_parent

SPEAK = 0.2  # seconds between two words of a child


def live(
    cell: Cell,
    folder: Path,
    limits: Limits,
    code: Mapping[str, Any],
    gpu: str,
    pipe: Connection,
    hold: Hold,
) -> None:
    """The life of the child.  `gpu` is the device it sees, "" those of its parent; `pipe` carries
    its progress to the parent, and its end means the process's end; `hold` is kept until then."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    die_with_parent(pipe)
    if gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # CUDA reads it when it is first used, below
    _redirect(opened(folder / f"{cell.id}.log"))
    import faulthandler

    from tiltbench.run.failures import FULL
    from tiltbench.run.phases import run_cell

    faulthandler.enable()
    if cell.device == "cpu":
        _limit_memory(limits.megabytes)
    reported = 0.0

    def progress(phase: str, share: float) -> None:
        nonlocal reported
        now = time.monotonic()
        if now - reported > SPEAK or phase != "training":
            reported = now
            pipe.send((phase, share))

    try:
        run_cell(cell, folder, progress, limits.threads, code, limits.checkpoint, limits.loggers)
    except OSError as error:
        sys.exit(error.errno if error.errno in FULL else 1)


def opened(log: Path) -> TextIO:
    """A new file at `log`, never what a link there points to."""
    log.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    return os.fdopen(os.open(log, flags, 0o666), "w")


def _redirect(log: TextIO) -> None:
    """What samplers print goes to the cell's log, not into the live display."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)


def _limit_memory(megabytes: int) -> None:
    """At most so much address space more than this process has now: torch maps gigabytes of its own
    without using them.  Allocations beyond it fail with an error that the record can show.  Where
    the system has no such limit (macOS ignores it) the cell runs without one."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limit = pages * resource.getpagesize() + megabytes * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    except (OSError, ValueError):
        pass
