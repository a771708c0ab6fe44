"""What a molecule's bonds and masses say: which atoms are alike, which hands and double bonds are
those of a conformation, and which torsions to look at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tiltbench.targets.molecules.angles import dihedral
from tiltbench.targets.molecules.forcefield import force_field
from tiltbench.targets.molecules.parameters import Parameters

Four = tuple[int, int, int, int]
CARBON, NITROGEN, OXYGEN = 12, 14, 16  # masses, rounded
ALIKE = 1e-6  # kJ/mol: energies that differ by less are those of one molecule


class Structure(NamedTuple):
    same: tuple[tuple[int, ...], ...]  # atoms with one bond on one parent, indistinguishable
    centres: tuple[Four, ...]  # parent last, in the order that makes the conformation's hand +
    trans: tuple[Four, ...]  # of amide bonds that are trans in the conformation
    angles: dict[str, Four]  # phi and psi of peptides, else bonds that turn: two at most


def structure(parameters: Parameters, masses: Sequence[float]) -> Structure:
    """Of the conformation that comes with the parameters."""
    near: list[list[int]] = [[] for _ in masses]
    for i, j in parameters.bonds.tolist():
        near[i].append(j)
        near[j].append(i)
    near = [sorted(others) for others in near]
    same = _same(parameters, near, masses)
    x = parameters.positions
    centres = []
    for atom, others in enumerate(near):
        if len(others) == 4 and not any(set(group) <= set(others) for group in same):
            a, b, c = (x[k] - x[atom] for k in others[:3])
            first, second, third = others[:3]
            if float(a @ b.cross(c, dim=0)) < 0:
                first, second = second, first
            centres.append((first, second, third, atom))
    amides = _amides(near, masses)
    flat = x.flatten()
    trans = tuple(four for four in amides if float(dihedral(flat, four).cos()) < 0)
    return Structure(same, tuple(centres), trans, _angles(near, masses, amides))


def _same(
    parameters: Parameters, near: list[list[int]], masses: Sequence[float]
) -> tuple[tuple[int, ...], ...]:
    """Atoms of equal mass that hang on one parent and whose exchange leaves energies as they are,
    at the conformation and five others near it."""
    groups = []
    field = force_field(parameters, parameters.positions.device, torch.float64)
    noise = torch.randn(6, *parameters.positions.shape, generator=torch.Generator().manual_seed(0))
    x = parameters.positions + 0.005 * noise.double() * torch.arange(6).double()[:, None, None]

    def energy(y: Tensor) -> Tensor:
        return field.energy(y.permute(1, 2, 0).contiguous())

    before = energy(x)
    for parent, others in enumerate(near):
        ends = [k for k in others if near[k] == [parent]]
        group = ends[:1]
        for k in ends[1:]:
            order = list(range(len(masses)))
            order[group[0]], order[k] = k, group[0]
            if masses[k] == masses[group[0]] and bool(
                (energy(x[:, order]) - before).abs().max() < ALIKE
            ):
                group.append(k)
        if len(group) > 1:
            groups.append(tuple(group))
    return tuple(groups)


def _amides(near: list[list[int]], masses: Sequence[float]) -> list[Four]:
    """(a, C, N, b) of every amide bond, a and b the first other heavy neighbours."""
    torsions = []
    for c, others in enumerate(near):
        if _is(masses, c, CARBON) and len(others) == 3:
            oxygens = [k for k in others if _is(masses, k, OXYGEN) and len(near[k]) == 1]
            for n in others:
                if oxygens and _is(masses, n, NITROGEN):
                    before = [k for k in others if k not in (n, oxygens[0]) and len(near[k]) > 1]
                    after = [k for k in near[n] if k != c and len(near[k]) > 1]
                    if before and after:
                        torsions.append((before[0], c, n, after[0]))
    return torsions


def _angles(
    near: list[list[int]], masses: Sequence[float], amides: Sequence[Four]
) -> dict[str, Four]:
    for _, c, n, ca in amides:
        for _, end, other, _ in amides:
            if end in near[ca] and end != c:
                return {"phi": (c, n, ca, end), "psi": (n, ca, end, other)}
    stiff = {frozenset(four[1:3]) for four in amides}
    torsions = []
    for j, others in enumerate(near):
        for k in others:
            left = [i for i in near[j] if i != k]
            right = [m for m in near[k] if m != j]
            if j < k and left and right and frozenset((j, k)) not in stiff:
                i, m = (max(ends, key=lambda end: len(near[end])) for ends in (left, right))
                torsions.append((min(len(near[i]), len(near[m])), (i, j, k, m)))
    torsions.sort(key=lambda one: -one[0])  # those in the middle first, turns of methyl groups last
    return {f"tau{k}": four for k, (_, four) in enumerate(torsions[:2], 1)}


def _is(masses: Sequence[float], atom: int, mass: int) -> bool:
    return round(masses[atom]) == mass
