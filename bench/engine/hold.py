"""The files of a run belong to one process at a time, on all machines that share the folder."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any


@dataclass
class Hold:
    """A lock on `<id>`'s files (flock on `.<id>.lock`).

    Handed to a child process it is the same lock, held until both have let go or are dead: a child
    that outlives its parent for a moment still keeps others out."""

    path: Path
    file: int

    @staticmethod
    def take(folder: Path, run: str) -> Hold | None:
        """The lock, or None where somebody has it.  Raises OSError where the file system has no
        locks."""
        path = folder / f".{run}.lock"
        while True:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(file), os.stat(path)):
                    return Hold(path, file)
            except BlockingIOError:
                os.close(file)
                return None
            except FileNotFoundError:
                pass
            except OSError:
                os.close(file)
                raise
            os.close(file)  # who had it before removed the file after we had opened it: again

    def release(self) -> None:
        self.path.unlink(missing_ok=True)  # while it is ours, lest two hold two files of one name
        os.close(self.file)

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (self.path, DupFd(self.file))


def _received(path: Path, file: Any) -> Hold:
    return Hold(path, file.detach())
