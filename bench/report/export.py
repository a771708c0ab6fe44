"""`tiltbench export`: tidy scores for other programs, and draws for ArviZ."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tiltbench.metric import Outcome
from tiltbench.plan.errors import BadSpec
from tiltbench.records.files import write_bytes
from tiltbench.records.record import read_outcome
from tiltbench.report.frame import collect

if TYPE_CHECKING:
    from pandas import DataFrame


def write_scores(folder: Path, file: Path) -> int:
    """The tidy scores of a results folder as `file`, .csv or .parquet: a row for every run and
    metric (columns: `report.frame.COLUMNS`).  Returns the number of rows.

    Raises BadSpec for another ending, and for a folder that is not there."""
    if not file.parent.is_dir():
        raise BadSpec(f"there is no folder {file.parent} for {file.name}; make it, or name another")
    scores = collect(folder).scores
    write_bytes(file, table_bytes(scores, file.suffix))
    return len(scores)


def table_bytes(frame: DataFrame, ending: str) -> bytes:
    match ending:
        case ".csv":
            return frame.to_csv(index=False).encode()
        case ".parquet":
            data: bytes = frame.to_parquet(index=False)
            return data
    raise BadSpec(f"scores are written as .csv or .parquet, weights as .pt, not as {ending!r}")


def inference_data(folder: Path, run: str) -> Any:
    """The draws of a run as ArviZ InferenceData: posterior x, (chain, draw, dim); where there are
    weights also sample_stats log_w, (chain, draw).

    Groups of equal size are the chains; otherwise all draws are one.  Raises BadSpec where ArviZ is
    not installed, or the run has no draws."""
    arviz = _needed("arviz", "InferenceData")
    try:
        outcome = read_outcome(folder / "runs", run)
    except (OSError, ValueError, KeyError) as error:
        raise BadSpec(
            f"{folder} has no draws of a run {run!r}; the column id of its runs names them"
        ) from error
    order, chains = _chains(outcome)
    x, log_w = outcome.draws.x[order], outcome.draws.log_w
    groups = {"posterior": {"x": x.unflatten(0, (chains, -1)).numpy()}}
    if log_w is not None:
        groups["sample_stats"] = {"log_w": log_w[order].unflatten(0, (chains, -1)).numpy()}
    return arviz.from_dict(**groups)


def _chains(outcome: Outcome) -> tuple[torch.Tensor, int]:
    """(indices of the draws chain by chain, number of chains)."""
    group, n = outcome.draws.group, len(outcome.draws.x)
    if group is None:
        return torch.arange(n), 1
    sizes = torch.unique(group, return_counts=True)[1]
    if len(sizes) == n or len(sizes.unique()) > 1:
        return torch.arange(n), 1
    return torch.argsort(group, stable=True), len(sizes)


def _needed(library: str, what: str) -> Any:
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise BadSpec(f"{what} needs {library}; install it with pip install {library}") from error
