"""The lock of a results folder: one run at a time writes there, or several shards of one."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tiltbench.engine.shard import WHOLE, Shard
from tiltbench.plan.errors import Refused
from tiltbench.records.recorded import is_published


@contextmanager
def alone(out: Path, part: Shard = WHOLE) -> Iterator[None]:
    """Makes the folder and holds its lock, which the system drops however this process ends.
    Shards share the lock, and have one of their own each.

    Raises Refused where another run holds it, the folder cannot be written, or is a published one.
    """
    if is_published(out):
        raise Refused(f"{out} holds published results, which stay as they are; name another --out")
    whole = part == WHOLE
    lock_name = ".lock" if whole else f".lock.{part.which}-of-{part.parts}"
    try:
        (out / "runs").mkdir(parents=True, exist_ok=True)
        lock, shard_lock = (out / ".lock").open("a"), (out / lock_name).open("a")
    except OSError as error:
        raise Refused(
            f"results cannot be written to {out} ({error.strerror}); name another folder with --out"
        ) from error
    with lock, shard_lock:
        try:
            fcntl.flock(lock, (fcntl.LOCK_EX if whole else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            if not whole:
                fcntl.flock(shard_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Refused(
                f"another run is at work in {out}; wait for it, or name another folder with --out"
            ) from error
        except OSError as error:
            raise Refused(
                f"files cannot be locked in {out} ({error.strerror}); name a folder with --out "
                "whose file system has locks"
            ) from error
        yield
