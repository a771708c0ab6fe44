"""What `run` shows while it works: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from tiltbench.engine.base import Event
from tiltbench.plan.cell import Cell
from tiltbench.records.record import Record


class Display(Protocol):
    """`watch` gets the events of running cells, `ended` the record of each."""

    def watch(self, event: Event) -> None: ...

    def ended(self, cell: Cell, record: Record) -> None: ...


@dataclass
class Forecast:
    """Time left: work is counted in cells, running ones by the share of their budget spent."""

    total: int
    done: int = 0
    shares: dict[str, float] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    def note(self, event: Event) -> None:
        self.shares[event.cell.id] = min(event.share, 1.0)

    def end(self, cell: Cell) -> None:
        self.shares.pop(cell.id, None)
        self.done += 1

    @property
    def left(self) -> str:
        worked = self.done + sum(self.shares.values())
        if worked < 0.5:
            return "time left unknown yet"
        rate = worked / (time.monotonic() - self.began)
        return f"about {duration((self.total - worked) / rate)} left"


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def summary(cell: Cell, record: Record) -> str:
    """One line on a cell that has ended."""
    calls = max(record.cost.get("train", [0, 0]))
    seconds = record.cost.get("seconds", 0.0)
    why = f": {record.reason}" if record.reason else ""
    return f"{cell.title}: {record.status}, {calls:,} calls, {seconds:.1f} s{why}"


class Plain:
    """A line for every cell that ends."""

    def __init__(self, forecast: Forecast) -> None:
        self.forecast = forecast

    def watch(self, event: Event) -> None:
        self.forecast.note(event)

    def ended(self, cell: Cell, record: Record) -> None:
        self.forecast.end(cell)
        done, total = self.forecast.done, self.forecast.total
        print(f"[{done}/{total}] {summary(cell, record)}; {self.forecast.left}", flush=True)


@dataclass
class Notebook:
    """The same, and what is running on a line of its own, written over every half second."""

    forecast: Forecast
    last: float = 0.0

    def watch(self, event: Event) -> None:
        self.forecast.note(event)
        if time.monotonic() - self.last > 0.5:
            self.last = time.monotonic()
            message = f"{event.cell.title}: {event.phase}, {event.share:.0%}; {self.forecast.left}"
            print(f"\r{message:100}", end="", flush=True)

    def ended(self, cell: Cell, record: Record) -> None:
        print("\r", end="")
        Plain(self.forecast).ended(cell, record)


@contextmanager
def display(total: int) -> Iterator[Display]:
    """Live on a terminal: one bar for the suite, one for each running cell.  In a notebook one line
    that is written over, and a line for every cell that ends; elsewhere those lines only."""
    from rich.console import Console

    console = Console()
    forecast = Forecast(total)
    if console.is_jupyter:
        yield Notebook(forecast)
        return
    if not console.is_terminal:
        yield Plain(forecast)
        return
    from rich.progress import BarColumn, Progress, TextColumn

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[note]}"),
        console=console,
        transient=True,
    ) as progress:
        yield _Live(forecast, progress)


class _Live:
    def __init__(self, forecast: Forecast, progress: object) -> None:
        from rich.progress import Progress, TaskID

        assert isinstance(progress, Progress)
        self.forecast, self.progress = forecast, progress
        self.all = progress.add_task(
            "cells", total=forecast.total, note="loading torch, once for all"
        )
        self.bars: dict[str, TaskID] = {}

    def watch(self, event: Event) -> None:
        self.forecast.note(event)
        cell = event.cell
        if cell.id not in self.bars:
            self.bars[cell.id] = self.progress.add_task(cell.title, total=1.0, note="")
        note = f"{event.phase}, {event.share:.0%}, at most {cell.budget.limits}"
        self.progress.update(self.bars[cell.id], completed=min(event.share, 1.0), note=note)
        self._count()

    def ended(self, cell: Cell, record: Record) -> None:
        self.forecast.end(cell)
        if cell.id in self.bars:
            self.progress.remove_task(self.bars.pop(cell.id))
        if not record.status.finished:
            self.progress.console.print(summary(cell, record), markup=False)
        self._count()

    def _count(self) -> None:
        done = self.forecast.done
        note = f"{done} of {self.forecast.total} cells, {self.forecast.left}"
        worked = done + sum(self.forecast.shares.values())
        self.progress.update(self.all, completed=worked, note=note)
