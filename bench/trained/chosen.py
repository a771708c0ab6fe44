"""One recorded run, by its id, by some of it, or by one of its files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tiltbench.plan.errors import Refused
from tiltbench.records.record import FILES, Record, read_record
from tiltbench.records.recorded import is_published
from tiltbench.records.store import readable

LISTED = 8  # runs that a sentence names
ID = re.compile(r"[0-9a-f]{1,16}")


class Chosen(NamedTuple):
    runs: Path  # the folder of its files
    record: Record


def chosen(text: str, results: Path) -> Chosen:
    """The run that `text` names: a path of one of its files, FOLDER/ID or ID, where FOLDER is one
    of results, by its path or by its name in `results`, and ID as many digits as tell it from
    others; or a FOLDER of one run.  Raises Refused, with the ids there are."""
    path = Path(text)
    if any(text.endswith(suffix) for suffix in FILES) and path.parent.is_dir():
        return _of_file(path)
    if folder := _folder(path, results):
        return _only(_records(folder), f"{folder} holds", folder)
    inside = _folder(path.parent, results) if len(path.parts) > 1 else None
    if not ID.fullmatch(path.name) or (len(path.parts) > 1 and inside is None):
        raise Refused(
            f"there is no run {text or repr(text)}; name one as FOLDER/ID, such as adhoc/3f2a, or "
            "the folder alone, which lists its runs"
        )
    folders = [inside] if inside else _folders(results)
    matches = [
        c for folder in folders for c in _records(folder) if c.record.id.startswith(path.name)
    ]
    if not matches:
        where = str(inside) if inside else f"the folders of {results}"
        raise Refused(
            f"no run in {where} has an id that begins with {path.name}; "
            "`tiltbench draw FOLDER` lists the runs of a folder"
        )
    return _only(matches, f"{path.name} begins", None)


def _of_file(path: Path) -> Chosen:
    run = path.name.split(".")[0]
    record = path.with_name(f"{run}.json")
    if not record.is_file():
        raise Refused(
            f"{path} has no record {record.name} beside it, which says what was run; "
            "name a file in the folder where it was made"
        )
    try:
        return Chosen(path.parent, read_record(record))
    except ValueError as error:
        raise Refused(str(error)) from error


def _folder(path: Path, results: Path) -> Path | None:
    """The folder of results that a path or name means; its folder of runs will do."""
    for place in (path, path.parent if path.name == "runs" else path, results / path):
        if (place / "runs").is_dir() or is_published(place):
            return place
        if is_published(results / "published" / path):
            return results / "published" / path
    return None


def _folders(results: Path) -> list[Path]:
    return sorted(path.parent for path in results.glob("*/runs"))


def _records(folder: Path) -> Iterator[Chosen]:
    if is_published(folder):
        raise Refused(
            f"{folder} is published, which keeps scores and not what was trained: run the suite "
            "here, and name a run of that folder"
        )
    return (Chosen(folder / "runs", record) for record in readable(folder / "runs"))


def _only(among: Iterator[Chosen] | Sequence[Chosen], what: str, folder: Path | None) -> Chosen:
    matches = sorted(among, key=lambda c: (c.runs, title(c.record)))
    if len(matches) == 1:
        return matches[0]
    if not matches:
        raise Refused(f"{folder} holds no records of runs; run the suite first")
    shown = "; ".join(f"{_short(c, matches)} ({title(c.record)})" for c in matches[:LISTED])
    more = f"; and {len(matches) - LISTED} more" if len(matches) > LISTED else ""
    verb = f"{what} {len(matches)} runs" if folder else f"{what} the ids of {len(matches)} runs"
    raise Refused(f"{verb}; name one of them: {shown}{more}")


def _short(one: Chosen, among: Sequence[Chosen]) -> str:
    """FOLDER/ID with as few digits as tell the run from the others, four at least."""
    others = [c.record.id for c in among if c is not one and c.runs == one.runs]
    run = one.record.id
    least = next(
        (n for n in range(4, len(run)) if not any(o.startswith(run[:n]) for o in others)), len(run)
    )
    return f"{one.runs.parent.name}/{run[:least]}"


def title(record: Record) -> str:
    labels = record.labels
    return f"{labels['target']} · {labels['sampler']} · seed {record.spec['seed']}"
