"""Targets whose truth is a certified reference: stored draws and what long chains found."""

from __future__ import annotations

import hashlib
import io
import json
import sys
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.targets.target import DATA, Density, Modes, Observable, Truth

Statistic = Callable[[Tensor], Tensor]  # (B, D) -> (B,)


class Basins(NamedTuple):
    """A partition of R^D: (B, D) -> (B,) index below `number`."""

    number: int
    assign: Callable[[Tensor], Tensor]
    share: tuple[float, ...] | None = None  # exact masses, where a symmetry decides them


class Referenced(Density):
    """A density known through `tiltbench reference NAME`, which stores <name>_reference.npz (`x`,
    float32 rows) and .json (facts, diagnostics, provenance, `checksum`) in `home` once they pass
    tests.

    The facts come from all of the chains; the rows are thinned from them."""

    @property
    def home(self) -> Path:
        """The folder of the reference: the package's data, or for a target outside the package the
        folder of its file (the current one, where it was typed into an interpreter)."""
        file = vars(sys.modules[type(self).__module__]).get("__file__")
        if file is None:
            return Path()
        return DATA if Path(file).is_relative_to(DATA.parent) else Path(file).parent

    @abstractmethod
    def statistics(self) -> Mapping[str, Statistic]:
        """Named observables, whose means, sds and errors the reference states."""

    def basins(self) -> Basins | None:
        """What chains may fail to mix between: shares, exact or those of the chains, become
        `Modes`."""
        return None

    def moved(self, x: Float[Tensor, "n d"], generator: Generator) -> Float[Tensor, "n d"]:
        """Each row under a random symmetry of the law, which makes a finite set richer: those of
        particles, and what a target adds."""
        return self.posed(x, generator)

    def truth(self) -> Truth:
        """From the stored reference of these parameters and this version; "unknown" without."""
        stored = self.stored()
        if stored is None:
            return Truth("unknown: no reference; `tiltbench reference` makes one")
        if not self.is_described(stored):
            return Truth(
                "unknown: the reference is of "
                f"{self.name}({', '.join(f'{k}={v}' for k, v in stored.parameters.items())}) "
                f"version {stored.facts['version']}"
            )
        known, basins = stored.facts["statistics"], self.basins()
        modes = None
        if basins is not None:
            shares = basins.share or [basin["share"] for basin in stored.facts["basins"]]
            modes = Modes(torch.tensor(shares, dtype=torch.float64), basins.assign)
        return Truth(
            stored.facts["source"],
            log_Z=stored.facts["log_Z"],
            log_Z_se=stored.facts["log_Z_se"],
            sample=lambda n, generator: self._drawn(stored.x, n, generator),
            held=len(stored.x),
            modes=modes,
            observables={
                name: Observable(f, known[name]["mean"], known[name]["sd"], known[name]["se"])
                for name, f in self.statistics().items()
            },
        )

    def stored(self) -> Stored | None:
        """What lies in `home`, whatever its parameters; None where nothing does.

        Raises ValueError where it is damaged, altered or not certified."""
        data, about = (self.home / f"{self.name}_reference.{kind}" for kind in ("npz", "json"))
        return _loaded(data, about) if data.exists() and about.exists() else None

    def is_described(self, stored: Stored) -> bool:
        """Whether a reference is of these parameters and this version."""
        mine = json.loads(json.dumps(asdict(self)))  # type: ignore[call-overload]  # tuples are lists
        return (stored.facts["version"], stored.parameters) == (self.version, mine)

    def _drawn(self, stored: Tensor, n: int, generator: Generator) -> Float[Tensor, "n d"]:
        x = without_replacement(stored, n, generator, self.name).double()
        return self.moved(self.project(x), generator)


def without_replacement(
    stored: Float[Tensor, "m d"], n: int, generator: Generator, of: str
) -> Float[Tensor, "n d"]:
    """Raises ValueError where n > m."""
    if n > len(stored):
        raise ValueError(
            f"the reference of {of} holds {len(stored)} draws, not {n}: ask for no more than that"
        )
    device = generator.device
    chosen = torch.randperm(len(stored), generator=generator, device=device)[:n]
    return stored.to(device)[chosen]


class Stored(NamedTuple):
    """A reference as it lies on disk."""

    x: Float[Tensor, "n d"]  # float32
    facts: Mapping[str, Any]

    @property
    def parameters(self) -> dict[str, Any]:
        """The fields of the target it is of."""
        return dict(self.facts["target"].get("params", {}))


def checksum(rows: bytes, facts: Mapping[str, Any]) -> str:
    """SHA-256, in hex digits, over the npz file and over all that the JSON beside it says, as text
    with sorted keys and without `sha256` itself: whoever edits either is found out."""
    said = json.dumps({key: facts[key] for key in facts if key != "sha256"}, sort_keys=True)
    return hashlib.sha256(hashlib.sha256(rows).digest() + said.encode()).hexdigest()


@lru_cache(maxsize=16)
def _loaded(data: Path, about: Path) -> Stored:
    remedy = "restore both files, or delete them and run `tiltbench reference` again"
    rows = data.read_bytes()
    try:
        facts = json.loads(about.read_text(encoding="utf-8"))
        stated, certified = facts["sha256"], facts["certified"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{about.name} is damaged ({error}): {remedy}") from error
    if checksum(rows, facts) != stated:
        raise ValueError(f"{data.name} and {about.name} are not as they were written: {remedy}")
    if certified is not True:
        raise ValueError(f"{about.name} is of a reference that failed its tests: {remedy}")
    with np.load(io.BytesIO(rows), allow_pickle=False) as arrays:
        return Stored(torch.from_numpy(arrays["x"]), facts)
