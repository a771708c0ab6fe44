"""Writes aldp_FORCEFIELD.npz with their provenance; needs OpenMM, which holds two of the force
fields, and the wheel of openmmtools, whose AMBER files are the ff96 of FAB and bgmol.

    pip download --no-deps openmmtools
    python targets/data/make_aldp.py FOLDER openmmtools-*.whl

The files' phases are 3.141594 for pi: OpenMM's own amber96.xml has energies that differ from these
by up to 3e-4 kJ/mol.

The arrays are frozen: rerunning this elsewhere must give them to 1e-6, or the files are kept.
"""

from __future__ import annotations

import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import openmm
import torch
from openmm import app

from tiltbench.targets.molecules.system import converted

RESIDUES = {
    "ACE": "H1 CH3 H2 H3 C O",
    "ALA": "N H CA HA CB HB1 HB2 HB3 C O",
    "NME": "N H C H1 H2 H3",
}
AMBER = "openmmtools/data/alanine-dipeptide-gbsa/alanine-dipeptide.prmtop"
FIELDS = {
    "ff99sbildn": ("amber99sbildn.xml", "amber99_obc.xml"),
    "ff14sb": ("amber14/protein.ff14SB.xml", "implicit/obc1.xml"),
}


def topology() -> app.Topology:
    """Ace-Ala-Nme, 22 atoms."""
    molecule = app.Topology()
    chain = molecule.addChain()
    for name, atoms in RESIDUES.items():
        residue = molecule.addResidue(name, chain)
        for atom in atoms.split():
            molecule.addAtom(atom, app.element.Element.getBySymbol(atom[0]), residue)
    molecule.createStandardBonds()
    return molecule


def systems(wheel: Path) -> Iterator[tuple[str, str, openmm.System]]:
    """Name, source and System of each."""
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as folder:
        file = app.AmberPrmtopFile(archive.extract(AMBER, folder))
        system = file.createSystem(implicitSolvent=app.OBC1, constraints=None)
        yield "ff96", f"{Path(AMBER).name} of {wheel.name}, OBC1", system
    for name, files in FIELDS.items():
        system = app.ForceField(*files).createSystem(
            topology(), nonbondedMethod=app.NoCutoff, constraints=None
        )
        yield name, f"{', '.join(files)} of OpenMM", system


def positions(wheel: Path) -> torch.Tensor:
    """(22, 3): the conformation that comes with the AMBER file."""
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as folder:
        file = app.AmberInpcrdFile(archive.extract(AMBER.replace(".prmtop", ".crd"), folder))
    return torch.tensor(file.getPositions(asNumpy=True).value_in_unit(openmm.unit.nanometer))


def main(folder: Path, wheel: Path) -> None:
    for name, source, system in systems(wheel):
        about = {
            "what": "Parameters of Ace-Ala-Nme (nm, rad, kJ/mol, e), as `Parameters` names them",
            "source": f"{source}; AMBER force fields, from AmberTools",
            "command": f"python targets/data/make_aldp.py targets/data {wheel.name}",
            "openmm": openmm.__version__,
        }
        text = openmm.XmlSerializer.serialize(system)
        converted(text, positions(wheel)).save(folder / f"aldp_{name}.npz", about)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
