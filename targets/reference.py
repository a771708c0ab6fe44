"""Targets whose truth is a certified reference: stored draws and what long chains found."""

from __future__ import annotations

import hashlib
import io
import json
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import lru_cache
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


class Referenced(Density):
    """A density known through `tiltbench reference NAME`, which stores data/<name>_reference.npz
    (`x`, float32 rows) and .json (facts, diagnostics, provenance, SHA-256) once they pass tests.

    The facts come from all of the chains; the rows are thinned from them."""

    @abstractmethod
    def statistics(self) -> Mapping[str, Statistic]:
        """Named observables, whose means, sds and errors the reference states."""

    def basins(self) -> Basins | None:
        """What chains may fail to mix between: shares become `Modes`."""
        return None

    def moved(self, x: Float[Tensor, "n d"], generator: Generator) -> Float[Tensor, "n d"]:
        """Each row under a random symmetry of the law, which makes a finite set richer: those of
        particles, and what a target adds."""
        return self.posed(x, generator)

    def truth(self) -> Truth:
        """From the stored reference of these parameters and this version; "unknown" without."""
        stored = _stored(self.name)
        if stored is None:
            return Truth(f"unknown: no reference; `tiltbench reference {self.name}` makes one")
        mine = json.loads(json.dumps(asdict(self)))  # type: ignore[call-overload]  # tuples are lists
        if (stored.facts["version"], stored.parameters) != (self.version, mine):
            return Truth(
                "unknown: the reference is of "
                f"{self.name}({', '.join(f'{k}={v}' for k, v in stored.parameters.items())}) "
                f"version {stored.facts['version']}"
            )
        known, basins = stored.facts["statistics"], self.basins()
        modes = None
        if basins is not None:
            shares = [basin["share"] for basin in stored.facts["basins"]]
            modes = Modes(torch.tensor(shares, dtype=torch.float64), basins.assign)
        return Truth(
            stored.facts["source"],
            log_Z=stored.facts["log_Z"],
            log_Z_se=stored.facts["log_Z_se"],
            sample=lambda n, generator: self._drawn(stored.x, n, generator),
            independent=False,
            modes=modes,
            observables={
                name: Observable(f, known[name]["mean"], known[name]["sd"], known[name]["se"])
                for name, f in self.statistics().items()
            },
        )

    def _drawn(self, stored: Tensor, n: int, generator: Generator) -> Float[Tensor, "n d"]:
        if n > len(stored):
            raise ValueError(
                f"the reference of {self.name} holds {len(stored)} draws, not {n}: ask for fewer"
            )
        device = generator.device
        chosen = torch.randperm(len(stored), generator=generator, device=device)[:n]
        x = stored.to(device)[chosen].double()
        return self.moved(self.project(x), generator)


class Stored(NamedTuple):
    """A reference as it lies on disk."""

    x: Float[Tensor, "n d"]  # float32
    facts: Mapping[str, Any]

    @property
    def parameters(self) -> dict[str, Any]:
        """The fields of the target it is of."""
        return dict(self.facts["target"].get("params", {}))


@lru_cache(maxsize=16)
def _stored(name: str) -> Stored | None:
    """data/<name>_reference.  Raises ValueError where it is damaged, where data and provenance
    disagree, and where it is not certified."""
    data, about = DATA / f"{name}_reference.npz", DATA / f"{name}_reference.json"
    if not (data.exists() and about.exists()):
        return None
    raw = data.read_bytes()
    try:
        facts = json.loads(about.read_text(encoding="utf-8"))
        stated, certified = facts["sha256"], facts["certified"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"data/{about.name} is damaged ({error}): restore it") from error
    if hashlib.sha256(raw).hexdigest() != stated:
        raise ValueError(f"data/{data.name} is not the file its provenance describes: restore it")
    if certified is not True:
        raise ValueError(f"data/{about.name} is of a reference that failed its tests: restore it")
    with np.load(io.BytesIO(raw), allow_pickle=False) as arrays:
        return Stored(torch.from_numpy(arrays["x"]), facts)
