"""Chains that go on where they were stopped: hours of them survive a restart of the machine.

`PATH.PART` holds tensors and, as JSON, the rest, like the checkpoint of a run.  It serves the same
reference by the same code on the same torch, and no other, and is gone when all parts are done.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Generator

from tiltbench.records.files import replacing
from tiltbench.run.checkpoint import BROKEN, NO_ROOM
from tiltbench.run.pack import Packer, Unpacker

EVERY = 300.0  # seconds

T = TypeVar("T", bound=tuple[Any, ...])


class Keeper:
    """Who is shown the state of one part of the chains after another, each with its generator: this
    one keeps nothing."""

    def begun(self, part: str, state: T, source: Generator) -> T:
        """The state from which `part` is to go on, and `source` with it."""
        return state

    def watch(self, part: str, state: tuple[Any, ...], source: Generator) -> None:
        """After every step."""

    def save(self, part: str, state: tuple[Any, ...], source: Generator) -> None:
        """At the end of a part."""


NOTHING = Keeper()


@dataclass
class DiskKeeper(Keeper):
    """Keeps it on disk."""

    path: Path
    identity: Mapping[str, Any]
    say: Callable[[str], None] = print
    every: float = EVERY
    last: float = field(default_factory=time.monotonic)
    parts: set[str] = field(default_factory=set)

    def begun(self, part: str, state: T, source: Generator) -> T:
        """The state in which `part` was stopped, and `source` with it; `state` as it is where
        nothing of the kind is there."""
        self.parts.add(part)
        path = self._place(part)
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata()
                if json.loads(metadata["identity"]) != self._asked(part):
                    return state
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            node, of_source = json.loads(metadata["nodes"])
            unpacker = Unpacker(tensors, torch.device("cpu"))
            restored = unpacker.fill(state, node)
            unpacker.fill(source, of_source)
        except BROKEN:
            return state
        self.say(f"{part}: goes on where it was stopped, from {path}")
        return restored  # type: ignore[no-any-return]

    def watch(self, part: str, state: tuple[Any, ...], source: Generator) -> None:
        """Saves once in a while."""
        if time.monotonic() - self.last >= self.every:
            self.save(part, state, source)

    def save(self, part: str, state: tuple[Any, ...], source: Generator) -> None:
        """Replaces what is there; where there is no room, the chains go on."""
        path = self._place(part)
        packer = Packer()
        nodes = json.dumps([packer.node(state), packer.node(source)])
        metadata = {"identity": json.dumps(self._asked(part)), "nodes": nodes}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                save_file(packer.tensors, temporary, metadata)
        except NO_ROOM as error:
            self.say(f"{path} could not be written ({error})")
        self.last = time.monotonic()

    def done(self) -> None:
        for part in self.parts:
            self._place(part).unlink(missing_ok=True)

    def _place(self, part: str) -> Path:
        return self.path.with_name(f"{self.path.name}.{part}")

    def _asked(self, part: str) -> dict[str, Any]:
        facts = {**self.identity, "part": part, "torch": torch.__version__}
        return dict(json.loads(json.dumps(facts)))
