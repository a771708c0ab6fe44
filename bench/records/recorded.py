"""Which cells have a record, and what it is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiltbench.plan.cell import Cell

if TYPE_CHECKING:
    from tiltbench.records.record import Record

RUNS = "runs.parquet"  # of a published set (records.published)


def is_published(folder: Path) -> bool:
    """Whether a folder of results is a published one.  Asked by commands before they need torch."""
    return (folder / RUNS).is_file()


def recorded_cells(cells: Sequence[Cell], runs: Path) -> dict[str, Record]:
    """The cells that count as done, with their records."""
    from tiltbench.records.store import undamaged

    by_id = {cell.id: undamaged(runs / f"{cell.id}.json") for cell in cells}
    return {run: record for run, record in by_id.items() if record is not None}


def gpu_peak(runs: Path) -> float | None:
    """MB: the most that a recorded run held on a GPU; None where none has run on one."""
    from tiltbench.records.record import read_record

    most = 0.0
    for path in runs.glob("*.json"):
        if path.name.count(".") > 1:
            continue
        with suppress(ValueError):  # it is named where records are asked for
            record = read_record(path)
            if record.spec.get("device") == "cuda":
                most = max(most, float(record.cost.get("peak_memory_mb") or 0.0))
    return most or None


def namesakes(cells: Sequence[Cell], runs: Path) -> list[Record]:
    """Records of other runs that tables would take for one more seed of a cell here: the same
    target, sampler and limits of training, with other draws, parameters or versions."""
    from tiltbench.records.store import done_record

    mine = {cell.id for cell in cells}
    names = {_name(cell.labels, cell.spec) for cell in cells}
    others = [
        done_record(path)
        for path in sorted(runs.glob("*.json"))
        if path.name.count(".") == 1 and path.stem not in mine
    ]
    return [r for r in others if r is not None and _name(r.labels, r.spec) in names]


def _name(labels: Mapping[str, str], spec: Mapping[str, Any]) -> tuple[Any, ...]:
    budget = spec["budget"]  # one leaderboard has one set of limits (report/frame.py)
    limits = (budget["train"][0], budget.get("flops"), budget.get("seconds"))
    return labels["target"], labels["sampler"], spec["seed"], *limits


def is_stale(cell: Cell, record: Record | None, identity: Mapping[str, Any]) -> bool:
    from tiltbench.records.provenance import code_of, same_code

    return record is not None and not same_code(record.code, code_of(cell, identity))


def counts_as_good(record: Record) -> bool:
    from tiltbench.records.record import Status

    return record.status.finished or record.status is Status.UNSUPPORTED
