"""The lock of a results folder: one run at a time writes there."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tiltbench.words import Refused


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Makes the folder and holds its lock, which the system drops however this process ends.

    Raises Refused where another run holds it or the folder cannot be written."""
    try:
        (out / "runs").mkdir(parents=True, exist_ok=True)
        lock = (out / ".lock").open("w")
    except OSError as error:
        raise Refused(
            f"results cannot be written to {out} ({error.strerror}); name another folder with --out"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Refused(
                f"another run is at work in {out}; wait for it, or name another folder with --out"
            ) from error
        yield
