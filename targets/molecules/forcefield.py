"""The potential energy of a molecule, with its gradient, of any number of conformations at once.

    E = sum_bonds k/2 (r - r0)^2 + sum_angles k/2 (theta - theta0)^2
        + sum_torsions k (1 + cos(n phi - gamma))
        + sum_{i<j} 4 eps_ij ((sigma_ij/r)^12 - (sigma_ij/r)^6) + k_e q_ij / r
        + what a generalised Born solvent adds (`nonbonded.Born`),

in kJ/mol, positions in nm.  Exclusions and the scaled 1-4 interactions are in the parameters of the
pairs.  Every term is a function of differences of positions: one product with a matrix of 1 and -1
makes all of them, and its transpose collects the forces.  The batch is innermost, so that
arithmetic runs on long rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tiltbench.targets.molecules.bonded import Term, angles, bonds, square, torsions
from tiltbench.targets.molecules.nonbonded import COULOMB, Born, Vacuum
from tiltbench.targets.molecules.parameters import Parameters

CORE = 0.01  # nm: no two atoms are nearer


@dataclass(frozen=True, eq=False)
class ForceField:
    """The terms of one molecule, on one device and in one precision."""

    edges: Float[Tensor, "e n"]  # 1 and -1: pairs, then bonds, angles (2) and torsions (3)
    parts: tuple[int, ...]  # how many edges of each
    bonds: tuple[Tensor, Tensor]
    angles: tuple[Tensor, Tensor]
    torsions: tuple[Tensor, Tensor]
    constant: float  # of the torsions
    vacuum: Vacuum
    born: Born | None

    def energy(self, y: Float[Tensor, "n 3 b"]) -> Float[Tensor, " b"]:
        """E in kJ/mol, made of differentiable operations; inf where two atoms are in the core."""
        vectors = self._vectors(y)
        s, near = self._squares(vectors[: self.parts[0]])
        energies = [term.energy for term in self._bonded(vectors)]
        energies += [term.energy(s) for term in self._unbonded()]
        return self._total(energies, near)

    def energy_and_gradient(
        self, y: Float[Tensor, "n 3 b"]
    ) -> tuple[Float[Tensor, " b"], Float[Tensor, "n 3 b"]]:
        """E and dE/dy in kJ/mol/nm, neither with a graph."""
        with torch.no_grad():
            vectors = self._vectors(y)
            between, bonded = vectors[: self.parts[0]], self._bonded(vectors)
            s, near = self._squares(between)
            pairs = [term.energy_and_slope(s) for term in self._unbonded()]
            energies = [e for e, _ in pairs] + [term.energy for term in bonded]
            by_s = pairs[0][1].mul_(2)
            for _, slope in pairs[1:]:
                by_s.add_(slope, alpha=2)
            pulls = [pull for term in bonded for pull in term.pull()]
            between.mul_(by_s[:, None])  # the vectors become the forces on them
            torch.cat(pulls, out=vectors[self.parts[0] :])
            gradient = self.edges.T @ vectors.flatten(1)
            return self._total(energies, near), gradient.view_as(y)

    def _vectors(self, y: Float[Tensor, "n 3 b"]) -> Float[Tensor, "e 3 b"]:
        return (self.edges @ y.flatten(1)).unflatten(1, y.shape[1:])

    def _squares(self, between: Float[Tensor, "P 3 b"]) -> tuple[Tensor, Bool[Tensor, " b"]]:
        """r^2 of all pairs, not below CORE^2, and where one of them would be."""
        s = square(between)
        return s.clamp(min=CORE**2), s.amin(0) < CORE**2

    def _total(self, energies: list[Tensor], near: Bool[Tensor, " b"]) -> Float[Tensor, " b"]:
        total = torch.stack(energies).sum(0) + self.constant
        return total.masked_fill(near, torch.inf)

    def _bonded(self, vectors: Float[Tensor, "e 3 b"]) -> list[Term]:
        _, bond, a, c, f, g, h = vectors.split(self.parts)
        return [
            bonds(bond, *self.bonds),
            angles(a, c, *self.angles),
            torsions(f, g, h, *self.torsions),
        ]

    def _unbonded(self) -> list[Vacuum | Born]:
        return [self.vacuum] if self.born is None else [self.vacuum, self.born]


@lru_cache(maxsize=64)
def force_field(parameters: Parameters, device: torch.device, dtype: torch.dtype) -> ForceField:
    """The force field of a molecule where and as it is needed, made once."""
    with torch.inference_mode(False):  # or whoever records a graph later could not use it
        return _build(parameters, device, dtype)


def _build(parameters: Parameters, device: torch.device, dtype: torch.dtype) -> ForceField:
    n = parameters.atoms

    def put(values: Tensor) -> Tensor:
        return values.to(dtype=dtype, device=device).contiguous()

    def columns(values: Float[Tensor, "m c"]) -> tuple[Tensor, ...]:
        return tuple(put(column[:, None]) for column in values.T)

    quadruples, even, odd = _harmonics(parameters)
    i, j = torch.triu_indices(n, n, 1)
    (a, b), (c, d, e), (f, g, h, k) = parameters.bonds.T, parameters.angles.T, quadruples.T
    ends = [(i, j), (a, b), (c, d), (e, d), (f, g), (g, h), (k, h)]
    edges = torch.zeros(sum(len(start) for start, _ in ends), n, dtype=torch.float64)
    rows = torch.arange(len(edges))
    edges[rows, torch.cat([start for start, _ in ends])] = 1.0
    edges[rows, torch.cat([end for _, end in ends])] = -1.0
    charge, sigma, depth = parameters.pair_values.T
    born, solvent = parameters.born, parameters.solvent
    return ForceField(
        put(edges),
        tuple(len(start) for start, _ in ends),
        columns(parameters.bond_values),  # type: ignore[arg-type]
        columns(parameters.angle_values),  # type: ignore[arg-type]
        (put(even), put(odd)),
        float(parameters.torsion_values[:, 2].sum()),
        Vacuum(*columns(torch.stack([COULOMB * charge, sigma.square(), 4 * depth], 1))),
        None if born is None or solvent is None else _solvent(born, solvent, put),
    )


def _harmonics(parameters: Parameters) -> tuple[Tensor, Tensor, Tensor]:
    """The torsions' atoms, each four once, and k cos gamma and k sin gamma of every n."""
    forward = parameters.torsions
    ahead = (forward[:, :1] < forward[:, 3:]).expand(forward.shape)
    atoms, which = torch.unique(
        torch.where(ahead, forward, forward.flip(1)), dim=0, return_inverse=True
    )
    n, phase, k = parameters.torsion_values.T
    most = max([1, *n.long().tolist()])
    even = torch.zeros(most, len(atoms), 1, dtype=torch.float64)
    odd = torch.zeros_like(even)
    place = (n.long() - 1, which, torch.zeros_like(which))
    even.index_put_(place, k * phase.cos(), accumulate=True)
    odd.index_put_(place, k * phase.sin(), accumulate=True)
    return atoms, even, odd


def _solvent(born: Tensor, solvent: Tensor, put: Callable[[Tensor], Tensor]) -> Born:
    charge, rho, scaled = born.T
    one, two, three, inside, outside, surface, coulomb = solvent.tolist()
    factor = coulomb * (1 / inside - 1 / outside)
    i, j = pairs = torch.triu_indices(len(born), len(born), 1)
    owner = torch.nn.functional.one_hot(pairs.flatten(), len(born)).T
    return Born(
        pairs=pairs.to(put(rho).device),
        owner=put(owner),
        radius=put(rho[pairs][..., None]),
        other=put(scaled[pairs.flip(0)][..., None]),
        rho=put(rho[:, None]),
        charges=put((factor * charge[i] * charge[j])[:, None]),
        selves=put((factor / 2 * charge.square())[:, None]),
        polynomial=(one, two, three),
        surface=surface,
    )
