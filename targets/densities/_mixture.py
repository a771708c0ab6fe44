"""Mixtures of Gaussians of one common variance: density, draws, noised score, cells."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from tiltbench.targets.bases.components import square_distances
from tiltbench.targets.target import Modes, Observable, Truth


class Mixture(NamedTuple):
    """sum_j weight_j N(mean_j, var I); float64 on the CPU, moved to where it is asked for."""

    weight: Float[Tensor, " m"]
    mean: Float[Tensor, "m d"]
    var: float

    def log_density(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
        """Normalised, in the dtype and on the device of x."""
        log_weight = self.weight.to(x).log()
        near = log_weight - square_distances(x, self.mean.to(x)) / (2 * self.var)
        return near.logsumexp(-1) - x.shape[-1] / 2 * math.log(2 * math.pi * self.var)

    def noised_score(
        self, x: Float[Tensor, "*b d"], signal: Tensor | float, noise: Tensor | float
    ) -> Float[Tensor, "*b d"]:
        """grad log of the law of signal X + noise xi: the mixture of N(signal mean_j, v I) with
        v = signal^2 var + noise^2 (math.md 8).  signal, noise broadcast to x.shape[:-1]."""
        signal = torch.as_tensor(signal, dtype=x.dtype, device=x.device)[..., None]
        noise = torch.as_tensor(noise, dtype=x.dtype, device=x.device)[..., None]
        mean, v = self.mean.to(x), signal.square() * self.var + noise.square()
        square = square_distances(x, mean, signal)
        share = torch.softmax(self.weight.to(x).log() - square / (2 * v), -1)
        return (signal * (share @ mean) - x) / v

    def sample(self, n: int, generator: Generator) -> Float[Tensor, "n d"]:
        """n i.i.d. draws, float64, on the generator's device."""
        device = generator.device
        chosen = torch.multinomial(self.weight.to(device), n, True, generator=generator)
        shape = (n, self.mean.shape[-1])
        xi = torch.randn(shape, generator=generator, device=device, dtype=torch.float64)
        return self.mean.to(device)[chosen] + math.sqrt(self.var) * xi

    def assign(self, x: Float[Tensor, "*b d"]) -> Int[Tensor, " *b"]:
        """The component of the largest responsibility at each point."""
        square = square_distances(x, self.mean.to(x))
        return (self.weight.to(x).log() - square / (2 * self.var)).argmax(-1)

    def moment(self, i: int, order: int) -> float:
        """E X_i^order, order 1, 2 or 4."""
        m, v = self.mean[:, i], self.var
        of_component = {1: m, 2: m**2 + v, 4: m**4 + 6 * m**2 * v + 3 * v**2}[order]
        return float((self.weight * of_component).sum())

    def truth(self, cells: Float[Tensor, " m"], source: str = "closed form") -> Truth:
        """The truth of the normalised mixture; `cells` are the masses of the cells of `assign`,
        which are not the weights where components overlap."""
        observables = {"first_mode": _share_of_first(self, float(cells[0]))}
        for i in range(min(self.mean.shape[-1], 2)):
            observables[f"mean_{i}"] = _power(i, 1, self.moment(i, 1), self.moment(i, 2))
            observables[f"square_{i}"] = _power(i, 2, self.moment(i, 2), self.moment(i, 4))
        return Truth(
            source,
            log_Z=0.0,
            sample=self.sample,
            modes=Modes(cells, self.assign),
            observables=observables,
            noised_score=self.noised_score,
        )


def _power(i: int, order: int, mean: float, square: float) -> Observable:
    return Observable(lambda x: x[:, i] ** order, mean, math.sqrt(square - mean**2))


def _share_of_first(mixture: Mixture, mass: float) -> Observable:
    def inside(x: Tensor) -> Tensor:
        return (mixture.assign(x) == 0).to(x.dtype)

    return Observable(inside, mass, math.sqrt(mass * (1 - mass)))
