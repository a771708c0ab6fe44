"""Published results: a whole set in three Parquet files, and the one way to read a set of any form.

`runs.parquet` has a row a run: what its Record holds, and the SHA-256 of its draws, which are not
published with it.  `scores.parquet` has a row a run and metric, `curves.parquet` a row a run.  Keys
of parts are joined by dots (`spec.seed`, `cost.train`, `floor.mean`).  What all runs of a machine
share is written once, in the schema of `runs.parquet`, and so is what suite.json says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

from tiltbench.plan.errors import Refused
from tiltbench.records import columns
from tiltbench.records.files import read_json, strict
from tiltbench.records.record import Record, record_of
from tiltbench.records.recorded import RUNS, is_published
from tiltbench.records.store import read_scores, readable, warn

SCORES, CURVES = "scores.parquet", "curves.parquet"
FORMAT = 1
PARTS = ("spec", "labels", "cost", "code")  # of a record, whose keys are columns
FLOORS = ("floor", "floor_energy_w2")  # parts of scores and curves
NUMBER, NUMBERS = "double", "list<double>"
OF_SCORES = {
    "run": "string",
    "metric": "string",
    "value": NUMBER,
    "se": NUMBER,
    "n": "int64",
    "floor.mean": NUMBER,
    "floor.sd": NUMBER,
    "floor.n": "int64",
    "floor.unfit": "bool",
    "reason": "string",
    "no_floor": "string",
    "ess": NUMBER,
}
OF_CURVES = {
    "run": "string",
    "metric": "string",
    "n": "int64",
    "spend": "list<int64>",
    **dict.fromkeys(("seconds", "log_Z_err", "log_Z_se", "distance", "energy_w2"), NUMBERS),
    "floor.mean": NUMBER,
    "floor.sd": NUMBER,
    "floor.n": "int64",
}


class Archive(NamedTuple):
    """The file that holds the draws of a published set, which is not in the repository."""

    name: str
    sha256: str
    bytes: int


class Results(NamedTuple):
    """A result set as everybody reads it, whichever form it has on disk."""

    records: list[Record]
    scores: dict[str, dict[str, Any]]  # by run: what `<id>.scores.json` holds
    suite: dict[str, Any]  # what suite.json says; of a published one without the runs it has
    published: bool = False
    sums: Mapping[str, Mapping[str, str]] = {}  # by run: the SHA-256 of its files of arrays
    archive: Archive | None = None
    beside: Sequence[Any] = ()  # JSON of what samplers say of unknown truths (`report.beside`)


def results(folder: Path) -> Results:
    """The readable records and scores of a results folder, published or not.  What cannot be read
    of a plain one is named on stderr; raises Refused for a damaged published one."""
    if is_published(folder):
        return read(folder)
    runs = folder / "runs"
    records, scores = readable(runs), {}
    for record in records:
        if record.status.finished:
            try:
                scored = read_scores(runs, record.id)
            except ValueError as error:  # one broken file must not stop the report
                warn(str(error))
                continue
            if scored is not None:
                scores[record.id] = scored
    try:
        suite = read_json(folder / "suite.json")
    except ValueError:  # none, or runs that were gathered by hand
        suite = {}
    return Results(records, scores, suite if isinstance(suite, dict) else {})


def write(results: Results, folder: Path) -> None:
    """The three files.  What `read` makes of them is what `results` holds, but for keys of scores
    and curves whose value is null: they are left out.

    Raises ValueError where a score is not of the type that scores have."""
    environments: list[Mapping[str, Any]] = []
    runs = []
    for record in results.records:
        if record.env not in environments:
            environments.append(record.env)
        runs.append(_run_row(record, environments.index(record.env), results))
    scores = [
        _joined({"run": run, "metric": name, **strict(score)})
        for run, scored in results.scores.items()
        for name, score in scored["scores"].items()
    ]
    curves = [
        _joined({"run": run, **strict(scored["curve"])})
        for run, scored in results.scores.items()
        if scored.get("curve")
    ]
    have = {record.id for record in results.records}
    missing = [cell for cell in results.suite.get("cells", ()) if cell["id"] not in have]
    about = {
        "format": FORMAT,
        "suite": {**results.suite, "cells": missing},
        "environments": environments,
        "archive": results.archive._asdict() if results.archive else None,
        **({"beside": list(results.beside)} if results.beside else {}),
    }
    columns.write(folder / RUNS, runs, about=about)
    columns.write(folder / SCORES, scores, OF_SCORES)
    columns.write(folder / CURVES, curves, OF_CURVES)


def _run_row(record: Record, environment: int, results: Results) -> dict[str, Any]:
    plain = strict({f.name: getattr(record, f.name) for f in fields(record)})
    parts = {part: plain[part] for part in PARTS}
    scored = results.scores.get(record.id, {})
    row = {
        "id": record.id,
        **plain,
        "status": record.status.value,
        "env": environment,
        "nulls": [f"{p}.{key}" for p, part in parts.items() for key in part if part[key] is None],
        "scored": {k: v for k, v in scored.items() if k not in ("run", "scores", "curve")},
        "sha256": results.sums.get(record.id, {}),
    }
    return _joined({key: value for key, value in row.items() if value != []})


def read(folder: Path) -> Results:
    """Raises Refused where a file is missing, damaged, or no published result."""
    try:
        return _read(folder)
    except ValueError as error:
        raise Refused(str(error)) from error


def _read(folder: Path) -> Results:
    rows, about = columns.read(folder / RUNS)
    records, sums, scores, seen = [], {}, {}, set[str]()
    try:
        if about["format"] != FORMAT:
            raise ValueError(f"its format is {about['format']}, this version reads {FORMAT}")
        for row in rows:
            parts = _parted(row, (*PARTS, "scored", "sha256"))
            scored, digests = parts.pop("scored", None), parts.pop("sha256", None)
            record = _record(parts, about["environments"], folder)
            if record.id in seen:
                raise TypeError(f"run {record.id} stands there twice")
            seen.add(record.id)
            records.append(record)
            if digests is not None and not isinstance(digests, dict):
                raise TypeError("the checksums of a run are no table")
            if scored:
                scores[record.id] = {"run": record.id, **scored, "curve": None, "scores": {}}
            if digests:
                sums[record.id] = digests
        archive = Archive(**about["archive"]) if about["archive"] else None
        if archive and [type(part) for part in archive] != [str, str, int]:
            raise TypeError("its archive has no name, checksum and size")
        suite = dict(about["suite"])
        if not all(isinstance(cell["id"], str) for cell in suite["cells"]):
            raise TypeError("a run of the suite has no name")
        beside = about.get("beside", [])
        if not isinstance(beside, list):
            raise TypeError("what samplers say beside each other is no list")
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise _damaged(folder / RUNS, error) from error
    for name, typed, put in ((SCORES, OF_SCORES, _put_score), (CURVES, OF_CURVES, _put_curve)):
        try:
            for row in columns.read(folder / name, typed)[0]:
                part = _parted(row, FLOORS)
                if not all(isinstance(part.get(key, {}), dict) for key in FLOORS):
                    raise TypeError("a floor is no table")
                put(scores[part.pop("run")], part)
        except (KeyError, TypeError) as error:
            raise _damaged(folder / name, error) from error
    return Results(records, scores, suite, True, sums, archive, beside)


def _damaged(path: Path, error: Exception) -> ValueError:
    message = f"{type(error).__name__} {error}" if isinstance(error, KeyError) else str(error)
    return ValueError(
        f"{path} does not hold published results ({message}); take it from the repository again, "
        "or `tiltbench publish` the suite anew"
    )


def _record(parts: dict[str, Any], environments: list[Any], folder: Path) -> Record:
    """Raises what `record_of` raises where it is no record."""
    name, place = parts.pop("id"), parts["env"]
    if not isinstance(place, int) or place < 0:
        raise TypeError("an environment is no number")
    for key in parts.pop("nulls", ()):
        part, _, inner = key.partition(".")
        parts.setdefault(part, {})[inner] = None
    whole = {**{part: {} for part in PARTS}, **parts, "env": environments[place]}
    return record_of(whole, folder / "runs" / f"{name}.json")


def _put_score(scored: dict[str, Any], row: dict[str, Any]) -> None:
    metric = row.pop("metric")
    if metric in scored["scores"]:
        raise TypeError(f"{metric} of run {scored['run']} stands there twice")
    scored["scores"][metric] = {"value": None, **row}


def _put_curve(scored: dict[str, Any], row: dict[str, Any]) -> None:
    if len({len(row[key]) for key in ("spend", "log_Z_err", "log_Z_se", "distance")}) != 1:
        raise TypeError("the parts of a curve are of different lengths")
    if scored["curve"] is not None:
        raise TypeError(f"the curve of run {scored['run']} stands there twice")
    scored["curve"] = {"floor": None, **row}


def _joined(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with keys of its parts beside its own, null values left out."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{inner}": v for inner, v in value.items() if v is not None}
        elif value is not None:
            flat[key] = value
    return flat


def _parted(row: Mapping[str, Any], parts: Iterable[str]) -> dict[str, Any]:
    """The opposite of `_joined`, for these parts."""
    result: dict[str, Any] = {}
    for key, value in row.items():
        part, dot, inner = key.partition(".")
        if dot and part in parts:
            result.setdefault(part, {})[inner] = value
        else:
            result[key] = value
    return result
