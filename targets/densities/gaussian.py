"""One isotropic Gaussian: everything about it is closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.targets.target import Density, Observable, Truth


@dataclass(frozen=True)
class Gaussian(Density):
    """rho(x) = exp(-|x - mean|^2 / (2 std^2)) on R^dim, `mean` the same in every coordinate.

    Not normalised: log Z = dim log(std sqrt(2 pi))."""

    name = "gaussian"
    dim: int = 2
    mean: float = 1.0
    std: float = 0.5
    test_value = -4.5792694815206

    def __post_init__(self) -> None:
        if self.dim < 1 or not self.std > 0:
            raise ValueError(f"dim is {self.dim} and std {self.std}; both must be positive")

    @property
    def scale(self) -> float:  # type: ignore[override]
        return float(f"{math.hypot(self.mean, self.std):.2g}")

    def log_rho(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
        return (x - self.mean).square().sum(-1) / (-2 * self.std**2)

    def log_rho_and_grad(
        self, x: Float[Tensor, "*b d"]
    ) -> tuple[Float[Tensor, " *b"], Float[Tensor, "*b d"]]:
        off = x.detach() - self.mean
        power = -(self.std**2)
        return off.square().sum(-1) / (2 * power), off / power

    def truth(self) -> Truth:
        square = self.mean**2 + self.std**2
        spread = math.sqrt(2 * self.std**4 + 4 * self.mean**2 * self.std**2)
        return Truth(
            "closed form",
            log_Z=self.dim * math.log(self.std * math.sqrt(2 * math.pi)),
            sample=self._sample,
            observables={
                "mean_0": Observable(lambda x: x[:, 0], self.mean, self.std),
                "square_0": Observable(lambda x: x[:, 0] ** 2, square, spread),
                "square": Observable(
                    lambda x: x.square().mean(-1), square, spread / math.sqrt(self.dim)
                ),
            },
            noised_score=self._noised_score,
        )

    def _sample(self, n: int, generator: Generator) -> Float[Tensor, "n d"]:
        shape = (n, self.dim)
        xi = torch.randn(shape, generator=generator, device=generator.device, dtype=torch.float64)
        return self.mean + self.std * xi

    def _noised_score(
        self, x: Float[Tensor, "*b d"], signal: Tensor | float, noise: Tensor | float
    ) -> Float[Tensor, "*b d"]:
        """signal X + noise xi ~ N(signal mean, (signal^2 std^2 + noise^2) I)."""
        signal = torch.as_tensor(signal, dtype=x.dtype, device=x.device)[..., None]
        noise = torch.as_tensor(noise, dtype=x.dtype, device=x.device)[..., None]
        return (signal * self.mean - x) / (signal.square() * self.std**2 + noise.square())
