"""A Gaussian reference where a target lives: without a centre of mass, or on a lattice."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from tiltbench.targets.bases.linear import Linear
from tiltbench.targets.target import Groups, Target


@dataclass(frozen=True)
class Confined(Linear):
    """The process `free` with its noise and its start projected onto the subspace of `target`,
    whose lattice, or groups of like particles, it carries.

    The projection of an isotropic Gaussian process is an isotropic one on the subspace, with the
    same gains and variances: every formula holds with `target.rank` for the dimension."""

    free: Linear
    target: Target

    @property
    def removed(self) -> int:
        return self.target.dim - self.target.rank

    @property
    def lattice(self) -> tuple[int, ...] | None:
        return self.target.lattice

    @property
    def alike(self) -> Groups | None:
        return self.target.alike if self.target.particles else None

    @property
    def chiral(self) -> bool:
        return self.target.chiral

    def project(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        return self.target.project(x)

    @property
    def steps(self) -> int:  # type: ignore[override]
        return self.free.steps

    @property
    def times(self) -> tuple[float, ...]:
        return self.free.times

    @property
    def start_var(self) -> float:
        return self.free.start_var

    def between(self, s: float, t: float) -> tuple[float, float]:
        return self.free.between(s, t)

    def sigma(self, t: float) -> float:
        return self.free.sigma(t)

    def widened(self, factor: float) -> Confined:
        return Confined(self.free.widened(factor), self.target)
