"""Worker processes: how they start, and that they end with the one that started them."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import multiprocessing.context
import os
import threading


def forkserver() -> multiprocessing.context.ForkServerContext:
    """Processes that do not import from the current directory: a folder called tiltbench there, a
    clone of this repository, would stand in for the package."""
    os.environ["PYTHONSAFEPATH"] = "1"
    return multiprocessing.get_context("forkserver")


def one_thread() -> None:
    """What a worker of a pool begins with."""
    import torch

    torch.set_num_threads(1)
    gone_with_parent()


def gone_with_parent() -> None:
    """Ends this process as soon as the one that ordered it has ended.  The forkserver between them
    says nothing of that: it lives as long as its children do."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
