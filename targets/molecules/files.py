"""Files of molecules: coordinates are read, and a target is written."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tiltbench.targets.molecules.forcefield import force_field
from tiltbench.targets.molecules.internal import internal
from tiltbench.targets.molecules.parameters import Parameters
from tiltbench.targets.molecules.structure import Structure, structure
from tiltbench.targets.molecules.system import Unconvertible, converted

NEAREST = 0.05  # nm: atoms that are nearer are on top of each other
STRETCHED = 2.0  # a bond that is longer or shorter by this factor is none
TARGET = '''\
"""NAME: a molecule of ATOMS atoms, written by `tiltbench molecule`."""

from dataclasses import dataclass

from tiltbench.targets.molecules.charted import Converted


@dataclass(frozen=True)
class CLASS(Converted):
    """log rho(x) = -E(x) / (R T), x in nm; see `tiltbench.targets.molecules.charted`.

    E is in NAME.npz beside this file.  What is cut from the support stands in `centres` and
    `trans`, by the conformation that the file was made from: empty them for both hands."""

    name = "NAME"
    temperature: float = TEMPERATURE  # K
    coordinates: str = "cartesian"  # or "internal": bonds, angles and torsions
    scales = SCALES  # rms coordinate: of positions in nm, of internal coordinates
    same = SAME  # atoms that the force field does not tell apart
    centres = CENTRES  # (a, b, c, d): the hand about d
    trans = TRANS  # torsions within 90 degrees of trans
    angles = ANGLES  # torsions that metrics and pictures show
    chiral = CHIRAL
'''


def coordinates(path: Path) -> Float[Tensor, "n 3"]:
    """Positions in nm of a .npy file (n, 3), in nm, or of the first model of a .pdb file, whose
    columns are in angstrom.  Raises Unconvertible."""
    if path.suffix == ".npy":
        try:
            positions = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise Unconvertible(
                f"{path} is no array of numpy ({error}): write one with np.save"
            ) from None
        if positions.ndim != 2 or positions.shape[1] != 3 or positions.dtype.kind not in "fiu":
            raise Unconvertible(
                f"{path} holds {positions.dtype} of shape {positions.shape}: "
                "it must be (atoms, 3), in nm"
            )
        return torch.from_numpy(positions.astype(np.float64))
    if path.suffix != ".pdb":
        raise Unconvertible(f"coordinates are read from .pdb and .npy files, not from {path.name}")
    rows = []
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("ENDMDL"):
                break
            if line.startswith(("ATOM", "HETATM")):
                rows.append([float(line[k : k + 8]) / 10 for k in (30, 38, 46)])
    except (OSError, ValueError) as error:
        raise Unconvertible(
            f"{path} is no PDB file ({error}): x, y and z stand in columns 31 to 54"
        ) from None
    return torch.tensor(rows, dtype=torch.float64).reshape(-1, 3)


def checked(text: str, positions: Float[Tensor, "n 3"]) -> tuple[Parameters, Structure]:
    """The parameters and the structure of a serialised System at a conformation.

    Raises Unconvertible where the two do not fit."""
    parameters = converted(text, torch.nan_to_num(positions))
    n = parameters.atoms
    bad = (~positions.isfinite()).any(1).nonzero()
    if len(bad):
        raise Unconvertible(f"the coordinates of atom {int(bad[0])} are not finite: give numbers")
    i, j = torch.triu_indices(n, n, 1)
    apart = (positions[i] - positions[j]).square().sum(1).sqrt()
    k = int(apart.argmin())
    if apart[k] < NEAREST:
        raise Unconvertible(
            f"atoms {int(i[k])} and {int(j[k])} are {float(apart[k]):.3g} nm apart, on top of each "
            "other: coordinates must be those of a conformation, in nm (a PDB file in angstrom)"
        )
    for (a, b), rest in zip(
        parameters.bonds.tolist(), parameters.bond_values[:, 0].tolist(), strict=True
    ):
        length = float((positions[a] - positions[b]).norm())
        if not 1 / STRETCHED < length / rest < STRETCHED:
            raise Unconvertible(
                f"the bond of atoms {a} and {b} is {length:.3g} nm long in the coordinates and "
                f"{rest:.3g} nm in the System: give coordinates in nm (a PDB file in angstrom), in "
                "the order of the System's atoms"
            )
    here = force_field(parameters, positions.device, torch.float64)
    if not here.energy(positions[..., None]).isfinite().all():
        raise Unconvertible("the energy of the coordinates is not finite: minimise them first")
    return parameters, structure(parameters, _masses(text))


def _masses(text: str) -> list[float]:
    particles = ElementTree.fromstring(text).findall("Particles/Particle")
    try:
        return [float(particle.get("mass", "")) for particle in particles]
    except ValueError:
        raise Unconvertible("a particle of the System has no mass: make the System again") from None


def write(
    name: str,
    parameters: Parameters,
    structure: Structure,
    temperature: float,
    folder: Path,
    source: str,
) -> list[Path]:
    """NAME.py, NAME.npz and NAME.json.  Raises Unconvertible where the name is none, and
    FileExistsError rather than replace a target."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise Unconvertible(f"{name!r} is no name: use small letters, digits and _")
    path = folder / f"{name}.py"
    if path.exists():
        raise FileExistsError(f"{path} is there: name another, or delete it")
    centred = parameters.positions - parameters.positions.mean(0)
    scales = {"cartesian": float(f"{float(centred.square().mean().sqrt()):.2g}")}
    try:
        internal(parameters.bonds, parameters.positions, structure.same, structure.trans)
        scales["internal"] = 1.2
    except ValueError:
        pass  # a ring without an end, or several molecules: positions only
    values = {
        "CLASS": "".join(part.title() for part in name.split("_")),
        "NAME": name,
        "ATOMS": str(parameters.atoms),
        "TEMPERATURE": repr(float(temperature)),
        "SCALES": repr(scales),
        "SAME": repr(structure.same),
        "CENTRES": repr(structure.centres),
        "TRANS": repr(structure.trans),
        "ANGLES": repr(structure.angles),
        "CHIRAL": repr(bool(structure.centres)),
    }
    text = re.sub(r"\b[A-Z]{4,}\b", lambda m: values.get(m[0], m[0]), TARGET)
    folder.mkdir(parents=True, exist_ok=True)
    parameters.save(folder / f"{name}.npz", {"source": source})
    path.write_text(text, encoding="utf-8")
    return [path, folder / f"{name}.npz", folder / f"{name}.json"]
