"""Watches over one cell from outside its process, here and inside a task of a cluster: its turn,
its time, its death, its record."""

from __future__ import annotations

import hashlib
import multiprocessing.connection
import os
import signal
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

from tiltbench.engine.base import Event, Watch
from tiltbench.engine.child import live
from tiltbench.engine.hold import Hold
from tiltbench.plan.cell import Cell, Limits
from tiltbench.processes import Workers
from tiltbench.records.provenance import code_of
from tiltbench.records.record import Record, Status, forget, read_record, write_record
from tiltbench.run.checkpoint import seconds_before
from tiltbench.run.failures import FULL

POLL = 0.2  # seconds between two looks at the clocks
RETRIES = 1  # of a process that was killed from outside
# 255 is what multiprocessing says where the fork server, which alone knows how the process ended,
# was killed with it: a worker of Ray whose driver is gone kills its children before it goes.
KILLED = (-signal.SIGKILL, -signal.SIGTERM, 255)


class Order(NamedTuple):
    """One cell to run, and all that its supervisor needs to know, on whichever machine."""

    cell: Cell
    folder: Path
    limits: Limits
    code: Mapping[str, Any]
    before: str  # stamp of the record that is to be replaced
    deaths: int = 0  # of workers and nodes that had this cell
    alone: bool = False  # on its GPU, because it ran out of memory beside others


def stamp(folder: Path, run: str) -> str:
    """Tells one record of a run from another; "" where there is none."""
    try:
        return hashlib.sha256((folder / f"{run}.json").read_bytes()).hexdigest()
    except FileNotFoundError:
        return ""


@dataclass
class Supervisor:
    """`poll` until it returns the record; `kill` whatever happens."""

    order: Order
    gpu: str = ""
    life: _Life | None = None
    retries: int = 0

    @property
    def cell(self) -> Cell:
        return self.order.cell

    def poll(self, watch: Watch) -> Record | None:
        """The record once there is one.  Until then the process is started, heard, tried again."""
        if self.life is None:
            hold = Hold.take(self.order.folder, self.cell.id)
            if hold is None:  # somebody else runs this cell: its record will do
                return None
            if stamp(self.order.folder, self.cell.id) not in ("", self.order.before):
                hold.release()
                return read_record(self.order.folder / f"{self.cell.id}.json")
            self.life = _Life.begin(self.order, self.gpu, hold)
            watch(Event(self.cell, "starting", 0.0))
        alive = self.life.listen(watch)
        late = self.life.seconds > self.order.limits.seconds
        if alive and not late:
            return None
        record = self.life.end(late, self.retries < RETRIES)
        deaths = self.order.deaths + self.retries
        if record is not None and deaths:
            record = replace(record, cost={**record.cost, "deaths": deaths})
            write_record(self.order.folder, record)
        self.kill()
        self.retries += record is None
        return record

    def kill(self) -> None:
        if self.life is not None:
            self.life.kill()
            self.life = None


def wait(supervisors: Iterable[Supervisor]) -> None:
    """Until one of their processes says something, or ends, or it is time to look at the clocks."""
    pipes = [s.life.pipe for s in supervisors if s.life is not None]
    multiprocessing.connection.wait(pipes, timeout=POLL)


@dataclass
class _Life:
    """The process of a cell, from its start to its end."""

    order: Order
    process: BaseProcess
    pipe: Connection
    hold: Hold
    code: Mapping[str, Any]
    oom_kills: int
    before: float  # seconds of the attempts that its checkpoint continues
    began: float = field(default_factory=time.monotonic)

    @staticmethod
    def begin(order: Order, gpu: str, hold: Hold) -> _Life:
        cell, folder = order.cell, order.folder
        forget(folder, cell.id)
        code = code_of(cell, order.code)
        before = seconds_before(folder, cell, code)
        context = Workers()
        ours, theirs = context.Pipe()
        args = (cell, folder, order.limits, code, gpu, theirs, hold)
        process = context.Process(target=live, args=args, name=cell.title, daemon=True)
        process.start()
        theirs.close()
        return _Life(order, process, ours, hold, code, _oom_kills(), before)

    @property
    def seconds(self) -> float:
        return self.before + time.monotonic() - self.began

    def listen(self, watch: Watch) -> bool:
        """Passes on the events of the child; False once it has ended."""
        last = None
        alive = True
        try:
            while self.pipe.poll():
                last = self.pipe.recv()
        except (EOFError, OSError):
            alive = False
        if last is not None and alive:
            watch(Event(self.order.cell, *last))
        return alive

    def stop(self) -> None:
        if self.process.is_alive():
            self.process.kill()
        self.process.join()

    def kill(self) -> None:
        self.stop()
        self.pipe.close()
        (self.order.folder / f"{self.order.cell.id}.log").unlink(missing_ok=True)
        self.hold.release()

    def end(self, late: bool, again: bool) -> Record | None:
        """The record of the cell, written here where the child could not; None where it was killed
        from outside and is to go on from its checkpoint, tried `again`.

        Raises OSError where the disk is full."""
        cell, folder = self.order.cell, self.order.folder
        if not late:
            self.process.join(
                60
            )  # its pipe has ended, so it is about to, however busy the machine is
        self.stop()
        path = folder / f"{cell.id}.json"
        if path.exists():
            return read_record(path)
        code = self.process.exitcode or 0
        if code in FULL:
            raise OSError(code, os.strerror(code), str(path))
        if late:
            status = Status.OUT_OF_TIME
            reason = f"stopped after its limit of {self.order.limits.seconds:g} s"
        elif _oom_kills() > self.oom_kills and code == -signal.SIGKILL:
            status, reason = Status.OUT_OF_MEMORY, "the system ran out of memory and killed it"
        elif code in KILLED and again:
            return None
        else:
            status = Status.FAILED
            cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            reason = f"its process ended without a record ({cause})"
        log = folder / f"{cell.id}.log"
        log_text = log.read_text(encoding="utf-8", errors="replace")[-4000:] if log.exists() else ""
        cost = {"seconds": self.seconds, "notes": []}
        record = Record(cell.spec, cell.labels, status, reason, log_text, cost, code=self.code)
        write_record(folder, record)
        return record


def _oom_kills() -> int:
    """How many processes this system has killed for memory since it started; 0 where unknown."""
    try:
        for line in Path("/proc/vmstat").read_text(encoding="ascii").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    except OSError:
        pass
    return 0
