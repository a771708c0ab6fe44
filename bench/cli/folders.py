"""Which results folder a command means."""

from __future__ import annotations

from pathlib import Path

from tiltbench.cli.words import RESULTS
from tiltbench.plan.errors import Refused


def results_folder(name: str) -> Path:
    """The results folder of a suite's name or of a path.  Raises Refused."""
    for folder in (Path(name), RESULTS / name):
        if (folder / "runs").is_dir():
            return folder
    raise Refused(f"there are no results in {name} nor in {RESULTS / name}; run the suite first")


def filled(name: str) -> Path:
    """The same, with at least one run that counts as done.  Raises Refused."""
    folder = results_folder(name)
    from tiltbench.records.store import records

    if not records(folder / "runs"):
        raise Refused(f"{folder} holds no records of runs; run the suite first")
    return folder


def readable_folder(name: str) -> Path:
    """The same where records are readable: scores are read without draws.  Raises Refused."""
    from tiltbench.records.store import readable

    folder = results_folder(name)
    if not readable(folder / "runs"):
        raise Refused(f"{folder} holds no records of runs; run the suite first")
    return folder
