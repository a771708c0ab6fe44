"""`tiltbench import`: draws made elsewhere, as a record that is scored like any other."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tiltbench.metric import Outcome
from tiltbench.plan.budget import Budget
from tiltbench.plan.errors import BadSpec
from tiltbench.plan.spec import build_target, spec
from tiltbench.plan.suite import Choice
from tiltbench.records.located import hints
from tiltbench.records.provenance import code_identity, deciding_code, environment
from tiltbench.records.record import SCHEMA, Record, Status, forget, write_outcome, write_record
from tiltbench.records.store import readable
from tiltbench.records.validate import validated
from tiltbench.samplers.sampler import Draws
from tiltbench.samplers.weights import Estimate
from tiltbench.targets.checks import Diverged
from tiltbench.targets.cost import Cost

REPORTED = "calls self-reported"
KEYS = ("x", "log_w", "group", "log_Z", "log_w_reverse")


def import_draws(
    file: Path,
    target: str,
    calls: Cost,
    budget: int,
    name: str,
    seed: int,
    folder: Path,
    say: Callable[[str], None] = print,
) -> Record:
    """Writes the draws of `file` into `folder`/runs as a run of sampler `name` on `target`, which
    spent `calls` by its own account, in the tables of `budget`.  Draws of the same seed
    that were imported there before are replaced, and `say` gets a sentence.

    `file` is an .npz with x, (n, dim), or (chains, n, dim) where the chains are to be compared,
    and optionally log_w, of the shape of x without its last axis, group (n,), log_Z (value, error,
    n) and log_w_reverse (m,), as `Draws` and `Outcome` have them; or an .npy that holds x.  Any
    NumPy type of real numbers is read.  Raises BadSpec for anything else; nothing in a file is
    executed."""
    if max(calls) > budget:
        raise BadSpec(
            f"{max(calls):,} calls do not fit a budget of {budget:,}; state a larger --budget"
        )
    chosen = Choice.of(target)
    built = build_target(chosen.spec)
    full = spec(built)
    outcome = _outcome(_arrays(file), built.dim, file)
    n = len(outcome.draws.x)
    allowed = Budget.of(budget, n)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    record = Record(
        {
            "target": full,
            "target_version": built.version,
            "sampler": {"name": "imported", "params": {"name": name, "sha256": digest}},
            "seed": seed,
            "device": "cpu",
            "draws": n,
            "budget": {
                **{phase: list(getattr(allowed, phase)) for phase in ("train", "draw", "measure")},
                "seconds": None,
            },
        },
        {"target": chosen.label, "sampler": f"{name} ({REPORTED})"},
        Status.DONE,
        cost={
            "train": list(calls),
            "draw": [0, 0],
            "measure": [0, 0],
            "notes": [f"{REPORTED}: {file.name} was imported, and nothing was counted here"],
        },
        env=environment("cpu"),
        code={
            **code_identity(),
            **deciding_code(full, {"name": "imported", "params": {}}),
            **({"files": files} if (files := hints([full["name"]], folder / "runs")) else {}),
        },
        schema=SCHEMA,
    )
    runs = folder / "runs"
    former = [r for r in readable(runs) if _series(r) == _series(record)]
    forget(runs, record.id)
    write_outcome(runs, record.id, outcome)
    write_record(runs, record)
    for old in former:  # after the new one is whole: a crash in between loses nothing
        if old.id != record.id:
            forget(runs, old.id)
        say(f"replaced: {summary(old)}, imported before")
    return record


def _series(record: Record) -> tuple[Any, ...] | None:
    """Of what the draws are one seed, and which; None for a run that was made here."""
    seen: Any = record.spec
    if seen["sampler"]["name"] != "imported":
        return None
    method = seen["sampler"]["params"].get("name")
    return seen["target"], method, seen["seed"], seen["budget"]["train"]


def _arrays(file: Path) -> dict[str, Tensor]:
    """Raises BadSpec for what is no array of numbers."""
    try:
        read = np.load(file, allow_pickle=False)
        arrays = {"x": read} if isinstance(read, np.ndarray) else dict(read)
    except ValueError as error:
        if "Object arrays" in str(error):
            raise BadSpec(
                f"{file} holds an array of Python objects (dtype object); write numbers, all rows "
                "equally long: numpy.savez(file, x=numpy.asarray(draws, float))"
            ) from error
        raise _unreadable(file) from error
    except (OSError, TypeError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise _unreadable(file) from error
    if not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise _unreadable(file)  # NumPy hands over as bytes what is no .npy within a zip
    return {key: _numbers(array, key, file) for key, array in arrays.items()}


def _unreadable(file: Path) -> BadSpec:
    return BadSpec(
        f"{file} cannot be read as arrays of numbers; write draws, (n, dim) floats, with "
        "numpy.savez(file, x=draws), or with numpy.save"
    )


def _numbers(array: np.ndarray, key: str, file: Path) -> Tensor:
    """Integers as int64, other real numbers as float64, whatever their size and byte order."""
    if array.dtype.kind == "c":
        raise BadSpec(f"{file} holds complex numbers; write the real ones that are meant")
    if array.dtype.kind not in "biuf":
        raise BadSpec(
            f"{file} cannot be read as arrays of numbers: {key} has the type {array.dtype}; write "
            "it as floats"
        )
    wide = np.float64 if array.dtype.kind == "f" else np.int64
    with np.errstate(over="ignore"):  # a longdouble beyond float64 becomes inf, and is refused
        return torch.from_numpy(np.ascontiguousarray(array, dtype=wide).reshape(array.shape))


def _outcome(arrays: Mapping[str, Tensor], dim: int, file: Path) -> Outcome:
    """Raises BadSpec where shapes or values are not what they must be."""
    strange = sorted(set(arrays) - set(KEYS))
    if "x" not in arrays or strange:
        raise BadSpec(
            f"{file} holds {', '.join(sorted(arrays)) or 'nothing'}; it must hold x, and may hold "
            + ", ".join(KEYS[1:])
        )
    x, group = arrays["x"], arrays.get("group")
    if group is not None:
        group = _flat(group, x.shape[:-1])
    if x.dim() > 1 and x.shape[:-1].numel() < 2:
        raise BadSpec(f"{file} holds fewer than two draws; no metric says anything of one")
    shape = x.shape[:-1]
    if x.dim() == 3:
        if group is not None:
            raise BadSpec(f"{file} has chains in x, and a group besides; leave one of them out")
        group = torch.arange(len(x)).repeat_interleave(x.shape[1])
        x = x.flatten(0, 1)
    try:
        draws = validated(
            Draws(x.double(), _double(_flat(arrays.get("log_w"), shape)), group), len(x), dim
        )
    except (ValueError, Diverged, RuntimeError) as error:
        raise BadSpec(
            f"{file} does not fit the target: {error}".replace("draw returned", "it has")
        ) from error
    if group is not None and group.dtype.is_floating_point:
        raise BadSpec(f"{file} has a group of {group.dtype}; it numbers chains by whole numbers")
    back = _double(arrays.get("log_w_reverse"))
    if back is not None and 1 < back.dim() and back.numel() == max(back.shape):  # (m, 1)
        back = back.flatten()
    if back is not None and (back.dim() != 1 or not bool((back < torch.inf).all())):
        raise BadSpec(f"{file} has a log_w_reverse that is not (m,) numbers below +inf")
    return Outcome(draws._replace(log_Z=_estimate(arrays.get("log_Z"), file)), back, {})


def _estimate(log_Z: Tensor | None, file: Path) -> Estimate | None:
    if log_Z is None:
        return None
    if log_Z.numel() != 3:
        raise BadSpec(f"{file} has a log_Z of {log_Z.numel()} numbers; write (value, error, n)")
    value, error, n = log_Z.flatten().tolist()
    return Estimate(float(value), float(error), int(n))


def _flat(values: Tensor | None, shape: torch.Size) -> Tensor | None:
    """One value a draw, of draws of the given shape, as (n,); as it is where it does not fit.

    An axis of length 1 is no more than a way of writing: (n, 1) is (n,)."""
    if values is None:
        return None
    long = [n for n in values.shape if n != 1]
    fits = long in ([n for n in shape if n != 1], [shape.numel()])
    return values.flatten() if fits else values


def _double(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.double()


def summary(record: Record) -> str:
    """One line on what was imported."""
    seen: Any = record.spec
    return (
        f"{record.labels['target']} · {record.labels['sampler']} · seed {seen['seed']}: "
        f"{seen['draws']:,} draws, {max(record.cost['train']):,} calls"
    )
