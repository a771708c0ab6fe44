"""Alanine dipeptide, the molecule with which papers on Boltzmann samplers end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial

import torch
from jaxtyping import Float
from torch import Tensor

from tiltbench.targets.densities._molecule import Molecule
from tiltbench.targets.molecules.angles import dihedral
from tiltbench.targets.molecules.coordinates import Cartesian, Coordinates
from tiltbench.targets.molecules.internal import internal
from tiltbench.targets.molecules.parameters import Parameters, read
from tiltbench.targets.reference import Basins
from tiltbench.targets.target import DATA
from tiltbench.targets.truths.stored import Stored

SOLVENTS = {"ff96": "obc1", "ff99sbildn": "obc2", "ff14sb": "obc1"}
VACUUM = "vacuum"
PHI, PSI = (4, 6, 8, 14), (6, 8, 14, 16)
LEFT = 2.1  # rad: 0 < phi < 2.1 holds the left-handed helix and C7ax, which are rare
HELIX = (-2.1, 0.9)  # rad: psi of the right-handed helix
CARTESIAN, INTERNAL = "cartesian", "internal"
SCALES = {CARTESIAN: 0.17, INTERNAL: 1.2}  # nm, and units of the coordinates
# Where circles are cut, rad: few conformations are there.  The last is the turn of a methyl group.
CUTS = {PHI: LEFT, PSI: HELIX[0], (14, 16, 18, 19): 0.0}


@dataclass(frozen=True)
class Aldp(Molecule):
    """log rho(x) = -E(x) / (R T): Ace-Ala-Nme, 22 atoms, x in nm, in implicit solvent or vacuum.

    `forcefield` and `solvent` are ff96 or ff14sb in obc1, ff99sbildn in obc2 (the `amber99_obc` of
    OpenMM), or any of them in vacuum; `temperature` is in K.  The atoms are in the order of
    AMBER's topology (Ace, Ala, Nme), without constraints.  Parameters are those that OpenMM 8 reads
    (data/make_aldp.py).
    `coordinates` are cartesian, or internal: z holds 21 bonds, 20 angles and 19 torsions, each in
    units of about its spread, 0 near the extended form (`molecules.internal`).  It is one law with
    one Z: statistics, basins and reference are those of the positions.

    The support is cut: L-alanine, and both omega within 90 degrees of trans.  Elsewhere log rho is
    -inf.  Uncut, mirror images hold half of the law, and cis bonds (0.17 % in ff96, obc1) as much
    as the basin phi > 0 by which papers judge.  What is left is the same under rotations,
    translations, and permutations of the three hydrogens of each methyl group: Z counts all eight
    ways round of the three groups, of which a simulation that starts in one never leaves it.
    """

    name = "aldp"
    test_value = 55.71403855811965
    forcefield: str = "ff96"
    solvent: str = "obc1"
    temperature: float = 300.0
    coordinates: str = CARTESIAN
    centres = ((6, 14, 10, 8),)  # N, C, CB about CA
    trans = ((1, 4, 6, 8), (8, 14, 16, 18))
    same = ((0, 2, 3), (11, 12, 13), (19, 20, 21))
    chiral = True

    def __post_init__(self) -> None:
        if self.forcefield not in SOLVENTS:
            raise ValueError(
                f"forcefield is {self.forcefield!r}; it must be one of {', '.join(SOLVENTS)}"
            )
        own = SOLVENTS[self.forcefield]
        if self.solvent not in (own, VACUUM):
            raise ValueError(
                f"solvent is {self.solvent!r}; with {self.forcefield} it must be {own} or {VACUUM}"
            )
        if not 0 < self.temperature < torch.inf:
            raise ValueError(f"temperature is {self.temperature}; it must be positive, in kelvin")
        if self.coordinates not in SCALES:
            raise ValueError(
                f"coordinates is {self.coordinates!r}; it must be one of {', '.join(SCALES)}"
            )

    @property
    def scale(self) -> float:  # type: ignore[override]
        return SCALES[self.coordinates]

    @property
    def parameters(self) -> Parameters:
        return _parameters(self.forcefield, self.solvent)

    @property
    def chart(self) -> Coordinates:
        return _chart(self.parameters, self.coordinates)

    def statistics(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """Energy in units of R T; cos and sin of phi and psi; whether 0 < phi < 2.1; the distance
        between the outermost carbons, nm."""
        plain = replace(self, coordinates=CARTESIAN)
        of_positions = {
            "energy": lambda x: -plain.log_rho(x),
            "cos_phi": lambda x: dihedral(x, PHI).cos(),
            "sin_phi": lambda x: dihedral(x, PHI).sin(),
            "cos_psi": lambda x: dihedral(x, PSI).cos(),
            "sin_psi": lambda x: dihedral(x, PSI).sin(),
            "left": lambda x: (_basin(x) == 0).to(x.dtype),
            "length": lambda x: (x[..., 3:6] - x[..., 54:57]).square().sum(-1).sqrt(),
        }
        return {name: self._of(f) for name, f in of_positions.items()}

    def torsions(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """phi and psi, in rad."""
        return {
            "phi": self._of(partial(dihedral, atoms=PHI)),
            "psi": self._of(partial(dihedral, atoms=PSI)),
        }

    def basins(self) -> Basins:
        """0 < phi < 2.1 (left-handed and C7ax); of the others -2.1 < psi < 0.9 (right-handed helix)
        and the rest (extended)."""
        return Basins(3, self._of(_basin))

    @property
    def certified_as(self) -> Aldp:
        """In internal coordinates: a Gaussian of positions meets no conformation, and of the eight
        ways round of the methyl groups chains of positions see one."""
        return replace(self, coordinates=INTERNAL)

    def stored(self) -> Stored | None:
        """The reference in these coordinates, whichever it was made in."""
        stored = super().stored()
        theirs = stored.parameters.get("coordinates", CARTESIAN) if stored else self.coordinates
        if stored is None or theirs == self.coordinates:
            return stored
        x = replace(self, coordinates=theirs).chart.to_cartesian(stored.x.double())
        return stored._replace(x=self.chart.from_cartesian(x))

    def is_described(self, stored: Stored) -> bool:
        theirs = {"coordinates": CARTESIAN, **stored.parameters}
        mine = {**asdict(self), "coordinates": theirs["coordinates"]}
        return (stored.facts["version"], theirs) == (self.version, mine)

    def _of(self, f: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """A function of positions as one of the coordinates."""
        return lambda z: f(self.chart.to_cartesian(z))


def _basin(x: Float[Tensor, "b D"]) -> Tensor:
    phi, psi = dihedral(x, PHI), dihedral(x, PSI)
    left = (0 < phi) & (phi < LEFT)
    helix = (psi > HELIX[0]) & (psi < HELIX[1])
    return torch.where(left, 0, torch.where(helix, 1, 2))


@lru_cache(maxsize=8)
def _parameters(forcefield: str, solvent: str) -> Parameters:
    found = read(DATA / f"aldp_{forcefield}.npz")
    return found.in_vacuum() if solvent == VACUUM else found


@lru_cache(maxsize=16)
def _chart(parameters: Parameters, coordinates: str) -> Coordinates:
    if coordinates == CARTESIAN:
        return Cartesian(parameters.atoms)
    return internal(parameters.bonds, parameters.positions, Aldp.same, Aldp.trans, CUTS)
