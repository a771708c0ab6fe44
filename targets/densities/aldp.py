"""Alanine dipeptide, the molecule with which papers on Boltzmann samplers end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from tiltbench.targets.molecules.angles import dihedral
from tiltbench.targets.molecules.charted import CARTESIAN, INTERNAL, Charted
from tiltbench.targets.molecules.parameters import Parameters, read
from tiltbench.targets.reference import Basins
from tiltbench.targets.target import DATA

SOLVENTS = {"ff96": "obc1", "ff99sbildn": "obc2", "ff14sb": "obc1"}
VACUUM = "vacuum"
PHI, PSI = (4, 6, 8, 14), (6, 8, 14, 16)
LEFT = 2.1  # rad: 0 < phi < 2.1 holds the left-handed helix and C7ax, which are rare
HELIX = (-2.1, 0.9)  # rad: psi of the right-handed helix


@dataclass(frozen=True)
class Aldp(Charted):
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
    scales = {CARTESIAN: 0.17, INTERNAL: 1.2}  # noqa: RUF012
    # where few conformations are; the last is the turn of a methyl group
    cuts = {PHI: LEFT, PSI: HELIX[0], (14, 16, 18, 19): 0.0}  # noqa: RUF012
    angles = {"phi": PHI, "psi": PSI}  # noqa: RUF012

    def __post_init__(self) -> None:
        if self.forcefield not in SOLVENTS:
            raise ValueError(
                f"forcefield is {self.forcefield!r}; it must be one of {', '.join(SOLVENTS)}"
            )
        allowed = SOLVENTS[self.forcefield]
        if self.solvent not in (allowed, VACUUM):
            raise ValueError(
                f"solvent is {self.solvent!r}; with {self.forcefield} it must be {allowed} "
                f"or {VACUUM}"
            )
        super().__post_init__()

    @property
    def parameters(self) -> Parameters:
        return _parameters(self.forcefield, self.solvent)

    def statistics(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """Energy in units of R T; cos and sin of phi and psi; whether 0 < phi < 2.1; the distance
        between the outermost carbons, nm."""
        plain = self.plain
        of_positions = {
            "energy": lambda x: -plain.log_rho(x),
            "cos_phi": lambda x: dihedral(x, PHI).cos(),
            "sin_phi": lambda x: dihedral(x, PHI).sin(),
            "cos_psi": lambda x: dihedral(x, PSI).cos(),
            "sin_psi": lambda x: dihedral(x, PSI).sin(),
            "left": lambda x: (_basin(x) == 0).to(x.dtype),
            "length": lambda x: (x[..., 3:6] - x[..., 54:57]).square().sum(-1).sqrt(),
        }
        return {name: self.of(f) for name, f in of_positions.items()}

    def basins(self) -> Basins:
        """0 < phi < 2.1 (left-handed and C7ax); of the others -2.1 < psi < 0.9 (right-handed helix)
        and the rest (extended)."""
        return Basins(3, self.of(_basin))


def _basin(x: Float[Tensor, "b D"]) -> Tensor:
    phi, psi = dihedral(x, PHI), dihedral(x, PSI)
    left = (0 < phi) & (phi < LEFT)
    helix = (psi > HELIX[0]) & (psi < HELIX[1])
    return torch.where(left, 0, torch.where(helix, 1, 2))


@lru_cache(maxsize=8)
def _parameters(forcefield: str, solvent: str) -> Parameters:
    parameters = read(DATA / f"aldp_{forcefield}.npz")
    return parameters.in_vacuum() if solvent == VACUUM else parameters
