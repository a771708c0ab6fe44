"""Alanine dipeptide in OpenMM, where that is installed."""

import openmm
import torch
from openmm import app

RESIDUES = {
    "ACE": "H1 CH3 H2 H3 C O",
    "ALA": "N H CA HA CB HB1 HB2 HB3 C O",
    "NME": "N H C H1 H2 H3",
}
FIELDS = {
    "ff96, vacuum": ("amber96.xml",),
    "ff96, obc1": ("amber96.xml", "implicit/obc1.xml"),
    "ff99sbildn, obc2": ("amber99sbildn.xml", "amber99_obc.xml"),
    "ff14sb, obc1": ("amber14/protein.ff14SB.xml", "implicit/obc1.xml"),
    "ff14sb, obc2": ("amber14/protein.ff14SB.xml", "implicit/obc2.xml"),
}


def system(name):
    topology = app.Topology()
    chain = topology.addChain()
    for residue, atoms in RESIDUES.items():
        place = topology.addResidue(residue, chain)
        for atom in atoms.split():
            topology.addAtom(atom, app.element.Element.getBySymbol(atom[0]), place)
    topology.createStandardBonds()
    return app.ForceField(*FIELDS[name]).createSystem(
        topology, nonbondedMethod=app.NoCutoff, constraints=None
    )


def context(system, platform):
    properties = {"Threads": "1"} if platform == "CPU" else {}
    integrator = openmm.VerletIntegrator(0.001)
    return openmm.Context(
        system, integrator, openmm.Platform.getPlatformByName(platform), properties
    )


def energies(system, x, platform):
    """(n,) kJ/mol and (n, 66) forces, kJ/mol/nm, one conformation after the other."""
    here = context(system, platform)
    energy, force = [], []
    for row in x.reshape(len(x), -1, 3).numpy():
        here.setPositions(row)
        state = here.getState(getEnergy=True, getForces=True)
        energy.append(state.getPotentialEnergy()._value)
        force.append(torch.tensor(state.getForces(asNumpy=True)._value).flatten())
    return torch.tensor(energy, dtype=torch.float64), torch.stack(force)
