"""Work in a process of its own, forked from one that has PyTorch loaded."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from tiltbench.processes import Workers


def apart(seconds: float, work: Callable[..., Any], *given: Any) -> Any:
    """What `work(*given)` returns; both must be picklable.

    Raises TimeoutError after `seconds`, RuntimeError with what the work raised or where its process
    died."""
    workers = Workers()
    ours, theirs = workers.Pipe()
    child = workers.Process(target=tell, args=(theirs, work, given))
    child.start()
    theirs.close()
    try:
        return answer(ours, seconds)
    finally:
        child.join(0.5)
        child.kill()


def tell(pipe: Connection, work: Callable[..., Any], given: tuple[Any, ...]) -> None:
    """In the child."""
    import torch

    from tiltbench.targets.settings import standard

    torch.set_num_threads(1)
    try:
        with standard():
            pipe.send(("value", work(*given)))
    except Exception as error:
        pipe.send(("error", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"))


def answer(pipe: Connection, seconds: float) -> Any:
    """What `tell` sends next."""
    if not pipe.poll(seconds):
        raise TimeoutError(f"nothing came for {seconds:.0f} s")
    try:
        kind, value = pipe.recv()
    except EOFError:
        raise RuntimeError("its process died") from None
    if kind == "error":
        raise RuntimeError(value)
    return value
