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
from tiltbench.records.record import Record, Status, forget


@dataclass(frozen=True)
class Local(Engine):
    """One cell at a time in each of the `places`: names of GPUs, or "" for a place on the CPU.

    A cell that ran out of a GPU's memory while others held part of it is no cell out of memory: it
    is run once more, alone on a device, when no other is waiting."""

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
        crowded = list[Order]()  # to be run alone
        free, running = list(self.places), list[_Placed]()
        try:
            while waiting or crowded or running:
                while waiting and free:
                    place = roomiest(free)
                    free.remove(place)
                    running.append(_Placed.begin(waiting.pop(), (place,), running))
                while crowded and not waiting and (whole := self._whole(free)):
                    free = [place for place in free if place not in whole]
                    running.append(_Placed.begin(crowded.pop(), whole, running))
                for one in list(running):
                    record = one.supervisor.poll(watch)
                    if record is None:
                        continue
                    running.remove(one)
                    free += one.places
                    if one.company and lacked_memory(record):
                        crowded.append(undone(one.supervisor.order))
                    else:
                        yield one.supervisor.cell, record
                if running and not (waiting and free):  # else there is a place to fill at once
                    wait([one.supervisor for one in running])
        finally:
            for one in running:
                one.supervisor.kill()

    def _whole(self, free: Sequence[str]) -> tuple[str, ...]:
        """All the places of a device that nobody is on; none where there is no such device."""
        for place in free:
            if free.count(place) == self.places.count(place):
                return (place,) * free.count(place)
        return ()

    def __str__(self) -> str:
        gpus = len(set(self.places) - {""})
        return f"{len(self.places)} at a time" + (f" on {gpus} GPU" if gpus else "")


@dataclass(eq=False)
class _Placed:
    """A cell at work, and the places that it has."""

    supervisor: Supervisor
    places: tuple[str, ...]
    company: bool = False  # whether another cell has been on its GPU at any time

    @staticmethod
    def begin(order: Order, places: tuple[str, ...], beside: Sequence[_Placed]) -> _Placed:
        placed = _Placed(Supervisor(order, places[0]), places)
        for other in beside:
            if places[0] and other.places[0] == places[0]:
                placed.company = other.company = True
        return placed


def lacked_memory(record: Record) -> bool:
    """Whether the cell itself says so; what says nothing of its environment was killed, and lacked
    memory of the machine."""
    return record.status is Status.OUT_OF_MEMORY and bool(record.env)


def undone(order: Order) -> Order:
    """To be run again, as if it had not been: whoever stops now leaves no record of it."""
    again = order._replace(before=stamp(order.folder, order.cell.id), alone=True)
    forget(order.folder, order.cell.id)
    return again


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
