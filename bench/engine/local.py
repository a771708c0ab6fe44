"""Cells in worker processes of this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiltbench.engine.base import Engine, Watch, unwatched
from tiltbench.engine.gpus import roomiest
from tiltbench.engine.hold import Hold
from tiltbench.engine.supervisor import Order, Supervisor, stamp, wait
from tiltbench.plan.cell import Cell, Limits
from tiltbench.records.record import Record


@dataclass(frozen=True)
class Local(Engine):
    """One cell at a time in each of the `places`: names of GPUs, or "" for a place on the CPU."""

    places: tuple[str, ...]
    limits: Limits

    def run(
        self,
        cells: Sequence[Cell],
        folder: Path,
        code: Mapping[str, Any],
        watch: Watch = unwatched,
    ) -> Iterator[tuple[Cell, Record]]:
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        waiting = [Order(c, folder, self.limits, code, stamp(folder, c.id)) for c in cells[::-1]]
        free, running = list(self.places), list[Supervisor]()
        try:
            while waiting or running:
                while waiting and free:
                    place = roomiest(free)
                    free.remove(place)
                    running.append(Supervisor(waiting.pop(), place))
                for supervisor in list(running):
                    record = supervisor.poll(watch)
                    if record is not None:
                        running.remove(supervisor)
                        free.append(supervisor.gpu)
                        yield supervisor.cell, record
                if running and not (waiting and free):  # else there is a place to fill at once
                    wait(running)
        finally:
            for supervisor in running:
                supervisor.kill()

    def __str__(self) -> str:
        return f"{len(self.places)} at a time"


def sweep(folder: Path) -> None:
    """Removes the temporary files and logs that a killed run left behind an hour ago or more, and
    locks that nobody holds."""
    for path in [*folder.glob(".*.tmp"), *folder.glob("*.log")]:
        try:
            if time.time() - path.stat().st_mtime > 3600:
                path.unlink()
        except FileNotFoundError:
            pass  # another run was quicker
    for path in folder.glob(".*.lock"):
        hold = Hold.take(folder, path.name[1 : -len(".lock")])
        if hold is not None:
            hold.release()


def cores() -> int:
    """The CPU cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


def jobs_for(jobs: int | None, device: str, limits: Limits) -> int:
    """`--jobs`; without it cores over threads on the CPU, one at a time on a GPU."""
    if jobs is not None:
        return jobs
    return 1 if device == "cuda" else max(cores() // limits.threads, 1)
