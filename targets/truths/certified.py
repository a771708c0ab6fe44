"""The truth that a certified reference tells, of any density whose class knows nothing itself."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.targets.truths.facts import Observable, Truth
from tiltbench.targets.truths.stored import DATA, Stored, read, without_replacement

if TYPE_CHECKING:
    from tiltbench.targets.target import Density

PROBES = 32  # draws at which log rho is stored with a reference
ROUNDING = 1e-6  # relative: values of log rho that differ by less are those of one function


def certified(target: Density, stated: Truth) -> Truth:
    """The truth that the certified reference beside the target's file tells: draws, log Z, and mean
    and sd of the target's `statistics`.  `stated`, which is unknown, where there is no reference,
    or where the one there is of other parameters, of another version, or of another log rho: that
    is told by its values at PROBES of the draws and as many points around them."""
    stored = reference_of(target)
    if stored is None:
        return stated
    if not described(target, stored):
        return Truth(of_another(target, stored))
    again = f"`tiltbench reference` makes one of {target.name} as it is now"
    if not _same_values(target, stored):
        return Truth(f"unknown: the reference is of another log_rho; {again}")
    if lacking := sorted(set(target.statistics()) - set(stored.facts["statistics"])):
        return Truth(f"unknown: the reference says nothing of {', '.join(lacking)}; {again}")
    return reference_truth(target, stored, target.posed)


def reference_truth(
    target: Density, stored: Stored, moved: Callable[[Tensor, Generator], Tensor]
) -> Truth:
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


def reference_of(target: Density) -> Stored | None:
    """The reference that lies where the target's belongs, whatever it is of; None without.

    Raises ValueError where it is damaged, altered or not certified."""
    return read(target.home, target.name)


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


def of_another(target: Density, stored: Stored) -> str:
    parameters = ", ".join(f"{k}={v}" for k, v in stored.parameters.items())
    version = stored.facts["version"]
    return f"unknown: the reference is of {target.name}({parameters}) version {version}"
