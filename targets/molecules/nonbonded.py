"""Energies of pairs: Lennard-Jones, Coulomb, and a generalised Born solvent.

A term is a function of the squared distances s (P, b) of all pairs i < j, in the order of
`triu_indices`, the batch b innermost.  `energy` is made of differentiable operations;
`energy_and_slope` adds dE/ds, written down, and reuses its arrays, which stay in the cache.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

COULOMB = 138.93545764438198  # kJ nm / mol / e^2
OFFSET = 0.009  # nm: the radius of an atom less that of the sphere which its Born radius grows from
PROBE = 0.14  # nm: a molecule of water


@dataclass(frozen=True, eq=False)
class Vacuum:
    """sum 4 eps ((sigma / r)^12 - (sigma / r)^6) + k q_i q_j / r.  Exclusions are zeros."""

    charge: Float[Tensor, "P 1"]  # k q_i q_j
    square: Float[Tensor, "P 1"]  # sigma^2
    depth: Float[Tensor, "P 1"]  # 4 eps

    def energy(self, s: Float[Tensor, "P b"]) -> Float[Tensor, " b"]:
        six = (self.square / s).pow(3)
        return (self.depth * six * (six - 1) + self.charge * s.rsqrt()).sum(0)

    def energy_and_slope(
        self, s: Float[Tensor, "P b"]
    ) -> tuple[Float[Tensor, " b"], Float[Tensor, "P b"]]:
        inverse = s.reciprocal()
        six = self.square * inverse
        fall = (six * six).mul_(six).mul_(self.depth)
        strong = six.pow_(3).mul_(fall)
        coulomb = inverse.sqrt().mul_(self.charge)
        energy = strong.sum(0) - fall.sum(0) + coulomb.sum(0)
        slope = fall.mul_(3).sub_(strong, alpha=6).sub_(coulomb, alpha=0.5)
        return energy, slope.mul_(inverse)


@dataclass(frozen=True, eq=False)
class Born:
    """The generalised Born solvent of Onufriev, Bashford and Case (Proteins 55, 383, 2004), with
    the surface term of Schaefer, Bartels and Karplus (J. Mol. Biol. 284, 835, 1998).

    Every atom j takes from atom i the descreening integral H_ij of Hawkins, Cramer and Truhlar
    (Chem. Phys. Lett. 246, 122, 1995) over a sphere of radius s_j:

        psi_i = rho_i / 2 sum_j H_ij,    rho_i = R_i - 0.009 nm,
        1 / B_i = 1 / rho_i - tanh(c_1 psi_i + c_2 psi_i^2 + c_3 psi_i^3) / R_i,
        f_ij^2 = r_ij^2 + B_i B_j exp(-r_ij^2 / (4 B_i B_j)),
        E = -k (1/eps_in - 1/eps_out) (sum_{i<j} q_i q_j / f_ij + sum_i q_i^2 / (2 B_i))
            + g sum_i (R_i + 0.14)^2 (R_i / B_i)^6.
    """

    pairs: Int[Tensor, "2 P"]  # i and j
    owner: Float[Tensor, "n 2P"]  # sums H by atoms: the rows of H_ij first, then those of H_ji
    radius: Float[Tensor, "2 P 1"]  # rho of i, of j
    other: Float[Tensor, "2 P 1"]  # s of j, of i
    rho: Float[Tensor, "n 1"]
    charges: Float[Tensor, "P 1"]  # k (1/eps_in - 1/eps_out) q_i q_j
    selves: Float[Tensor, "n 1"]  # the same of one atom, halved
    polynomial: tuple[float, float, float]
    surface: float  # g, kJ/mol/nm^2

    def energy(self, s: Float[Tensor, "P b"]) -> Float[Tensor, " b"]:
        _, _, born = self._radii(self._descreening(s.sqrt()))
        product = born[self.pairs[0]] * born[self.pairs[1]]
        f = torch.rsqrt(s + product * torch.exp(-s / (4 * product)))
        return self._of_atoms(born).sum(0) - (self.charges * f).sum(0)

    def energy_and_slope(
        self, s: Float[Tensor, "P b"]
    ) -> tuple[Float[Tensor, " b"], Float[Tensor, "P b"]]:
        r = s.sqrt()
        integral, bend = self._descreening_and_slope(r)
        psi, t, born = self._radii(integral)
        b_i, b_j = (born.index_select(0, end) for end in self.pairs)
        product = b_i * b_j
        far = (s / product).div_(4)
        near = far.neg().exp_()
        f = product.mul_(near).add_(s).rsqrt_()
        pairs = self.charges * f
        energy = self._of_atoms(born).sum(0) - pairs.sum(0)
        common = pairs.mul_(f).mul_(f).div_(2)
        shared = far.add_(1).mul_(near).mul_(common)
        by_born = (self.selves / born - 6 * self._surface(born)) / born
        by_born.index_add_(0, self.pairs[0], b_j.mul_(shared))
        by_born.index_add_(0, self.pairs[1], b_i.mul_(shared))
        one, two, three = self.polynomial
        rise = (1 - t * t) * (one + psi * (2 * two + psi * 3 * three))
        by_integral = by_born * born * born * rise * (self.rho / (2 * self.rho + 2 * OFFSET))
        of_i, of_j = (by_integral.index_select(0, end) for end in self.pairs)
        by_r = of_i.mul_(bend[0]).addcmul_(of_j, bend[1])
        return energy, common.addcmul_(common, near, value=-0.25).add_(by_r.div_(r), alpha=0.5)

    def _radii(self, integral: Float[Tensor, "2 P b"]) -> tuple[Tensor, Tensor, Tensor]:
        """psi, the tanh, and the Born radius, (n, b)."""
        psi = self.rho / 2 * (self.owner @ integral.flatten(0, 1))
        one, two, three = self.polynomial
        t = torch.tanh(psi * (one + psi * (two + psi * three)))
        return psi, t, 1 / (1 / self.rho - t / (self.rho + OFFSET))

    def _of_atoms(self, born: Float[Tensor, "n b"]) -> Float[Tensor, "n b"]:
        return self._surface(born) - self.selves / born

    def _surface(self, born: Float[Tensor, "n b"]) -> Float[Tensor, "n b"]:
        radius = self.rho + OFFSET
        return self.surface * (radius + PROBE).square() * (radius / born).pow(6)

    def _descreening(self, r: Float[Tensor, "P b"]) -> Float[Tensor, "2 P b"]:
        """H_ij and H_ji, an integral from L = max(rho, |r - s|) to U = max(rho, r + s):

        1/L - 1/U + (r - s^2/r) (1/U^2 - 1/L^2) / 4 + log(L/U) / (2 r),

        and 2 (1/rho - 1/(s - r)) where the sphere of the other holds that of the atom."""
        radius, other = self.radius, self.other
        inner, outer = torch.maximum(radius, (r - other).abs()), torch.maximum(radius, r + other)
        engulfed = 1 / radius - 1 / torch.maximum(radius, other - r)
        gap = outer.pow(-2) - inner.pow(-2)
        value = 1 / inner - 1 / outer + (r - other * other / r) * gap / 4
        return value + torch.log(inner / outer) / (2 * r) + 2 * engulfed

    def _descreening_and_slope(
        self, r: Float[Tensor, "P b"]
    ) -> tuple[Float[Tensor, "2 P b"], Float[Tensor, "2 P b"]]:
        """And their derivatives by r, from which what L and U owe to r cancels:

        (1 + s^2/r^2) (1/U^2 - 1/L^2) / 4 - log(L/U) / (2 r^2)."""
        radius, other, inverse = self.radius, self.other, r.reciprocal()
        high, low = r + other, (r - other).abs_()
        torch.maximum(radius, high, out=high).reciprocal_()
        torch.maximum(radius, low, out=low)
        log = (low * high).log_().mul_(inverse)
        low.reciprocal_()
        value = (low - high).add_(log, alpha=0.5)
        gap = high.mul_(high).addcmul_(low, low, value=-1)
        engulfed = torch.sub(other, r, out=low)
        torch.maximum(radius, engulfed, out=engulfed).reciprocal_()
        value.sub_(engulfed.sub_(1 / radius), alpha=2)
        ratio = torch.mul(other * other, inverse, out=low)
        slope = ratio * inverse
        value.addcmul_(ratio.neg_().add_(r), gap, value=0.25)
        slope.add_(1).mul_(gap).mul_(0.25)
        return value, slope.sub_(log.mul_(inverse), alpha=0.5)
