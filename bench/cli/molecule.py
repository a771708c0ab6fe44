"""`tiltbench molecule`: make a target of a small molecule of an OpenMM System."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

from tiltbench.cli.options import Typed, option
from tiltbench.plan.errors import Refused
from tiltbench.records.command import command


def molecule(
    system: Annotated[str, option("the System, as openmm.XmlSerializer.serialize writes it")],
    coordinates: Annotated[str, option("a conformation: .pdb, or .npy (atoms, 3) in nm")],
    /,
    *,
    name: Annotated[str | None, option("of the target (default: that of SYSTEM)")] = None,
    temperature: Annotated[float, option("in kelvin (default 300)", "T")] = 300.0,
    out: Annotated[str, option("default: this folder", "DIR")] = ".",
    typed: Typed,
) -> int:
    """Write NAME.py, a target whose energy is that of the System at a temperature, with its
    parameters in NAME.npz beside it.

    The System has harmonic bonds and angles, periodic torsions, one NonbondedForce without a
    cut-off and, perhaps, OBC solvent; no constraints.  OpenMM itself is not needed.
    """
    from tiltbench.targets.molecules.files import checked, write
    from tiltbench.targets.molecules.files import coordinates as positions
    from tiltbench.targets.molecules.system import Unconvertible

    if not 0 < temperature < math.inf:
        raise Refused(f"--temperature {temperature:g} must be positive, in kelvin")
    path = Path(system)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"{system} cannot be read ({error}): name the System's XML file") from None
    chosen = name or path.name.split(".")[0].lower().replace("-", "_")
    try:
        built, topology = checked(text, positions(Path(coordinates)))
        files = write(chosen, built, topology, temperature, Path(out), command(typed))
    except (Unconvertible, FileExistsError) as error:
        raise Refused(str(error)) from None
    for file in files:
        print(file)
    hands = f"{len(topology.centres)} hands and {len(topology.trans)} trans amide bonds"
    print(
        f"the support is cut to {hands} as in {coordinates}; {files[0].name} says how to change it"
    )
    print(f"next: {command(['check', str(files[0])])}")
    return 0
