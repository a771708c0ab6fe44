"""Molecules at a temperature: values and analytic gradients, and the part of space that counts."""

from __future__ import annotations

from abc import abstractmethod
from functools import lru_cache
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tiltbench.targets.densities._analytic import Analytic, blocks
from tiltbench.targets.molecules.bonded import cross, dot
from tiltbench.targets.molecules.coordinates import Cartesian, Coordinates
from tiltbench.targets.molecules.forcefield import ForceField, force_field
from tiltbench.targets.molecules.parameters import Parameters
from tiltbench.targets.target import Groups

GAS = 8.31446261815324e-3  # kJ / mol / K
CACHE = 2**18  # bytes of a number for every pair: the arrays in use then stay in a CPU's cache
LARGEST = 2**26  # the same elsewhere

Four = tuple[int, int, int, int]


class Molecule(Analytic):
    """log rho(x) = -E(x) / (R T): n atoms in space, x their positions in nm, one after the other,
    E in kJ/mol that of a force field (`molecules.forcefield`).

    rho is 0 where two atoms are nearer than 0.01 nm; where one of `centres` (a, b, c, d) has not
    the stated hand, (x_a - x_d) . (x_b - x_d) x (x_c - x_d) > 0; and where one of the torsions
    `trans` is 90 degrees or more from trans.  The cuts are cones, x -> s x moves nothing across
    them: E[x . grad log rho] = -rank holds.  log rho is -inf, with the gradient 0, there and where
    the energy overflows the dtype; elsewhere both are finite.  NaN gives NaN.

    With a `chart` that is not Cartesian the law is that of other coordinates z of the same
    conformations, with the same Z; then x stands for positions, and z for what is sampled.
    """

    temperature: float  # K
    centres: ClassVar[tuple[Four, ...]] = ()
    trans: ClassVar[tuple[Four, ...]] = ()
    same: ClassVar[Groups] = ()  # atoms that the force field does not tell apart

    @property
    @abstractmethod
    def parameters(self) -> Parameters:
        """Of the energy; the same object at every call."""

    @property
    def chart(self) -> Coordinates:
        """The coordinates in which the law is sampled."""
        return Cartesian(self.parameters.atoms)

    @property
    def dim(self) -> int:  # type: ignore[override]
        return self.chart.dim

    @property
    def particles(self) -> tuple[int, int] | None:
        return self.chart.particles

    @property
    def alike(self) -> Groups:
        return self.same if self.particles else ()

    @property
    def point(self) -> Float[Tensor, " d"]:
        """The conformation that comes with the parameters."""
        return self.project(self.chart.from_cartesian(self.parameters.positions.flatten()))

    def log_rho(self, z: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
        return self.chart.log_rho(super().log_rho, self._real(z))

    def log_rho_and_grad(
        self, z: Float[Tensor, "*b d"]
    ) -> tuple[Float[Tensor, " *b"], Float[Tensor, "*b d"]]:
        return self.chart.log_rho_and_grad(super().log_rho_and_grad, self._real(z))

    def virial(
        self, x: Float[Tensor, "b d"], slope: Float[Tensor, "b d"]
    ) -> tuple[Float[Tensor, " b"], int]:
        return self.chart.virial(x, slope)

    def energy(self, x: Float[Tensor, "*b D"]) -> Float[Tensor, " *b"]:
        """E in kJ/mol of positions, also where rho is cut."""
        flat = self._real(x).reshape(-1, x.shape[-1])
        parts = [self._field(x).energy(_inside_out(flat[k])) for k in blocks(flat, self.block(x))]
        return torch.cat(parts).reshape(x.shape[:-1])

    def fill(
        self,
        x: Float[Tensor, "b D"],
        value: Float[Tensor, " b"],
        slope: Float[Tensor, "b D"] | None,
    ) -> None:
        y, field = _inside_out(x), self._field(x)
        if slope is None:
            energy = field.energy(y)
        else:
            energy, gradient = field.energy_and_gradient(y)
        alive = self.allowed(y) & (energy < torch.inf)
        torch.mul(energy, -1 / (GAS * self.temperature), out=value)
        lost = x.isnan().any(-1)
        value.masked_fill_(~alive, -torch.inf).masked_fill_(lost, torch.nan)
        if slope is not None:
            torch.mul(
                gradient.permute(2, 0, 1),
                -1 / (GAS * self.temperature),
                out=slope.view(len(x), len(y), 3),
            )
            slope.masked_fill_(~alive[:, None], 0.0).masked_fill_(lost[:, None], torch.nan)

    def bent(
        self, x: Float[Tensor, "*b D"], v: Float[Tensor, "*b D"], alive: Tensor
    ) -> Float[Tensor, "*b D"]:
        keep = alive[..., None]
        # a dead conformation could turn to NaN by inf * 0: a helix in its place
        y = torch.where(keep, x, _helix(self.parameters.atoms, x.device, x.dtype))

        def slope(y: Tensor) -> Tensor:
            return torch.func.grad(lambda z: self.energy(z).sum())(y)

        product = torch.func.vjp(slope, y)[1]
        return torch.where(keep, product(v)[0] / (-GAS * self.temperature), 0.0)

    def block(self, x: Tensor) -> int:
        pair = len(self.parameters.pair_values) * x.element_size()
        return max(1, (CACHE if x.device.type == "cpu" else LARGEST) // pair)

    def allowed(self, y: Float[Tensor, "n 3 b"]) -> Bool[Tensor, " b"]:
        """Whether every centre has its hand and every torsion of `trans` is within 90 degrees of
        it: cos < 0."""
        good = torch.ones(y.shape[2], dtype=torch.bool, device=y.device)
        if self.centres:
            a, b, c, d = (y[list(atoms)] for atoms in zip(*self.centres, strict=True))
            good = good & (dot(a - d, cross(b - d, c - d)) > 0).all(0)
        if self.trans:
            i, j, k, m = (y[list(atoms)] for atoms in zip(*self.trans, strict=True))
            middle = j - k
            good = good & (dot(cross(i - j, middle), cross(m - k, middle)) < 0).all(0)
        return good

    def _real(self, x: Tensor) -> Tensor:
        """x itself.  Raises TypeError where its numbers are too coarse for r^-12, or not real."""
        if x.dtype not in (torch.float32, torch.float64):
            raise TypeError(
                f"{self.name} takes points of float32 or float64, not {x.dtype}: convert them with "
                "x.double()"
            )
        return x

    def _field(self, x: Tensor) -> ForceField:
        return force_field(self.parameters, x.device, x.dtype)


def _inside_out(x: Float[Tensor, "b D"]) -> Float[Tensor, "n 3 b"]:
    return x.T.reshape(x.shape[1] // 3, 3, -1).contiguous()


@lru_cache(maxsize=16)
def _helix(atoms: int, device: torch.device, dtype: torch.dtype) -> Float[Tensor, " D"]:
    with torch.inference_mode(False):
        t = torch.arange(atoms, device=device, dtype=dtype)
        return torch.stack([t.cos(), t.sin(), t / 2], 1).flatten()
