"""The stored results of suites: studies that read them run nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pandas import DataFrame

ROOTS = (Path("results"), Path("results/published"))
CONTROLS = ("unweighted", "sigma=1")  # what the labels of negative controls contain


def is_control(method: str) -> bool:
    """Whether the method is a negative control, not meant to arrive."""
    return any(word in method for word in CONTROLS)


def folder_of(suite: str) -> Path:
    """Where the suite's own results lie, or else the published ones; FileNotFoundError where there
    are neither."""
    for root in ROOTS:
        if (root / suite / "table.csv").is_file():
            return root / suite
    raise FileNotFoundError(
        f"there are no results of {suite}: run the suite first, `tiltbench run --suite {suite}`"
    )


def oracle_scores() -> DataFrame:
    """One row a run and metric; FileNotFoundError where the suite has not been run."""
    from pandas import read_csv

    return read_csv(folder_of("oracle") / "table.csv")
