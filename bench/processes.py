"""Worker processes: how they start, and that they end with the one that started them.

All are forked from one server that has PyTorch loaded.  They never import the main module of the
program that asks for them, so that a script needs no `if __name__ == "__main__"`, and a script from
standard input has workers as well.
"""

from __future__ import annotations

import io
import multiprocessing
import multiprocessing.context
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import cache
from multiprocessing import popen_forkserver, reduction, spawn, util
from multiprocessing.connection import Connection
from multiprocessing.forkserver import ForkServer
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tiltbench.plan.plugins import plug, plugged_files

# torch._dynamo: the first optimiser of a process imports it, which takes longer than a small cell.
PRELOAD = [
    "tiltbench.run.phases",
    "tiltbench.samplers.presets",
    "tiltbench.score.evaluate",
    "torch._dynamo",
]


@contextmanager
def pool(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """`jobs` workers of one thread each, which know the plug-ins of this process.

    Left by an exception, Ctrl-C included, it ends them at once and waits for nothing."""
    context = Workers()
    ours, theirs = context.Pipe()
    try:
        with ProcessPoolExecutor(jobs, context, _begin, (theirs, plugged_files())) as workers:
            try:
                yield workers
            except BaseException:
                ours.close()
                workers.shutdown(cancel_futures=True)
                raise
    finally:
        ours.close()
        theirs.close()


def _begin(pipe: Connection, plugins: list[Path]) -> None:
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    die_with_parent(pipe)
    torch.set_num_threads(1)
    list(plug(plugins))


def die_with_parent(pipe: Connection) -> None:
    """Ends this process as soon as the other end of the pipe is closed.  Nothing is ever written to
    that end, so its end means that the parent is gone, or has no more use for this process."""

    def watch() -> None:
        try:
            pipe.recv()
        except (EOFError, OSError):
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class _Process(multiprocessing.context.ForkServerProcess):
    @staticmethod
    def _Popen(process: BaseProcess) -> Any:
        return _Popen(process)


class Workers(multiprocessing.context.ForkServerContext):
    """The context of `multiprocessing` that all processes of this package start from."""

    Process = _Process


class _Popen(popen_forkserver.Popen):
    """That of the standard library, but for two things: the fork server is our own, so that one
    which the session uses itself stays as it is, and the child gets no main module."""

    _fds: list[int]

    def _launch(self, process: BaseProcess) -> None:
        preparation = spawn.get_preparation_data(process.name)
        preparation = {
            key: value for key, value in preparation.items() if not key.startswith("init_main")
        }
        buffer = io.BytesIO()
        multiprocessing.context.set_spawning_popen(self)
        try:
            reduction.dump(preparation, buffer)
            reduction.dump(process, buffer)
        finally:
            multiprocessing.context.set_spawning_popen(None)
        self.sentinel, out = _connected(self._fds)
        ours = os.dup(out)  # by its end the child knows that this process is gone
        self.finalizer = util.Finalize(self, _close, (ours, self.sentinel))
        with open(out, "wb") as file:
            file.write(buffer.getbuffer())
        self.pid = multiprocessing.forkserver.read_signed(self.sentinel)


def _close(*files: int) -> None:
    for file in files:
        os.close(file)


@cache
def _server() -> ForkServer:
    server = ForkServer()
    server.set_forkserver_preload(PRELOAD)
    return server


def _connected(fds: list[int]) -> tuple[int, int]:
    """Two ends of pipes to a new child.  The server is started without the current directory in its
    path: a folder called tiltbench there, a clone of this repository, would stand in for the
    package."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        ends: tuple[int, int] = _server().connect_to_new_process(fds)
        return ends
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before
