"""What the numbers of a conformation mean: positions, or any other map to them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

Value = Callable[[Tensor], Tensor]  # (*b, 3 n) -> (*b)
Both = Callable[[Tensor], tuple[Tensor, Tensor]]  # (*b, 3 n) -> (*b) and (*b, 3 n)


class Coordinates(ABC):
    """Of n atoms in space: a map from z to positions x, and densities of x as those of z."""

    dim: int  # of z
    particles: tuple[int, int] | None = None  # (n, 3) where z is the positions of the atoms

    @abstractmethod
    def to_cartesian(self, z: Float[Tensor, "*b d"]) -> Float[Tensor, "*b D"]:
        """Positions in nm, one atom after the other; differentiable."""

    @abstractmethod
    def from_cartesian(self, x: Float[Tensor, "*b D"]) -> Float[Tensor, "*b d"]:
        """The inverse, up to what leaves the law of x as it is."""

    @abstractmethod
    def log_rho(self, of_positions: Value, z: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
        """The log density of z where that of x is given; both have one normalising constant."""

    @abstractmethod
    def log_rho_and_grad(
        self, of_positions: Both, z: Float[Tensor, "*b d"]
    ) -> tuple[Float[Tensor, " *b"], Float[Tensor, "*b d"]]:
        """The same with its gradient, from that of x; neither with a graph."""

    @abstractmethod
    def virial(
        self, z: Float[Tensor, "b d"], slope: Float[Tensor, "b d"]
    ) -> tuple[Float[Tensor, " b"], int]:
        """div v + v . grad log rho - k of a field v(z) that crosses no cut of the support, and k:
        the mean is -k."""


@dataclass(frozen=True)
class Cartesian(Coordinates):
    """z = x."""

    atoms: int

    @property
    def dim(self) -> int:  # type: ignore[override]
        return 3 * self.atoms

    @property
    def particles(self) -> tuple[int, int]:  # type: ignore[override]
        return (self.atoms, 3)

    def to_cartesian(self, z: Float[Tensor, "*b D"]) -> Float[Tensor, "*b D"]:
        return z

    def from_cartesian(self, x: Float[Tensor, "*b D"]) -> Float[Tensor, "*b D"]:
        return x

    def log_rho(self, of_positions: Value, z: Float[Tensor, "*b D"]) -> Float[Tensor, " *b"]:
        return of_positions(z)

    def log_rho_and_grad(
        self, of_positions: Both, z: Float[Tensor, "*b D"]
    ) -> tuple[Float[Tensor, " *b"], Float[Tensor, "*b D"]]:
        return of_positions(z)

    def virial(
        self, z: Float[Tensor, "b D"], slope: Float[Tensor, "b D"]
    ) -> tuple[Float[Tensor, " b"], int]:
        """v = z less its centre of mass."""
        return (z * slope).sum(-1), 3 * self.atoms - 3
