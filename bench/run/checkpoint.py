"""A run that is still in training, in one file: all of it or nothing, and only for its own code.

`<id>.checkpoint.safetensors` holds the tensors; its metadata, JSON, holds the rest and a checksum
of all.  Reading runs nothing: see `pack`.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Generator, Tensor

from tiltbench.plan.cell import Cell
from tiltbench.records.files import replacing
from tiltbench.records.provenance import same_code
from tiltbench.records.record import CHECKPOINT
from tiltbench.run.compute import Metered
from tiltbench.run.curve import CurveState, TrainingCost
from tiltbench.run.ledger import Attempts
from tiltbench.run.pack import Packer, Unpacker, Unsaved
from tiltbench.run.states import copied
from tiltbench.targets.cost import Cost

FORMAT = 2
BROKEN = (
    ArithmeticError,
    AttributeError,
    LookupError,
    OSError,
    RecursionError,
    RuntimeError,
    SafetensorError,
    TypeError,
    ValueError,
)  # what a file of a stranger's making can raise

NO_ROOM = (OSError, SafetensorError, MemoryError, RuntimeError)  # on the disk, or in memory


class Saved(NamedTuple):
    """What training goes on from."""

    state: Any
    source: Generator  # of training
    spent: Cost
    metered: Metered  # operations
    steps: int
    seconds: float  # of training
    curve: list[CurveState]  # of the learning curve
    attempts: Attempts


class Glance(NamedTuple):
    """What a checkpoint says of itself, unread."""

    share: float  # of the training, done
    seconds: float  # of all attempts
    spec: Mapping[str, Any]  # of the cell
    code: Mapping[str, Any]  # that it serves: "syntax" and "plugins"


def identity(cell: Cell, code: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint serves the same cell, run by the same code on the same torch, and no other."""
    mine = {"syntax": code.get("syntax"), "plugins": code.get("plugins", {})}
    facts = {"format": FORMAT, "spec": cell.spec, "curve": cell.curve, "code": mine}
    return dict(json.loads(json.dumps({**facts, "torch": torch.__version__})))


def glance(path: Path) -> Glance | None:
    """None where there is no checkpoint, or none to be read."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
        share, seconds = json.loads(metadata["glance"])
        facts = json.loads(metadata["identity"])
        spec, code = dict(facts["spec"]), dict(facts["code"])
        return Glance(max(float(share), 0.0), max(float(seconds), 0.0), spec, code)
    except BROKEN:
        return None


def seconds_before(folder: Path, cell: Cell, code: Mapping[str, Any]) -> float:
    """Wall seconds of the attempts that the cell's checkpoint continues; 0 where it has none."""
    saved = glance(folder / f"{cell.id}{CHECKPOINT}")
    return saved.seconds if saved is not None and same_code(saved.code, code) else 0.0


@dataclass
class Checkpoints:
    """Those of one run, `every` so many seconds of a clock that is never set back."""

    path: Path
    identity: Mapping[str, Any]
    every: float
    last: float = field(default_factory=time.monotonic)
    places: dict[str, type] | None = None  # what `init` makes; None: there can be no checkpoint

    def expect(self, state: Any) -> str:
        """Takes note of what `init` returned: only that can be filled in again.  The sentence says
        why the run cannot be saved; it is empty where it can."""
        packer = Packer()
        try:
            packer.node(state)
        except Unsaved as error:
            return _unsaved(error)
        self.places = packer.places
        return ""

    def load(self, init: Any, device: torch.device) -> tuple[Saved | None, str]:
        """What to go on from, `init` being a state from the sampler (it is copied);
        or None, and the sentence that says why where a checkpoint is there but of no use."""
        if self.places is None or not self.path.exists():
            return None, ""
        try:
            return self._loaded(init, device), ""
        except BROKEN as error:
            why = " ".join(str(error).split())[:200] or type(error).__name__
            return None, f"begun anew, as its checkpoint is of no use here ({why})"

    def _loaded(self, init: Any, device: torch.device) -> Saved:
        with safe_open(self.path, "pt") as file:
            metadata = file.metadata()
            if json.loads(metadata["identity"]) != self.identity:
                raise ValueError("it is of another cell, of other code or of another torch")
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        if metadata["sha256"] != _checksum(metadata["nodes"], tensors):
            raise ValueError("its checksum is wrong")
        nodes = json.loads(metadata["nodes"])
        unpacker = Unpacker(tensors, device)
        states = [
            CurveState(
                TrainingCost(int(calls), float(flops), float(seconds)),
                unpacker.fill(copied(init), node),
            )
            for (calls, flops, seconds), node in nodes["kept"]
        ]
        source = unpacker.fill(Generator(device), nodes["source"])
        seconds, cpu, memory, resumed = nodes["attempts"]
        attempts = Attempts(float(seconds), float(cpu), float(memory), int(resumed) + 1)
        spent, steps = Cost(*map(int, nodes["spent"])), int(nodes["steps"])
        metered = Metered(*map(float, nodes["metered"]))
        state = unpacker.fill(copied(init), nodes["state"])
        if not isinstance(source, Generator) or type(state) is not type(init):
            raise TypeError("its state or generator is missing")
        seconds = float(nodes["seconds"])
        return Saved(state, source, spent, metered, steps, seconds, states, attempts)

    def due(self) -> bool:
        return self.places is not None and time.monotonic() - self.last >= self.every

    def save(self, saved: Saved, share: float) -> str:
        """Replaces the last checkpoint.  The sentence says why not; it is empty where it did."""
        try:
            self._write(saved, share)
        except Unsaved as error:
            self.places = None
            return _unsaved(error)
        except NO_ROOM as error:  # the next may find room; the run itself needs none yet
            return f"a checkpoint could not be written ({error})"
        finally:
            self.last = time.monotonic()
        return ""

    def _write(self, saved: Saved, share: float) -> None:
        packer = Packer()
        nodes: dict[str, Any] = {
            "state": packer.node(saved.state),
            "kept": [[list(k.spent), packer.node(k.state)] for k in saved.curve],
        }
        self._fillable(packer.places)
        nodes["source"] = packer.node(saved.source, "source")
        for name in ("spent", "metered", "steps", "seconds", "attempts"):
            nodes[name] = getattr(saved, name)
        text = json.dumps(nodes)
        metadata = {
            "identity": json.dumps(self.identity),
            "glance": json.dumps([share, saved.attempts.seconds]),
            "nodes": text,
            "sha256": _checksum(text, packer.tensors),
        }
        with replacing(self.path) as temporary:
            save_file(packer.tensors, temporary, metadata)

    def _fillable(self, places: Mapping[str, type]) -> None:
        known = self.places or {}
        for place, kind in places.items():
            if known.get(place) is not kind:
                raise Unsaved(f"{place} is a {kind.__name__}, of which `init` has none there")


def _unsaved(error: Unsaved) -> str:
    return f"it cannot be resumed: {error}, which a checkpoint cannot hold"


def _checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    total = hashlib.sha256(text.encode())
    for name, x in sorted(tensors.items()):
        total.update(f"{name} {x.dtype} {tuple(x.shape)}\n".encode())
        total.update(x.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()
