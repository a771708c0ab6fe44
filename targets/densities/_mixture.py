"""Mixtures of Gaussians of one common variance: density, draws, noised score, cells."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from tiltbench.targets.bases.components import square_distances
from tiltbench.targets.log_sum import log_sum_exp
from tiltbench.targets.target import Modes, Observable, Truth

CACHE = 2**17  # differences at once on the CPU, which stay in its cache; found by timing
LARGEST = 2**24  # differences at once elsewhere, where every part is three launches


@dataclass(frozen=True, eq=False)
class Mixture:
    """sum_j weight_j N(mean_j, var I); float64 on the CPU, moved to where it is asked for.

    Whoever asks often keeps the mixture: what was moved is kept with it."""

    weight: Float[Tensor, " m"]
    mean: Float[Tensor, "m d"]
    var: float

    def log_density(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
        """Normalised, in the dtype and on the device of x."""
        log_weight, mean = self._placed(x)
        squares = differences(x, mean).square().sum(0) if self._flat else _far(x, mean)
        value, *_ = log_sum_exp(_beside(log_weight, x) - squares / (2 * self.var))
        return value - self._norm

    def log_density_and_grad(
        self, x: Float[Tensor, "*b d"]
    ) -> tuple[Float[Tensor, " *b"], Float[Tensor, "*b d"]]:
        """The same and its gradient, without a graph.

        In few dimensions the gradient comes from differences x - mean_j, as the value does.  In
        many it is (the mean of the means under the responsibilities - x) / var: where it is one
        mean's alone that is a difference too, and between means it is as exact as x."""
        x = x.detach()
        log_weight, mean = self._placed(x)
        off = differences(x, mean) if self._flat else None
        squares = _far(x, mean) if off is None else off.square().sum(0)
        value, e, total = log_sum_exp(_beside(log_weight, x) - squares / (2 * self.var))
        if off is not None:
            slope = torch.stack(((e * off).sum(1) / (total * -self.var)).unbind(), -1)
        else:
            slope = ((e / total).movedim(0, -1) @ mean - x) / self.var
        return value - self._norm, slope

    @property
    def _flat(self) -> bool:
        """Whether there are no more dimensions than components."""
        m, d = self.mean.shape
        return d <= m

    @property
    def _norm(self) -> float:
        return self.mean.shape[-1] / 2 * math.log(2 * math.pi * self.var)

    def _placed(self, x: Tensor) -> tuple[Float[Tensor, " m"], Float[Tensor, "m d"]]:
        """(log weights, means)."""
        return _placed(self, x.device, x.dtype)

    def noised_score(
        self, x: Float[Tensor, "*b d"], signal: Tensor | float, noise: Tensor | float
    ) -> Float[Tensor, "*b d"]:
        """grad log of the law of signal X + noise xi: the mixture of N(signal mean_j, v I) with
        v = signal^2 var + noise^2 (math.md 8).  signal, noise broadcast to x.shape[:-1]."""
        signal = torch.as_tensor(signal, dtype=x.dtype, device=x.device)[..., None]
        noise = torch.as_tensor(noise, dtype=x.dtype, device=x.device)[..., None]
        log_weight, mean = self._placed(x)
        v = signal.square() * self.var + noise.square()
        share = torch.softmax(log_weight - square_distances(x, mean, signal) / (2 * v), -1)
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
        log_weight, mean = self._placed(x)
        return (log_weight - square_distances(x, mean) / (2 * self.var)).argmax(-1)

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


@lru_cache(maxsize=64)
def _placed(mixture: Mixture, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(log weights, means), copied to a device once."""
    with torch.inference_mode(False):  # or whoever records a graph later could not use it
        weight, mean = (t.to(device=device, dtype=dtype) for t in (mixture.weight, mixture.mean))
        return weight.log(), mean.clone(memory_format=torch.contiguous_format)


def differences(x: Float[Tensor, "*b d"], mean: Float[Tensor, "m d"]) -> Float[Tensor, "d m *b"]:
    """x_i - mean_ji, the batch innermost: sums over components then run on long rows."""
    here = x.movedim(-1, 0).contiguous()
    return here[:, None] - mean.T.reshape(*mean.T.shape, *[1] * (x.ndim - 1))


def _far(x: Float[Tensor, "*b d"], mean: Float[Tensor, "m d"]) -> Float[Tensor, m * b]:
    """|x - mean_j|^2 from differences, some components at a time."""
    room = CACHE if x.device.type == "cpu" else LARGEST
    rows = max(room // max(x.numel(), 1), 1)
    parts = mean.reshape(len(mean), *[1] * (x.ndim - 1), -1).split(rows)
    return torch.cat([(x - part).square().sum(-1) for part in parts])


def _beside(log_weight: Float[Tensor, " m"], x: Tensor) -> Tensor:
    """(m, 1, ..., 1) beside points x (*b, d)."""
    return log_weight.reshape(-1, *[1] * (x.ndim - 1))


def _power(i: int, order: int, mean: float, square: float) -> Observable:
    return Observable(lambda x: x[:, i] ** order, mean, math.sqrt(square - mean**2))


def _share_of_first(mixture: Mixture, mass: float) -> Observable:
    def inside(x: Tensor) -> Tensor:
        return (mixture.assign(x) == 0).to(x.dtype)

    return Observable(inside, mass, math.sqrt(mass * (1 - mass)))
