"""The records and scores of a results folder, read with care."""

from __future__ import annotations

import sys
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiltbench.records.files import read_json
from tiltbench.records.record import Record, read_record
from tiltbench.records.shapes import ScoresShape, check

if TYPE_CHECKING:
    pass


def done_record(path: Path) -> Record | None:
    """The record at `path` where its run counts as done: readable, and where it finished with whole
    draws beside it.  A broken file is named on stderr and counts as not done."""
    if not path.exists():
        return None
    try:
        record = read_record(path)
    except ValueError as error:
        warn(str(error))
        return None
    draws = path.with_suffix(".npz")
    if not record.status.finished:
        return record
    if draws.exists() and not zipfile.is_zipfile(draws):
        warn(f"{draws} is cut short; the same `tiltbench run` makes it anew")
        return None
    return record if draws.exists() else None


def undamaged(path: Path) -> Record | None:
    """What `done_record` accepts, where draws and learning curve can be read to their ends as well.
    What cannot is named on stderr: the run is to be made anew."""
    record = done_record(path)
    if record is None or not record.status.finished:
        return record
    for arrays in (path.with_suffix(".npz"), path.with_suffix(".curve.npz")):
        if arrays.exists() and _damaged(arrays):
            warn(f"{arrays} is damaged; its run is made anew")
            return None
    return record


def _damaged(arrays: Path) -> bool:
    try:
        with zipfile.ZipFile(arrays) as archive:
            return archive.testzip() is not None
    except (OSError, ValueError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error):
        return True


def records(folder: Path) -> list[Record]:
    """Every record of a runs folder that `done_record` accepts."""
    result = []
    for path in sorted(folder.glob("*.json")):
        if path.name.count(".") > 1:
            continue  # scores and other things beside a record
        record = done_record(path)
        if record is not None:
            result.append(record)
    return result


def readable(runs: Path) -> list[Record]:
    """Every readable record.  Whoever reads scores (report, diff, export, studies) goes by this
    rule: a published set has no draws, and needs none.  Whoever has draws to make or to score (run,
    status, score, publish) goes by `record.records`, for which a finished run has whole draws."""
    result = []
    for path in sorted(runs.glob("*.json")):
        if path.name.count(".") == 1:
            try:
                result.append(read_record(path))
            except ValueError as error:
                warn(str(error))
    return result


def warn(sentence: str) -> None:
    print(f"warning: {sentence}", file=sys.stderr)


def read_scores(runs: Path, run: str) -> dict[str, Any] | None:
    """The scores file of a run; None where it has not been scored.

    Raises ValueError, naming the file, where it is broken."""
    path = runs / f"{run}.scores.json"
    if not path.exists():
        return None
    try:
        scores: dict[str, Any] = read_json(path)
        check(scores, ScoresShape)
        return scores
    except ValueError as error:
        raise ValueError(f"{path} holds no scores ({error}); score the run again") from error
