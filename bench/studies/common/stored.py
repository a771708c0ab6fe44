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
    from tiltbench.records.recorded import is_published

    for root in ROOTS:
        folder = root / suite
        if is_published(folder) or next(folder.glob("runs/*.json"), None):
            return folder
    raise FileNotFoundError(
        f"there are no results of {suite}: run the suite first, `tiltbench run --suite {suite}`"
    )


def oracle_scores() -> DataFrame:
    """One row a run and metric; FileNotFoundError where the suite has not been run."""
    from tiltbench.records.published import results
    from tiltbench.report.frame import frames_of

    return frames_of(results(folder_of("oracle"))).scores
