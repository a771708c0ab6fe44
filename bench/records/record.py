"""One JSON file per run, its arrays beside it; written whole or not at all (protocol.md 7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum, auto
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tiltbench.metric import Outcome
from tiltbench.plan.spec import spec_id
from tiltbench.records.files import read_arrays, read_json, write_arrays, write_json
from tiltbench.records.shapes import RecordShape, check
from tiltbench.samplers.sampler import Draws
from tiltbench.samplers.weights import Estimate
from tiltbench.targets.files import split

SCHEMA = 1
UNPAID = "the budget did not pay for a single step"  # the note of a training that did not begin
UNPAID_BEFORE = UNPAID.replace("budget", "allowance")  # its words in records of version 0.1
CHECKPOINT = ".checkpoint.safetensors"
FILES = (".json", ".npz", ".curve.npz", ".state.safetensors", ".scores.json")


class Status(StrEnum):
    """How a run ended.  SPENT and DONE are successes."""

    SPENT = auto()
    DONE = auto()
    DIVERGED = auto()
    OUT_OF_TIME = auto()
    OUT_OF_MEMORY = auto()
    FAILED = auto()
    UNSUPPORTED = auto()

    @property
    def finished(self) -> bool:
        return self in (Status.SPENT, Status.DONE)


@dataclass(frozen=True)
class Record:
    """What was run, by what code, at what cost, and how it ended.

    spec: {"target": Spec, "target_version": int, "sampler": Spec, "seed": int, "draws": int,
    "device": "cpu"|"cuda",
    "budget": {"train": [values, grads], "draw": ..., "measure": ..., "seconds": s|null}}.
    """

    spec: Mapping[str, Any]
    labels: Mapping[str, str]
    # for people: {"target": short form, "sampler": short form}, and "budget", that of the table it
    # stands in, where its own is smaller
    status: Status
    reason: str = ""  # one sentence where the status is not a success
    traceback: str = ""
    cost: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, Any] = field(default_factory=dict)
    code: Mapping[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA

    @property
    def id(self) -> str:
        return spec_id(self.spec)


def draw_arrays(draws: Draws) -> dict[str, Tensor]:
    """What a file of draws holds, by name: `tiltbench import` reads it."""
    arrays: dict[str, Tensor] = {"x": draws.x}
    if draws.log_w is not None:
        arrays["log_w"] = draws.log_w
    if draws.group is not None:
        arrays["group"] = draws.group
    if draws.log_Z is not None:
        arrays["log_Z"] = torch.tensor(draws.log_Z, dtype=torch.float64)
    return arrays


def write_outcome(folder: Path, run: str, outcome: Outcome) -> None:
    """`<run>.npz`: the draws, the reverse weights and the probes."""
    arrays = draw_arrays(outcome.draws)
    if outcome.log_w_reverse is not None:
        arrays["log_w_reverse"] = outcome.log_w_reverse
    arrays.update({f"probe.{key}": value for key, value in outcome.probes.items()})
    write_arrays(folder / f"{run}.npz", arrays)


def read_outcome(folder: Path, run: str) -> Outcome:
    arrays = read_arrays(folder / f"{run}.npz")
    log_Z = arrays.get("log_Z")
    draws = Draws(
        arrays["x"].double(),
        arrays.get("log_w"),
        arrays.get("group"),
        None if log_Z is None else Estimate(float(log_Z[0]), float(log_Z[1]), int(log_Z[2])),
    )
    probes = {k.removeprefix("probe."): v for k, v in arrays.items() if k.startswith("probe.")}
    return Outcome(draws, arrays.get("log_w_reverse"), probes)


def write_record(folder: Path, record: Record) -> None:
    """`<id>.json`, last of a run's files: a run counts as done once it exists, and needs its
    checkpoint no more."""
    write_json(folder / f"{record.id}.json", asdict(record))
    (folder / f"{record.id}{CHECKPOINT}").unlink(missing_ok=True)


def forget(folder: Path, run: str) -> None:
    """Removes a run's files, the record first, lest a new try stand beside an old half.

    The checkpoint stays where there is no record: a killed try has left it, to be gone on from."""
    again = (folder / f"{run}.json").exists()
    for suffix in (*FILES, CHECKPOINT) if again else FILES:
        (folder / f"{run}{suffix}").unlink(missing_ok=True)
    for path in folder.glob(f".{run}.*.tmp"):  # what it was writing when it was killed
        path.unlink(missing_ok=True)


def read_record(path: Path) -> Record:
    """Raises ValueError, naming the file, where it is not a record of this schema, or one that
    would have code run from its own results folder."""
    try:
        return record_of(read_json(path), path)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is not a readable record ({error}); the same `tiltbench run` makes it anew"
        ) from error


def record_of(data: Any, path: Path) -> Record:
    """The record of a file `path` that holds `data`.  Raises ValueError or TypeError."""
    check(data, RecordShape)
    if data["schema"] != SCHEMA:
        raise ValueError(f"schema {data['schema']}, this version reads {SCHEMA}")
    record = Record(**{**data, "status": Status(data["status"])})
    if path.stem != record.id:
        raise ValueError(f"it is that of run {record.id}, under another name")
    for part in ("target", "sampler"):
        if brings_code(name := record.spec[part]["name"], path.parent):
            raise ValueError(
                f"it names code in its own results folder, {name}; keep plug-ins elsewhere"
            )
    return record


def brings_code(name: str, runs: Path) -> bool:
    """Whether a target's or sampler's name is that of a file in the results folder around `runs`:
    what came with results is data, and never imported.

    Where one works inside that folder, only `runs` itself is out of bounds."""
    file = split(name)
    if file is None:
        return False
    runs, here = runs.resolve(), Path.cwd()
    folder = runs if here.is_relative_to(runs.parent) else runs.parent
    return file.path.resolve().is_relative_to(folder)
