"""Which results folder a command means."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tiltbench.cli.arguments import RESULTS
from tiltbench.cli.options import option
from tiltbench.plan.errors import Refused

Results = Annotated[str, option("a suite that was run, or the folder of its results")]


def results_folder(name: str) -> Path:
    """The results folder of a suite's name or of a path, or else the published one of that name.
    Raises Refused."""
    from tiltbench.records.recorded import is_published

    for folder in (Path(name), RESULTS / name, RESULTS / "published" / name):
        if (folder / "runs").is_dir() or is_published(folder):
            return folder
    raise Refused(f"there are no results in {name} nor in {RESULTS / name}; run the suite first")


def filled(name: str) -> Path:
    """A results folder with at least one run whose draws are there.  Raises Refused."""
    from tiltbench.records.recorded import is_published
    from tiltbench.records.store import records

    folder = results_folder(name)
    if is_published(folder):
        raise Refused(
            f"{folder} is published without its draws; name their archive with --draws, or run the "
            "suite"
        )
    if not records(folder / "runs"):
        raise Refused(f"{folder} holds no records of runs; run the suite first")
    return folder


def readable_folder(name: str) -> Path:
    """The same where records are readable: scores are read without draws.  Raises Refused."""
    from tiltbench.records.recorded import is_published
    from tiltbench.records.store import readable

    folder = results_folder(name)
    if not is_published(folder) and not readable(folder / "runs"):
        raise Refused(f"{folder} holds no records of runs; run the suite first")
    return folder
