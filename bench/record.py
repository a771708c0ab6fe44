"""One JSON file per run, its arrays beside it; written whole or not at all (protocol.md 6)."""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from enum import StrEnum, auto
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tiltbench.samplers.sampler import Draws
from tiltbench.samplers.weights import Estimate

SCHEMA = 1
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


class Outcome(NamedTuple):
    """A run's output as the metrics see it: everything was read from disk, on the CPU."""

    draws: Draws
    log_w_reverse: Tensor | None  # log_w of paths traced back from exact draws of the target
    probes: Mapping[str, Tensor]  # what `Sampler.probe` returned


def spec_id(spec: Mapping[str, Any]) -> str:
    """The name of a run's files: a hash of its spec."""
    text = json.dumps(spec, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` to write to, then fsync and rename: a reader sees the old file
    or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Strict JSON: NaN and infinities are written as null."""
    write_bytes(path, (json.dumps(strict(value), indent=1, allow_nan=False) + "\n").encode())


def strict(value: Any) -> Any:
    """The value as it will be read back from strict JSON."""
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): strict(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [strict(v) for v in value]
    return value


def write_arrays(path: Path, arrays: Mapping[str, Tensor]) -> None:
    buffer = io.BytesIO()
    plain: dict[str, Any] = {k: v.detach().cpu().numpy() for k, v in arrays.items()}
    np.savez_compressed(buffer, **plain)
    write_bytes(path, buffer.getvalue())


def read_arrays(path: Path) -> dict[str, Tensor]:
    """The tensors of an .npz file, on the CPU; nothing in the file is executed."""
    with np.load(path, allow_pickle=False) as data:
        return {key: torch.as_tensor(data[key]) for key in data.files}


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """As safetensors; clones, because tensors that share memory are refused."""
    from safetensors.torch import save_file

    with replacing(path) as temporary:
        save_file({key: value.clone() for key, value in tensors.items()}, temporary)


def write_outcome(folder: Path, run: str, outcome: Outcome) -> None:
    """`<run>.npz`: the draws, the reverse weights and the probes."""
    draws = outcome.draws
    arrays: dict[str, Tensor] = {"x": draws.x}
    if draws.log_w is not None:
        arrays["log_w"] = draws.log_w
    if draws.group is not None:
        arrays["group"] = draws.group
    if draws.log_Z is not None:
        arrays["log_Z"] = torch.tensor(draws.log_Z, dtype=torch.float64)
    if outcome.log_w_reverse is not None:
        arrays["log_w_reverse"] = outcome.log_w_reverse
    arrays.update({f"probe.{key}": value for key, value in outcome.probes.items()})
    write_arrays(folder / f"{run}.npz", arrays)


def read_outcome(folder: Path, run: str) -> Outcome:
    arrays = read_arrays(folder / f"{run}.npz")
    own = arrays.get("log_Z")
    draws = Draws(
        arrays["x"].double(),
        arrays.get("log_w"),
        arrays.get("group"),
        None if own is None else Estimate(float(own[0]), float(own[1]), int(own[2])),
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


def read_json(path: Path) -> Any:
    """Raises ValueError, OSError included, for what is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, RecursionError) as error:  # RecursionError: brackets without end
        raise ValueError(str(error)) from error


def read_record(path: Path) -> Record:
    """Raises ValueError, naming the file, where it is not a record of this schema, or one that
    would have code run from its own results folder."""
    try:
        data = read_json(path)
        if data["schema"] != SCHEMA:
            raise ValueError(f"schema {data['schema']}, this version reads {SCHEMA}")
        data["status"] = Status(data["status"])
        record = Record(**data)
        _sound(record, path)
        return record
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is not a readable record ({error}); the same `tiltbench run` makes it anew"
        ) from error


def _sound(record: Record, path: Path) -> None:
    """Raises KeyError, TypeError or ValueError where a part is missing, or not what it must be."""
    spec, labels = record.spec, record.labels
    texts = [spec["target"]["name"], spec["sampler"]["name"], labels["target"], labels["sampler"]]
    if not all(isinstance(text, str) for text in [*texts, record.reason, record.traceback]):
        raise TypeError("a name or sentence is no text")
    counts = [spec["target_version"], spec["seed"], spec["draws"], *spec["budget"]["train"]]
    if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in counts):
        raise TypeError("a count is no whole number")
    if not all(isinstance(part, dict) for part in (record.cost, record.env, record.code)):
        raise TypeError("cost, env or code is no table")
    if path.stem != record.id:
        raise ValueError(f"it is that of run {record.id}, under another name")
    for name in texts[:2]:
        if brings_code(name, path.parent):
            raise ValueError(
                f"it names code in its own results folder, {name}; keep plug-ins elsewhere"
            )


def brings_code(name: str, runs: Path) -> bool:
    """Whether a target's or sampler's name is that of a file in the results folder around `runs`:
    what came with results is data, and never imported.

    Where one works inside that folder, only `runs` itself is out of bounds."""
    stem, suffix, _ = name.partition(".py")
    runs, here = runs.resolve(), Path.cwd()
    folder = runs if here.is_relative_to(runs.parent) else runs.parent
    return bool(suffix) and Path(stem + suffix).resolve().is_relative_to(folder)


def done_record(path: Path) -> Record | None:
    """The record at `path` where its run counts as done: readable, and where it finished with whole
    draws beside it.  A broken file is named on stderr and counts as not done."""
    if not path.exists():
        return None
    try:
        record = read_record(path)
    except ValueError as error:
        print(f"warning: {error}", file=sys.stderr)
        return None
    draws = path.with_suffix(".npz")
    if not record.status.finished:
        return record
    if draws.exists() and not zipfile.is_zipfile(draws):
        what = f"{draws} is cut short; the same `tiltbench run` makes it anew"
        print(f"warning: {what}", file=sys.stderr)
        return None
    return record if draws.exists() else None


def records(folder: Path) -> list[Record]:
    """Every record of a runs folder that `done_record` accepts."""
    found = []
    for path in sorted(folder.glob("*.json")):
        if path.name.count(".") > 1:
            continue  # scores and other things beside a record
        record = done_record(path)
        if record is not None:
            found.append(record)
    return found
