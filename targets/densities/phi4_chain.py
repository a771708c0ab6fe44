"""The phi^4 field on a ring: a strongly coupled density whose everything is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.targets.densities._transfer import heat_bath, potential, refuse_unbounded, ring
from tiltbench.targets.target import Density, Modes, Observable, Truth


@dataclass(frozen=True)
class Phi4Chain(Density):
    """log rho = -sum_x [(phi_(x+1) - phi_x)^2 / 2 + m2 phi_x^2 / 2 + lam phi_x^4] on a ring.

    Side 2 has two bonds between its two sites.  The default is a double well at every site, the
    wells at +-1 and 1/2 deep: the correlation length is 1.5 sites, and there is no phase."""

    name = "phi4_chain"
    side: int = 32
    m2: float = -2.0
    lam: float = 0.5
    test_value = 3.237793491400393

    def __post_init__(self) -> None:
        refuse_unbounded(self.m2, self.lam)
        if self.side < 2:
            raise ValueError(f"side is {self.side}; it must be at least 2")

    @property
    def dim(self) -> int:  # type: ignore[override]
        return self.side

    @property
    def lattice(self) -> tuple[int, ...]:
        return (self.side,)

    @property
    def scale(self) -> float:  # type: ignore[override]
        return float(f"{math.sqrt(ring(self.side, self.m2, self.lam).moment(0, 0)):.2g}")

    def log_rho(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
        step = x.roll(-1, -1) - x
        return -(step.square() / 2 + potential(x, self.m2, self.lam)).sum(-1)

    def log_rho_and_grad(
        self, x: Float[Tensor, "*b d"]
    ) -> tuple[Float[Tensor, " *b"], Float[Tensor, "*b d"]]:
        x = x.detach()
        square, step = x.square(), x.roll(-1, -1) - x
        value = (step.square() / 2 + square * (self.m2 / 2 + self.lam * square)).sum(-1)
        return -value, step - step.roll(1, -1) - x * (self.m2 + 4 * self.lam * square)

    def truth(self) -> Truth:
        """Exact but for rounding.  Draws: every other site on the grid of the transfer operator,
        then each site once given its neighbours, continuous and by rejection.  Sums over the grid
        equal integrals to 1e-12, so that fresh sites have their continuous law although their
        neighbours did not, and once all are fresh the draw is one of p*."""
        return Truth(
            "transfer operator, 1e-10",
            log_Z=ring(self.side, self.m2, self.lam).log_Z,
            sample=self._sample,
            modes=Modes(torch.tensor([0.5, 0.5], dtype=torch.float64), _sign_of_mean),
            observables=_observables(self),
        )

    def _sample(self, n: int, generator: Generator) -> Float[Tensor, "n d"]:
        side = self.side
        coarse = ring(side, self.m2, self.lam).sample(n, generator)
        x = coarse.new_zeros(n, side)
        x[:, 0::2] = coarse
        # sets without neighbours among them; on an odd ring the last site has the first beside it
        even = torch.arange(0, side - side % 2, 2)
        for sites in (torch.arange(1, side, 2), even, torch.arange(side - side % 2, side)):
            sites = sites.to(x.device)
            pull = x[:, (sites - 1) % side] + x[:, (sites + 1) % side]
            x[:, sites] = heat_bath(pull, 2, self.m2, self.lam, generator)
        return x


def _product(apart: int) -> Callable[[Tensor], Tensor]:
    return lambda x: (x * x.roll(-apart, -1)).mean(-1)


def _sign_of_mean(x: Tensor) -> Tensor:
    return (x.mean(-1) > 0).long()


@lru_cache(maxsize=8)
def _observables(target: Phi4Chain) -> dict[str, Observable]:
    """Exact means and sds: of phi_x phi_(x+k) averaged over x, at k = 0, 1, side // 2, and of the
    mean's modulus and square."""
    side = target.side
    law = ring(side, target.m2, target.lam)

    def pair(k: int) -> Observable:
        mean = law.moment(0, k)
        square = sum(law.moment(0, k, i, i + k) for i in range(side)) / side
        return Observable(_product(k), mean, math.sqrt(square - mean**2))

    second = sum(law.moment(0, k) for k in range(side)) / side
    first = law.mean_modulus()
    return {
        "square": pair(0),
        "neighbour": pair(1),
        "opposite": pair(side // 2),
        "magnetisation": Observable(
            lambda x: x.mean(-1).abs(), first, math.sqrt(second - first**2)
        ),
    }
