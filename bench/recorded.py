"""Which cells have a record, and what it is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiltbench.cell import Cell

if TYPE_CHECKING:
    from tiltbench.record import Record


def recorded_cells(cells: Sequence[Cell], runs: Path) -> dict[str, Record]:
    """The cells that count as done, with their records."""
    from tiltbench.record import done_record

    found = {cell.id: done_record(runs / f"{cell.id}.json") for cell in cells}
    return {run: record for run, record in found.items() if record is not None}


def is_stale(cell: Cell, record: Record | None, identity: Mapping[str, Any]) -> bool:
    from tiltbench.provenance import code_of, same_code

    return record is not None and not same_code(record.code, code_of(cell, identity))


def counts_as_good(record: Record) -> bool:
    from tiltbench.record import Status

    return record.status.finished or record.status is Status.UNSUPPORTED
