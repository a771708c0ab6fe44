"""Training as it goes, for loggers: a line every thousand steps, and one at the end.

A logger is a class with a line `name = "..."`, named by a path or offered by an installed package
in the entry-point group `tiltbench.loggers`.  Nothing is logged unless one is asked for, and what
one raises ends its log and not the run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

from tiltbench.plan.cell import Cell
from tiltbench.targets.registry import Registry

EVERY = 1000  # steps from one line to the next
LOGGERS = Registry("logger", (), "tiltbench.loggers")
Note = Callable[[str], None]


class Logger(Protocol):
    """What a class must have; it is made in the process of the run, once it begins.

    `title` is "target · sampler · seed n", `run` the id that names the run's files, and `folder`
    where these are."""

    name: ClassVar[str]

    def __init__(self, title: str, run: str, folder: Path) -> None: ...

    def line(self, step: int, numbers: Mapping[str, float]) -> None:
        """`numbers` after `step` steps: `share` of the budget, `calls` of the target, `flops`
        and `seconds` of training so far, and what the sampler reports, such as `loss`."""

    def close(self) -> None:
        """Training is over, however it ended."""


@dataclass
class Logs:
    """Those of one run."""

    loggers: list[Logger] = field(default_factory=list)
    note: Note = lambda sentence: None  # where what a logger raises is kept
    last: int = -1  # the step of the last line

    @staticmethod
    def begun(names: Sequence[str], cell: Cell, folder: Path, note: Note) -> Logs:
        """One of each name, for a run whose files are in `folder`."""
        logs = Logs([], note)
        for name in names:
            try:
                logs.loggers.append(LOGGERS.load(name)(cell.title, cell.id, folder))
            except Exception as error:
                note(_lost(name, error))
        return logs

    def due(self, step: int, every: int = EVERY) -> bool:
        return bool(self.loggers) and step % every == 0 and step != self.last

    def line(self, step: int, numbers: Mapping[str, float]) -> None:
        self.last = step
        self._each(lambda logger: logger.line(step, numbers))

    def close(self) -> None:
        self._each(lambda logger: logger.close())
        self.loggers = []

    def _each(self, tell: Callable[[Logger], None]) -> None:
        for logger in list(self.loggers):
            try:
                tell(logger)
            except Exception as error:  # a full disk, a lost network: no fault of the run
                self.loggers.remove(logger)
                self.note(_lost(logger.name, error))


def _lost(name: str, error: Exception) -> str:
    message = " ".join(str(error).split())[:200]
    return f"logger {name} has stopped: {type(error).__name__}: {message}"
