"""The phi^4 field on a two-dimensional torus."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.targets.densities._neighbours import neighbours
from tiltbench.targets.densities._transfer import bethe_rms, refuse_unbounded
from tiltbench.targets.reference import Basins, Referenced, Statistic


@dataclass(frozen=True)
class Phi4(Referenced):
    """log rho = -sum_x [sum_mu (phi_(x+mu) - phi_x)^2 / 2 + m2 phi_x^2 / 2 + lam phi_x^4].

    mu is either axis of the side x side torus: each bond counts once (side 2 has two bonds between
    neighbours).  The default has two phases, phi and -phi, with a barrier that plain HMC crosses
    seldom but does cross: at larger m2 they overlap, at smaller they trap.  A sampler that loses
    one is off by log 2.
    """

    name = "phi4"
    side: int = 8
    m2: float = -2.4
    lam: float = 0.5
    test_value = -15.662105087109468

    def __post_init__(self) -> None:
        refuse_unbounded(self.m2, self.lam)
        if self.side < 2:
            raise ValueError(f"side is {self.side}; it must be at least 2")

    @property
    def dim(self) -> int:  # type: ignore[override]
        return self.side**2

    @property
    def lattice(self) -> tuple[int, ...]:
        return (self.side, self.side)

    @property
    def scale(self) -> float:  # type: ignore[override]
        """By the tree of four neighbours: within 5 % where it was checked."""
        return float(f"{bethe_rms(4, self.m2, self.lam):.2g}")

    def log_rho(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
        return self._from(x, neighbours(x, self.lattice), self.lam * x.square())

    def log_rho_and_grad(
        self, x: Float[Tensor, "*b d"]
    ) -> tuple[Float[Tensor, " *b"], Float[Tensor, "*b d"]]:
        x = x.detach()
        beside, quartic = neighbours(x, self.lattice), self.lam * x.square()
        grad = beside - x * (4 + self.m2 + 4 * quartic)
        return self._from(x, beside, quartic), grad

    def _from(self, x: Tensor, beside: Tensor, quartic: Tensor) -> Tensor:
        """log rho from the sums over neighbours and lam x^2."""
        return (x * (beside / 2 - x * (2 + self.m2 / 2 + quartic))).sum(-1)

    def statistics(self) -> Mapping[str, Statistic]:
        return {
            "action": lambda x: -self.log_rho(x),
            "magnetisation": lambda x: x.mean(-1).abs(),
            "susceptibility": lambda x: x.mean(-1).square(),
            "square": lambda x: x.square().mean(-1),
            "opposite": self._far,
        }

    def basins(self) -> Basins:
        """The sign of the mean; phi -> -phi exchanges the two."""
        return Basins(2, lambda x: (x.mean(-1) > 0).long(), (0.5, 0.5))

    def moved(self, x: Float[Tensor, "n d"], generator: Generator) -> Float[Tensor, "n d"]:
        """Each row under its own translation, reflections, exchange of the axes, and sign."""
        n, side, device = len(x), self.side, x.device

        def below(high: int, *shape: int) -> Tensor:
            return torch.randint(high, shape, generator=generator, device=device)

        across = (2 * below(2, 2, n, 1) - 1) * torch.arange(side, device=device)
        rows, columns = (across + below(side, 2, n, 1)) % side
        index = torch.arange(n, device=device)[:, None, None]
        phi = self._square(x)[index, rows[:, :, None], columns[:, None, :]]
        phi = torch.where(below(2, n, 1, 1) > 0, phi, phi.mT)
        return (phi * (2 * below(2, n, 1, 1) - 1)).flatten(1)

    def _square(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.side, self.side))

    def _far(self, x: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
        """phi_x phi_y averaged over the pairs side // 2 apart in a row or column."""
        phi, half = self._square(x), self.side // 2
        return (phi * (phi.roll(half, -1) + phi.roll(half, -2))).mean((-2, -1)) / 2
