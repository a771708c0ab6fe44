"""A molecule's parameters from an OpenMM `System`, as `XmlSerializer` writes it.

Nothing of OpenMM is needed.  What the energy here does not have is refused with a sentence.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import NoReturn
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import torch
from jaxtyping import Float
from torch import Tensor

from tiltbench.targets.molecules.nonbonded import COULOMB, OFFSET
from tiltbench.targets.molecules.parameters import Parameters

SILENT = {"CMMotionRemover", "AndersenThermostat", "MonteCarloBarostat"}  # no part of the energy
BONDED = {
    "HarmonicBondForce": ("Bond", ("p1", "p2"), ("d", "k")),
    "HarmonicAngleForce": ("Angle", ("p1", "p2", "p3"), ("a", "k")),
    "PeriodicTorsionForce": ("Torsion", ("p1", "p2", "p3", "p4"), ("periodicity", "phase", "k")),
}
LENGTHS = (0.05, 0.5)  # nm, of bonds: others are in other units
POLYNOMIALS = {
    "0.8*psi+2.909125*psi^3": (0.8, 0.0, 2.909125),
    "0.8*psi+0*psi^2+2.909125*psi^3": (0.8, 0.0, 2.909125),
    "psi-0.8*psi^2+4.85*psi^3": (1.0, -0.8, 4.85),
}  # OBC I and II
NATIVE = POLYNOMIALS["psi-0.8*psi^2+4.85*psi^3"]  # of GBSAOBCForce
DESCREENING = (
    "select(step(r+sr2-or1),0.5*(1/L-1/U+0.25*(r-sr2^2/r)*(1/(U^2)-1/(L^2))+0.5*log(L/U)/r),0);"
    "U=r+sr2;L=max(or1,D);D=abs(r-sr2)"
)
RADIUS = r"1/\(1/or-tanh\((?P<polynomial>.*)\)/radius\);psi=I\*or;radius=or\+offset;offset=0\.009"
SELF = r"-0\.5\*(?P<k>[0-9.]+)\*\(1/soluteDielectric-1/solventDielectric\)\*charge\^2/B"
SURFACE = r"(?P<surface>[0-9.]+)\*\(radius\+0\.14\)\^2\*\(radius/B\)\^6;radius=or\+offset"
PAIR = (
    r"-[0-9.]+\*\(1/soluteDielectric-1/solventDielectric\)\*charge1\*charge2/f;"
    r"f=sqrt\(r\^2\+B1\*B2\*exp\(-r\^2/\(4\*B1\*B2\)\)\)"
)


class Unconvertible(ValueError):
    """A System that has no energy of the kind that is known here; the sentence says why."""


def converted(text: str, positions: Float[Tensor, "n 3"]) -> Parameters:
    """The parameters of a System, and a conformation in nm.  Raises Unconvertible."""
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise Unconvertible(
            f"the file is not XML ({error}): write it with openmm.XmlSerializer.serialize(system)"
        ) from None
    if root.tag != "System":
        raise Unconvertible(
            f"the XML holds a {root.tag}, not a System: write it with "
            "openmm.XmlSerializer.serialize(system)"
        )
    n = len(root.findall("Particles/Particle"))
    if len(positions) != n:
        raise Unconvertible(
            f"there are coordinates of {len(positions)} atoms, and the System has {n}: give those "
            "of its atoms, in its order"
        )
    if len(root.findall("Constraints/Constraint")):
        raise Unconvertible("the System has constraints: make it with constraints=None")
    if any(len(particle) for particle in root.findall("Particles/Particle")):
        raise Unconvertible("the System has virtual sites: choose a force field without them")
    forces = [force for force in root.findall("Forces/Force") if force.get("type") not in SILENT]
    known = {*BONDED, "NonbondedForce", "GBSAOBCForce", "CustomGBForce"}
    for force in forces:
        if force.get("type") not in known:
            raise Unconvertible(
                f"the System has a {force.get('type')}, which the energy here does not know: "
                "choose a force field of harmonic bonds and angles, periodic torsions, pairs, and "
                "generalised Born solvent"
            )
        if force.get("usesPeriodic", "0") != "0" or force.get("method", "0") != "0":
            raise Unconvertible(
                f"the {force.get('type')} has a cut-off or a periodic box: make the System with "
                "nonbondedMethod=NoCutoff"
            )
    terms = {kind: _terms(forces, kind, n) for kind in BONDED}
    bonds, bond_values = terms["HarmonicBondForce"]
    _sensible(bonds, bond_values)
    (angles, angle_values), (torsions, torsion_values) = (
        terms["HarmonicAngleForce"],
        terms["PeriodicTorsionForce"],
    )
    solvents = [force for force in forces if force.get("type") in ("GBSAOBCForce", "CustomGBForce")]
    if len(solvents) > 1:
        raise Unconvertible("the System has two solvents: choose one implicit solvent")
    born, solvent = _solvent(solvents[0], n) if solvents else (None, None)
    return Parameters(
        bonds,
        bond_values,
        angles,
        angle_values,
        torsions,
        torsion_values,
        _pairs([force for force in forces if force.get("type") == "NonbondedForce"], n),
        positions.double(),
        born,
        solvent,
    )


def _terms(forces: list[Element], kind: str, n: int) -> tuple[Tensor, Tensor]:
    """The atoms and the values of all terms of one kind."""
    tag, ends, values = BONDED[kind]
    elements = [e for force in forces if force.get("type") == kind for e in force.iter(tag)]
    atoms = torch.tensor(
        [[int(_number(e, key, kind)) for key in ends] for e in elements], dtype=torch.int64
    ).reshape(-1, len(ends))
    if len(atoms) and not (0 <= int(atoms.min()) and int(atoms.max()) < n):
        raise Unconvertible(f"a {kind} names an atom that is not among the {n} of the System")
    return atoms, _table([[_number(e, key, kind) for key in values] for e in elements], len(values))


def _number(element: Element, key: str, kind: str | None) -> float:
    text = element.get(key)
    try:
        value = float(text)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise Unconvertible(
            f"a {element.tag} of the {kind} has no number {key!r} (it is {text!r}): parameters are "
            "missing, make the System again"
        ) from None
    if not math.isfinite(value):
        raise Unconvertible(f"a {element.tag} of the {kind} has {key} = {text}: it must be finite")
    return value


def _table(rows: list[list[float]], columns: int) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64).reshape(-1, columns)


def _sensible(bonds: Tensor, values: Tensor) -> None:
    odd = ((values[:, 0] < LENGTHS[0]) | (values[:, 0] > LENGTHS[1])).nonzero()
    if len(odd):
        (a, b), length = bonds[odd[0, 0]].tolist(), float(values[odd[0, 0], 0])
        raise Unconvertible(
            f"the bond of atoms {a} and {b} is {length:g} nm long: lengths must be in nm, energies "
            "in kJ/mol"
        )


def _pairs(forces: list[Element], n: int) -> Tensor:
    """q_i q_j, sigma, eps of every pair, by the rules of Lorentz and Berthelot or an exception."""
    if len(forces) != 1:
        raise Unconvertible(
            f"the System has {len(forces)} NonbondedForces: the charges of its atoms are to be in "
            "one"
        )
    (force,) = forces
    if any(len(force.findall(f"{tag}/*")) for tag in ("ParticleOffsets", "ExceptionOffsets")):
        raise Unconvertible("the NonbondedForce has parameter offsets: set them to numbers")
    kind, keys = "NonbondedForce", ("q", "sig", "eps")
    atoms = _table(
        [[_number(e, k, kind) for k in keys] for e in force.findall("Particles/Particle")], 3
    )
    _complete(atoms, n, kind)
    q, sigma, depth = atoms.T
    i, j = torch.triu_indices(n, n, 1)
    values = torch.stack([q[i] * q[j], (sigma[i] + sigma[j]) / 2, (depth[i] * depth[j]).sqrt()], 1)
    place = {pair: k for k, pair in enumerate(zip(i.tolist(), j.tolist(), strict=True))}
    for e in force.findall("Exceptions/Exception"):
        a, b = sorted(int(_number(e, key, kind)) for key in ("p1", "p2"))
        if (a, b) not in place:
            raise Unconvertible(f"an exception of atoms {a} and {b} is of none of the {n} atoms")
        values[place[a, b]] = _table([[_number(e, k, kind) for k in keys]], 3)[0]
    return values


def _complete(atoms: Tensor, n: int, kind: str | None) -> None:
    if len(atoms) != n:
        raise Unconvertible(
            f"the {kind} has parameters of {len(atoms)} atoms, the System {n}: parameters are "
            "missing, make the System again"
        )


def _solvent(force: Element, n: int) -> tuple[Tensor, Tensor]:
    """`born` and `solvent` of the Parameters."""
    kind = force.get("type")
    if kind == "GBSAOBCForce":
        rows = [
            [_number(e, key, kind) for key in ("q", "r", "scale")] for e in force.iter("Particle")
        ]
        atoms = _table(rows, 3)
        _complete(atoms, n, kind)
        charge, radius, scale = atoms.T
        rho = radius - OFFSET
        inside, outside, tension = (
            _number(force, key, kind)
            for key in ("soluteDielectric", "solventDielectric", "surfaceAreaEnergy")
        )
        solvent = [*NATIVE, inside, outside, 4 * math.pi * tension, COULOMB]
        return torch.stack([charge, rho, rho * scale], 1), torch.tensor(solvent).double()
    atoms = _table(
        [
            [_number(e, f"param{k}", kind) for k in (1, 2, 3)]
            for e in force.findall("Particles/Particle")
        ],
        3,
    )
    _complete(atoms, n, kind)
    return atoms, torch.tensor(_formula(force), dtype=torch.float64)


def _formula(force: Element) -> list[float]:
    """What the expressions of a CustomGBForce say, where they are those of OBC I or II."""
    names = tuple(str(e.get("name")) for e in force.findall("PerParticleParameters/Parameter"))
    values = [_plain(e) for e in force.findall("ComputedValues/Value")]
    terms = [_plain(e) for e in force.findall("EnergyTerms/Term")]
    if names != ("charge", "or", "sr") or len(values) != 2 or values[0] != DESCREENING:
        _unknown()
    radius = re.fullmatch(RADIUS, values[1])
    if radius is None or radius["polynomial"] not in POLYNOMIALS:
        _unknown()
    surface, coulomb, pair = 0.0, None, False
    inside, outside = (
        _constants(terms, name) for name in ("soluteDielectric", "solventDielectric")
    )
    if _constants(terms, "kappa") != 0.0 or abs(_constants(terms, "offset") - OFFSET) > 1e-9:
        _unknown()
    for term in (
        re.sub(r"(;(solventDielectric|soluteDielectric|kappa|offset)=[^;]*)+$", "", t)
        for t in terms
    ):
        if one := re.fullmatch(SELF, term):
            coulomb = float(one["k"])
        elif one := re.fullmatch(SURFACE, term):
            surface = float(one["surface"])
        elif re.fullmatch(PAIR, term):
            pair = True
        else:
            _unknown()
    if coulomb is None or not pair:
        _unknown()
    return [*POLYNOMIALS[radius["polynomial"]], inside, outside, surface, coulomb]


def _constants(terms: Iterable[str], name: str) -> float:
    """What all terms say of a constant."""
    values = {part for term in terms for part in re.findall(rf"{name}=([0-9.eE+-]+)", term)}
    if len(values) != 1:
        _unknown()
    return float(values.pop())


def _plain(element: Element) -> str:
    return re.sub(r"\s", "", element.get("expression", ""))


def _unknown() -> NoReturn:
    raise Unconvertible(
        "the CustomGBForce is not the solvent OBC1 or OBC2 without salt: make the System with "
        "implicit/obc1.xml or implicit/obc2.xml"
    )
