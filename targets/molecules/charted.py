"""Molecules in either of two coordinates, and those that a file brings."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import torch
from jaxtyping import Float
from torch import Tensor

from tiltbench.targets.densities._molecule import Four, Molecule
from tiltbench.targets.molecules.angles import dihedral
from tiltbench.targets.molecules.coordinates import Cartesian, Coordinates
from tiltbench.targets.molecules.internal import internal
from tiltbench.targets.molecules.parameters import Parameters, read
from tiltbench.targets.target import Groups
from tiltbench.targets.truths.stored import Stored

CARTESIAN, INTERNAL = "cartesian", "internal"


class Charted(Molecule):
    """A molecule whose field `coordinates` is cartesian or internal: one law with one Z, whose
    statistics, torsions and reference are those of the positions."""

    coordinates: str
    scales: ClassVar[Mapping[str, float]]  # nm, and units of the coordinates
    cuts: ClassVar[Mapping[Four, float]] = {}  # rad: where circles of torsions are cut
    angles: ClassVar[Mapping[str, Four]] = {}  # torsions by name

    def __post_init__(self) -> None:
        if isinstance(self.temperature, bool) or not isinstance(self.temperature, int | float):
            raise ValueError(f"temperature is {self.temperature!r}; it must be a number, in kelvin")
        if not 0 < self.temperature < torch.inf:
            raise ValueError(f"temperature is {self.temperature}; it must be positive, in kelvin")
        if self.coordinates not in self.scales:
            raise ValueError(
                f"coordinates is {self.coordinates!r}; it must be one of {', '.join(self.scales)}"
            )

    @property
    def scale(self) -> float:  # type: ignore[override]
        return self.scales[self.coordinates]

    @property
    def chart(self) -> Coordinates:
        cuts = tuple(self.cuts.items())
        return _chart(self.parameters, self.coordinates, self.same, self.trans, cuts)

    @property
    def plain(self) -> Self:
        """The same law of positions."""
        return cast(Self, replace(cast(Any, self), coordinates=CARTESIAN))

    def torsions(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """Those that the molecule names, in rad."""
        return {
            name: self.of(partial(dihedral, atoms=atoms)) for name, atoms in self.angles.items()
        }

    @property
    def certified_as(self) -> Self:
        """In internal coordinates: a Gaussian of positions meets no conformation, and of the ways
        round of methyl groups chains of positions see one.  Itself where it has none."""
        if INTERNAL not in self.scales:
            return self
        return cast(Self, replace(cast(Any, self), coordinates=INTERNAL))

    def stored(self) -> Stored | None:
        """The reference in these coordinates, whichever it was made in."""
        stored = super().stored()
        theirs = stored.parameters.get("coordinates", CARTESIAN) if stored else self.coordinates
        if stored is None or theirs == self.coordinates:
            return stored
        x = replace(cast(Any, self), coordinates=theirs).chart.to_cartesian(stored.x.double())
        return stored._replace(x=self.chart.from_cartesian(x))

    def is_described(self, stored: Stored) -> bool:
        theirs = {"coordinates": CARTESIAN, **stored.parameters}
        mine = {**asdict(cast(Any, self)), "coordinates": theirs["coordinates"]}
        return (stored.facts["version"], theirs) == (self.version, mine)

    def of(self, f: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """A function of positions as one of the coordinates."""
        return lambda z: f(self.chart.to_cartesian(z))


class Converted(Charted):
    """What `tiltbench molecule` writes: the parameters lie beside the target's file, NAME.npz with
    its NAME.json."""

    @property
    def parameters(self) -> Parameters:
        return read(Path(str(sys.modules[type(self).__module__].__file__)).with_suffix(".npz"))

    def statistics(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """Energy in units of R T, and cos and sin of the torsions that are named."""
        plain = self.plain
        statistics: dict[str, Callable[[Tensor], Tensor]] = {
            "energy": self.of(lambda x: -plain.log_rho(x))
        }
        for name, angle in self.torsions().items():
            statistics[f"cos_{name}"] = partial(_after, torch.cos, angle)
            statistics[f"sin_{name}"] = partial(_after, torch.sin, angle)
        return statistics


def _after(
    g: Callable[[Tensor], Tensor], f: Callable[[Tensor], Tensor], x: Float[Tensor, "b d"]
) -> Float[Tensor, " b"]:
    return g(f(x))


@lru_cache(maxsize=64)
def _chart(
    parameters: Parameters,
    coordinates: str,
    same: Groups,
    double: tuple[Four, ...],
    cuts: tuple[tuple[Four, float], ...],
) -> Coordinates:
    if coordinates == CARTESIAN:
        return Cartesian(parameters.atoms)
    return internal(parameters.bonds, parameters.positions, same, double, dict(cuts))
