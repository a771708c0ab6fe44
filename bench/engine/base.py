"""Where cells run: one interface.  `tiltbench.engine.local` has worker processes of this machine,
`tiltbench.engine.ray` the tasks of a Ray cluster; `tiltbench.cli.engine` knows them by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tiltbench.plan.cell import Cell
from tiltbench.records.record import Record


class Event(NamedTuple):
    """Progress of a running cell: phase ("starting", "training", ...) and share of its
    training budget spent."""

    cell: Cell
    phase: str
    share: float


Watch = Callable[[Event], None]


def unwatched(event: Event) -> None:
    """Nobody looks."""


class Engine(ABC):
    """Runs each cell in a process of its own under the limits of its suite."""

    @abstractmethod
    def run(
        self,
        cells: Sequence[Cell],
        folder: Path,
        code: Mapping[str, Any],
        watch: Watch = unwatched,
    ) -> Iterator[tuple[Cell, Record]]:
        """Yields each cell with its record as it ends; the files are in `folder` by then.

        A cell over its time is killed (OUT_OF_TIME); one over its memory gets an allocation error
        (OUT_OF_MEMORY); a process that dies of a signal costs that cell only.  What dies without
        fault of the cell (SIGKILL or SIGTERM from outside, a worker, a node) is tried again from
        its checkpoint, a stated number of times, and counted in `cost["deaths"]`.  A cell that
        another engine is running in the same folder is waited for, and its record taken.

        Leaving the iterator, by Ctrl-C too, ends what still runs.  `code` is that of
        `code_identity`."""

    @abstractmethod
    def __str__(self) -> str:
        """How many at a time and where, as in "63 cells to run, 2 at a time"."""
