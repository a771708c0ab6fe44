"""The results of `tiltbench versus`, stored beside the runs that they are of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from tiltbench.records.archive import sha256
from tiltbench.records.files import read_json
from tiltbench.records.record import Record
from tiltbench.records.store import warn

if TYPE_CHECKING:
    from tiltbench.report.board import Board
    from tiltbench.trained.versus import Compared

FILE = "versus.json"


class Ahead(NamedTuple):
    """By how many nats a sampler is nearer to the target than another, and its error."""

    value: float
    error: float


class ComparedPair(msgspec.Struct):
    first: str
    second: str
    value: float
    error: float


class StoredComparison(msgspec.Struct):
    """A board's part of the file; `draws` are the SHA-256 of the draws of its runs."""

    board: tuple[str, int, str]
    pairs: list[ComparedPair]
    why: dict[str, str]
    draws: dict[str, str]


def stored_comparison(
    board: Board, records: Sequence[Record], compared: Compared, runs: Path
) -> dict[str, Any]:
    """JSON of a board's comparison."""
    pairs = [ComparedPair(one, two, by.value, by.se) for (one, two), by in compared.nearer.items()]
    sums = {record.id: _sum(runs / f"{record.id}.npz") for record in records}
    whole = StoredComparison((board.target, board.budget, board.limits), pairs, compared.why, sums)
    return dict(msgspec.to_builtins(whole))


def nearer(board: Board, folder: Path) -> tuple[Mapping[tuple[str, str], Ahead], Mapping[str, str]]:
    """Of every ordered pair that was compared, and why others were not; nothing where `versus` was
    not run, or runs have changed since, which is said on stderr."""
    path = folder / FILE
    if not path.exists():
        return {}, {}
    try:
        rows = msgspec.convert(read_json(path), list[StoredComparison])
    except (ValueError, msgspec.ValidationError) as error:
        warn(f"{path} cannot be read ({error}); `tiltbench versus {folder}` makes it anew")
        return {}, {}
    for row in rows:
        if row.board == (board.target, board.budget, board.limits):
            if any(
                _sum(folder / "runs" / f"{run}.npz") != checksum
                for run, checksum in row.draws.items()
            ):
                warn(f"{path} is of other draws; `tiltbench versus {folder}` compares these")
                return {}, {}
            forward = {(p.first, p.second): Ahead(p.value, p.error) for p in row.pairs}
            reverse = {(b, a): Ahead(-by.value, by.error) for (a, b), by in forward.items()}
            return {**forward, **reverse}, row.why
    return {}, {}


def _sum(path: Path) -> str:
    """Empty where the draws are not there: what is compared is drawn anew."""
    return sha256(path) if path.is_file() else ""
