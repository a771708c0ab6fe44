"""Targets whose truth is a certified reference: stored draws and what long chains found.

`Referenced` is for targets that are made for it.  Any other density whose own truth is unknown gets
its truth by `certified` from the reference that lies beside its file."""

from __future__ import annotations

import hashlib
import io
import json
import math
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

PROBES = 32  # draws at which log rho is stored with a reference
ROUNDING = 1e-6  # relative: values of log rho that differ by less are those of one function

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
        return home_of(type(self))

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
            return Truth(_of_another(self, stored))
        basins, modes = self.basins(), None
        if basins is not None:
            shares = basins.share or [basin["share"] for basin in stored.facts["basins"]]
            modes = Modes(torch.tensor(shares, dtype=torch.float64), basins.assign)
        return _told(self, stored, self.moved)._replace(modes=modes)

    def stored(self) -> Stored | None:
        """What lies in `home`, whatever its parameters; None where nothing does.

        Raises ValueError where it is damaged, altered or not certified."""
        return _read(self.home, self.name)

    def is_described(self, stored: Stored) -> bool:
        """Whether a reference is of these parameters and this version."""
        return described(self, stored)


def home_of(cls: type[Density]) -> Path:
    """The folder in which the reference of a target of this class lies."""
    module = sys.modules.get(cls.__module__)
    file = getattr(module, "__file__", None)
    if file is None:
        return Path()
    return DATA if Path(file).is_relative_to(DATA.parent) else Path(file).parent


def described(target: Density, stored: Stored) -> bool:
    """Whether a reference is of the target's parameters and version."""
    mine = json.loads(json.dumps(asdict(target)))  # type: ignore[call-overload]  # tuples are lists
    return (stored.facts["version"], stored.parameters) == (target.version, mine)


def _of_another(target: Density, stored: Stored) -> str:
    parameters = ", ".join(f"{k}={v}" for k, v in stored.parameters.items())
    version = stored.facts["version"]
    return f"unknown: the reference is of {target.name}({parameters}) version {version}"


def needs_reference(target: Density) -> bool:
    """Whether a certified reference becomes the target's truth: it is made for one, or its class
    itself knows nothing."""
    return isinstance(target, Referenced) or stated(target).unknown


def stated(target: Density) -> Truth:
    """What the target's class says, whether or not a reference lies beside its file."""
    own = getattr(type(target).truth, "__wrapped__", None)
    found: Truth = own(target) if own is not None else target.truth()
    return found


def reference_of(target: Density) -> Stored | None:
    """The reference that lies where the target's belongs, whatever it is of; None without.

    Raises ValueError where it is damaged, altered or not certified."""
    place = target.home if isinstance(target, Referenced) else home_of(type(target))
    return _read(place, target.name)


def certified(target: Density, stated: Truth) -> Truth:
    """The truth that the certified reference beside the target's file tells: draws, log Z, and mean
    and sd of the target's `statistics`.  `stated`, which is unknown, where there is no reference,
    or where the one there is of other parameters, of another version, or of another log rho: that
    is told by its values at PROBES of the draws and as many points around them."""
    stored = reference_of(target)
    if stored is None:
        return stated
    if not described(target, stored):
        return Truth(_of_another(target, stored))
    again = f"`tiltbench reference` makes one of {target.name} as it is now"
    if not _same_values(target, stored):
        return Truth(f"unknown: the reference is of another log_rho; {again}")
    if lacking := sorted(set(target.statistics()) - set(stored.facts["statistics"])):
        return Truth(f"unknown: the reference says nothing of {', '.join(lacking)}; {again}")
    return _told(target, stored, target.posed)


def _told(target: Density, stored: Stored, moved: Callable[[Tensor, Generator], Tensor]) -> Truth:
    """What a reference says: each draw is `moved` by a symmetry of the law."""
    known = stored.facts["statistics"]

    def sample(n: int, generator: Generator) -> Float[Tensor, "n d"]:
        x = without_replacement(stored.x, n, generator, target.name).double()
        return moved(target.project(x), generator)

    return Truth(
        stored.facts["source"],
        log_Z=stored.facts["log_Z"],
        log_Z_se=stored.facts["log_Z_se"],
        sample=sample,
        held=len(stored.x),
        observables={
            name: Observable(f, known[name]["mean"], known[name]["sd"], known[name]["se"])
            for name, f in target.statistics().items()
        },
    )


def probed(target: Density, rows: Float[Tensor, "n d"]) -> list[float | None]:
    """log rho at the first PROBES rows and at as many points twice as far from their mean, by which
    a reference knows the density that it is of; None where it is not finite."""
    x = rows[:PROBES].double()
    points = torch.cat([x, x.mean(0) + 2 * (x - x.mean(0))])
    with torch.no_grad():
        values = target.log_rho(points).double().tolist()
    return [value if math.isfinite(value) else None for value in values]


def _same_values(target: Density, stored: Stored) -> bool:
    old = stored.facts.get("log_rho") or []
    new = probed(target, stored.x)
    return len(old) == len(new) and all(map(_equal, old, new))


def _equal(a: float | None, b: float | None) -> bool:
    if a is None or b is None:
        return a is b
    return abs(a - b) <= ROUNDING * (1 + abs(a))


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


def _read(home: Path, name: str) -> Stored | None:
    data, about = (home / f"{name}_reference.{kind}" for kind in ("npz", "json"))
    if not (data.exists() and about.exists()):
        return None
    return _loaded(data, about, (data.stat().st_mtime_ns, about.stat().st_mtime_ns))


@lru_cache(maxsize=16)
def _loaded(data: Path, about: Path, written: tuple[int, ...] = ()) -> Stored:
    """`written`, when they were, makes files that were replaced be read anew."""
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
