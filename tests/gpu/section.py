"""A section of the visit: what it is given, and the notes it takes."""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Sizes:
    """How much work the sections do."""

    calls: int  # of one kernel, when a call is timed
    paths: int  # of every training run that is compared between devices
    steps: int  # training steps of such a run
    points: int  # draws of such a run
    pairs: int  # comparisons: 0 is all of them
    cases: int  # timed: 0 is all of them
    rounds: int  # timings of one thing, at most
    seconds: float  # for the timings of one thing
    replays: int  # of a graph, beside as many eager steps
    side_by_side: tuple[int, ...]  # processes on one device
    window: float  # seconds in which their iterations are counted
    batch: int  # largest batch that is tried, as a power of two


FULL = Sizes(2000, 64, 3, 64, 0, 0, 40, 0.6, 100, (1, 4, 8, 14), 4.0, 20)
TINY = Sizes(20, 8, 2, 8, 6, 3, 3, 0.05, 3, (1, 2), 0.1, 8)


@dataclass(frozen=True)
class Visit:
    """Where the sections run, and how much they do."""

    device: str  # "cuda" or "cpu"
    sizes: Sizes
    folder: Path  # for files of their own
    missing: tuple[str, ...] = ()  # packages that are not installed: layout.PACKAGES

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"


class Notes:
    """What a section finds: printed as it comes, and kept line by line in a file, so that one
    that is stopped loses nothing of what it had."""

    def __init__(self, path: Path | None = None, quiet: bool = False) -> None:
        self.path, self.quiet = path, quiet
        self.lines: list[dict[str, Any]] = []

    def row(self, table: str, **cells: Any) -> None:
        """One row of the table of that title; a row may have cells that others lack."""
        self._keep(
            {"table": table, "cells": cells},
            ", ".join(f"{key.replace('_', ' ')} {shown(value)}" for key, value in cells.items()),
        )

    def say(self, sentence: str) -> None:
        self._keep({"said": sentence}, sentence)

    def fault(self, sentence: str) -> None:
        """Something is wrong: the visit goes on, and ends with exit code 1."""
        self._keep({"fault": sentence}, f"FAULT: {sentence}")

    def _keep(self, line: dict[str, Any], text: str) -> None:
        self.lines.append(line)
        if not self.quiet:
            print(f"  {text}", flush=True)
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, default=str) + "\n")


def shown(value: Any) -> str:
    """A number to three digits; nothing is a dash."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    if value != value or value in (float("inf"), -float("inf")):
        return str(value)
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a section's notes; a last one that was cut off is left out."""
    if not path.exists():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines


@dataclass(frozen=True)
class Section:
    """One part of the visit: `run(visit, notes)` of a module of this folder."""

    name: str
    module: str
    title: str
    seconds: float  # it is stopped after so many

    def run(self, visit: Visit, notes: Notes) -> None:
        importlib.import_module(f"tests.gpu.{self.module}").run(visit, notes)
