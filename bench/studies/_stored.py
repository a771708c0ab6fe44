"""The stored scores of the oracle suite: studies that read them run nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pandas import DataFrame

SCORES = (Path("results/oracle/table.csv"), Path("results/published/oracle/table.csv"))
CONTROLS = ("unweighted", "sigma=1")  # what the labels of negative controls contain


def is_control(method: str) -> bool:
    """Whether the method is a negative control, not meant to arrive."""
    return any(word in method for word in CONTROLS)


def oracle_scores() -> DataFrame:
    """One row a run and metric; FileNotFoundError where the suite has not been run."""
    from pandas import read_csv

    for path in SCORES:
        if path.is_file():
            return read_csv(path)
    raise FileNotFoundError(
        f"there is no {SCORES[0]}: run the suite first, `tiltbench run --suite oracle`"
    )
