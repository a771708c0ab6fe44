"""Where cells run: one process each, from a forkserver that has torch loaded (stack.md).

`run_cells` is the whole interface; another engine (a cluster) would offer the same function.
"""

from __future__ import annotations

import errno
import multiprocessing
import multiprocessing.connection
import multiprocessing.context
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from tiltbench.checkpoint import seconds_before
from tiltbench.provenance import code_of
from tiltbench.record import Record, Status, forget, read_record, write_record
from tiltbench.suite import Cell, Limits

# torch._dynamo: the first optimiser of a process imports it, which takes longer than a small cell.
PRELOAD = ["tiltbench.run", "tiltbench.samplers.presets", "torch._dynamo"]
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no fault of the cell: the run stops
POLL = 0.2  # seconds between two looks at the clocks


class Event(NamedTuple):
    """What a running cell says of itself: phase ("starting", "training", ...) and share of its
    training allowance spent."""

    cell: Cell
    phase: str
    share: float


Watch = Callable[[Event], None]


def forkserver() -> multiprocessing.context.ForkServerContext:
    """Processes that do not import from the current directory: a folder called tiltbench there, a
    clone of this repository, would stand in for the package."""
    os.environ["PYTHONSAFEPATH"] = "1"
    return multiprocessing.get_context("forkserver")


def run_cells(
    cells: Sequence[Cell],
    folder: Path,
    jobs: int,
    limits: Limits,
    code: Mapping[str, Any],
    watch: Watch = lambda event: None,
) -> Iterator[tuple[Cell, Record]]:
    """Runs the cells, `jobs` at a time, and yields each with its record as it ends.

    A cell over its time is killed (OUT_OF_TIME); one over its memory gets an allocation error
    (OUT_OF_MEMORY); a process that dies of a signal costs that cell only.  SIGKILL and SIGTERM from
    outside are no fault of the cell: it goes on from its checkpoint, once, and the death is counted
    in `cost["deaths"]`.  Leaving the iterator, by Ctrl-C too, kills what still runs.
    Raises OSError where the disk is full."""
    context = forkserver()
    context.set_forkserver_preload(PRELOAD)
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    waiting = list(reversed(cells))
    running: list[_Worker] = []
    deaths: dict[str, int] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                cell = waiting.pop()
                running.append(_Worker.start(context, cell, folder, limits, code))
                watch(Event(cell, "starting", 0.0))
            multiprocessing.connection.wait([w.pipe for w in running], timeout=POLL)
            for worker in list(running):
                alive = worker.listen(watch)
                late = worker.seconds > limits.seconds
                if alive and not late:
                    continue
                running.remove(worker)
                record = worker.finish(late, deaths.get(worker.cell.id, 0))
                if record is None:
                    deaths[worker.cell.id] = deaths.get(worker.cell.id, 0) + 1
                    waiting.append(worker.cell)
                else:
                    yield worker.cell, record
    finally:
        for worker in running:
            worker.kill()


@dataclass
class _Worker:
    """One cell in its process; the pipe carries progress, and its end means the process's end."""

    cell: Cell
    process: BaseProcess
    pipe: Connection
    folder: Path
    limits: Limits
    code: Mapping[str, Any]
    oom_kills: int
    before: float  # seconds of the attempts that its checkpoint continues
    began: float = field(default_factory=time.monotonic)

    @staticmethod
    def start(
        context: Any, cell: Cell, folder: Path, limits: Limits, code: Mapping[str, Any]
    ) -> _Worker:
        forget(folder, cell.id)
        code = code_of(cell, code)
        before = seconds_before(folder, cell, code)
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_child, args=(cell, folder, limits, code, theirs), name=cell.title, daemon=True
        )
        process.start()
        theirs.close()
        return _Worker(cell, process, ours, folder, limits, code, _oom_kills(), before)

    @property
    def seconds(self) -> float:
        return self.before + time.monotonic() - self.began

    def listen(self, watch: Watch) -> bool:
        """Passes on what the child said; False once it has ended."""
        last = None
        alive = True
        try:
            while self.pipe.poll():
                last = self.pipe.recv()
        except (EOFError, OSError):
            alive = False
        if last is not None and alive:
            watch(Event(self.cell, *last))
        return alive

    def kill(self) -> None:
        if self.process.is_alive():
            self.process.kill()
        self.process.join()
        self.pipe.close()
        (self.folder / f"{self.cell.id}.log").unlink(missing_ok=True)

    def finish(self, late: bool, deaths: int) -> Record | None:
        """The record of the cell, written here where the child could not; None: try once more."""
        if not late:
            self.process.join(5)  # its pipe has ended, so it is about to
        log = self.folder / f"{self.cell.id}.log"
        said = log.read_text(encoding="utf-8", errors="replace")[-4000:] if log.exists() else ""
        self.kill()
        path = self.folder / f"{self.cell.id}.json"
        if path.exists():
            return self._count(read_record(path), deaths)
        code = self.process.exitcode or 0
        if code in FULL:
            raise OSError(code, os.strerror(code), str(path))
        if late:
            status = Status.OUT_OF_TIME
            reason = f"stopped after its limit of {self.limits.seconds:g} s"
        elif _oom_kills() > self.oom_kills and code == -signal.SIGKILL:
            status, reason = Status.OUT_OF_MEMORY, "the system ran out of memory and killed it"
        elif code in (-signal.SIGKILL, -signal.SIGTERM) and deaths == 0:
            return None
        else:
            status = Status.FAILED
            cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            reason = f"its process ended without a record ({cause})"
        cost = {"seconds": self.seconds, "notes": []}
        record = Record(
            self.cell.spec, self.cell.labels, status, reason, said, cost, code=self.code
        )
        return self._count(record, deaths, write=True)

    def _count(self, record: Record, deaths: int, write: bool = False) -> Record:
        if deaths:
            record = replace(record, cost={**record.cost, "deaths": deaths})
        if deaths or write:
            write_record(self.folder, record)
        return record


def _child(
    cell: Cell, folder: Path, limits: Limits, code: Mapping[str, Any], pipe: Connection
) -> None:
    """The child: quiet, limited, gone when the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    threading.Thread(target=_die_with_parent, args=(pipe,), daemon=True).start()
    log = (folder / f"{cell.id}.log").open("w")
    _redirect(log)
    import faulthandler

    from tiltbench.run import run_cell

    faulthandler.enable()
    if cell.device == "cpu":
        _limit_memory(limits.megabytes)
    said = 0.0

    def progress(phase: str, share: float) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said > POLL or phase != "training":
            said = now
            pipe.send((phase, share))

    try:
        run_cell(cell, folder, progress, limits.threads, code, limits.checkpoint)
    except OSError as error:
        sys.exit(error.errno if error.errno in FULL else 1)


def _die_with_parent(pipe: Connection) -> None:
    """The parent never writes to the pipe: its end means that the parent is gone."""
    try:
        pipe.recv()
    except (EOFError, OSError):
        os._exit(1)


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


def _oom_kills() -> int:
    """How many processes this system has killed for memory since it started; 0 where unknown."""
    try:
        for line in Path("/proc/vmstat").read_text(encoding="ascii").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    except OSError:
        pass
    return 0


def _sweep(folder: Path) -> None:
    """Removes the temporary files and logs that a killed run left behind an hour ago or more."""
    for path in [*folder.glob(".*.tmp"), *folder.glob("*.log")]:
        try:
            if time.time() - path.stat().st_mtime > 3600:
                path.unlink()
        except FileNotFoundError:
            pass  # another run was quicker


def cores() -> int:
    """The CPU cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


def jobs_for(text: str, device: str, limits: Limits) -> int:
    """`--jobs`: a number, or "auto": cores over threads on the CPU, one at a time on a GPU."""
    if text != "auto":
        return max(int(text), 1)
    return 1 if device == "cuda" else max(cores() // limits.threads, 1)
