"""A Gaussian mixture whose noised law, denoiser, tilts and draws are closed form (math.md 8)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

Level = float | Tensor  # alpha or beta: a number, or (*b, 1) beside points (*b, d)


class Components(NamedTuple):
    """sum_j weight_j N(mean_j, var_j I); float64 on the CPU, moved to where it is asked for.

    Noised to signal X + noise xi its components are N(signal mean_j, signal^2 var_j + noise^2).
    """

    weight: Float[Tensor, " m"]  # sums to 1
    mean: Float[Tensor, "m d"]
    var: Float[Tensor, " m"]

    def _near(self, x: Tensor, signal: Level, noise: Level) -> tuple[Tensor, Tensor]:
        """(log weight_j N(x; noised component j), variance of it), both (*b, m)."""
        v = _square(signal) * self.var.to(x) + _square(noise)
        far = square_distances(x, self.mean.to(x), signal)
        log_norm = x.shape[-1] / 2 * (2 * math.pi * v).log()
        return self.weight.to(x).log() - far / (2 * v) - log_norm, v

    def log_density(
        self, x: Float[Tensor, "*b d"], signal: Level = 1.0, noise: Level = 0.0
    ) -> Float[Tensor, " *b"]:
        return self._near(x, signal, noise)[0].logsumexp(-1)

    def share(
        self, x: Float[Tensor, "*b d"], signal: Level = 1.0, noise: Level = 0.0
    ) -> Float[Tensor, "*b m"]:
        """Responsibilities P(component j | x)."""
        return torch.softmax(self._near(x, signal, noise)[0], -1)

    def score(
        self, x: Float[Tensor, "*b d"], signal: Level = 1.0, noise: Level = 0.0
    ) -> Float[Tensor, "*b d"]:
        near, v = self._near(x, signal, noise)
        weight = torch.softmax(near, -1) / v
        return signal * (weight @ self.mean.to(x)) - weight.sum(-1, keepdim=True) * x

    def denoise(
        self, x: Float[Tensor, "*b d"], signal: Level, noise: Level
    ) -> Float[Tensor, "*b d"]:
        """E[X | signal X + noise xi = x]."""
        near, v = self._near(x, signal, noise)
        share = torch.softmax(near, -1)
        gain = share * (signal * self.var.to(x) / v)
        pure = share - gain * signal
        return pure @ self.mean.to(x) + gain.sum(-1, keepdim=True) * x

    def left(self, x: Float[Tensor, "*b d"], signal: Level, noise: Level) -> Float[Tensor, " *b"]:
        """tr Cov(X | signal X + noise xi = x)."""
        near, v = self._near(x, signal, noise)
        share = torch.softmax(near, -1)
        gain = signal * self.var.to(x) / v
        mean = self.mean.to(x)
        centre = mean * (1 - signal * gain)[..., None] + gain[..., None] * x[..., None, :]
        middle = (share[..., None] * centre).sum(-2, keepdim=True)
        between = (share * (centre - middle).square().sum(-1)).sum(-1)
        within = (share * (self.var.to(x) * (1 - signal * gain))).sum(-1)
        return between + x.shape[-1] * within

    def posterior(
        self, x: Float[Tensor, "*b d"], signal: Level, noise: Level, generator: Generator
    ) -> Float[Tensor, "*b d"]:
        """Draws of X | signal X + noise xi = x."""
        near, v = self._near(x, signal, noise)
        share = torch.softmax(near, -1)
        flat = share.reshape(-1, share.shape[-1])
        j = torch.multinomial(flat, 1, generator=generator).reshape(x.shape[:-1])
        gain = (signal * self.var.to(x) / v).expand_as(share).gather(-1, j[..., None])
        var, mean = self.var.to(x)[j][..., None], self.mean.to(x)[j]
        xi = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        return mean + gain * (x - signal * mean) + (var * (1 - signal * gain)).sqrt() * xi

    def sample(self, n: int, generator: Generator) -> Float[Tensor, "n d"]:
        """n i.i.d. draws, float64, on the generator's device."""
        device = generator.device
        j = torch.multinomial(self.weight.to(device), n, True, generator=generator)
        shape = (n, self.mean.shape[-1])
        xi = torch.randn(shape, generator=generator, device=device, dtype=torch.float64)
        return self.mean.to(device)[j] + self.var.to(device)[j].sqrt()[:, None] * xi

    def assign(self, x: Float[Tensor, "*b d"]) -> Int[Tensor, " *b"]:
        """The component of the largest responsibility."""
        return self._near(x, 1.0, 0.0)[0].argmax(-1)

    def noised(self, signal: float, noise: float) -> Components:
        """The law of signal X + noise xi."""
        return Components(self.weight, signal * self.mean, signal**2 * self.var + noise**2)

    def tilted_linear(self, slope: Float[Tensor, " d"]) -> tuple[float, Components]:
        """(log Z, p*) of r = slope . x: means mean_j + var_j slope."""
        log_weight = self.weight.log() + self.mean @ slope + self.var * slope.square().sum() / 2
        mean = self.mean + self.var[:, None] * slope
        return _normalised(log_weight, mean, self.var)

    def tilted_quadratic(
        self, y: Float[Tensor, " d"], power: float, strength: float = 1.0
    ) -> tuple[float, Components]:
        """(log Z, p*) of r = -strength |x - y|^2 / (2 power): conjugate update of components."""
        d, width = len(y), power / strength if strength else math.inf
        if math.isinf(width):
            return 0.0, self
        total = self.var + width
        far = (self.mean - y).square().sum(-1)
        log_weight = self.weight.log() - far / (2 * total) + d / 2 * (width / total).log()
        mean = (width * self.mean + self.var[:, None] * y) / total[:, None]
        return _normalised(log_weight, mean, self.var * width / total)

    def reweighted(self, factor: Float[Tensor, " m"]) -> tuple[float, Components]:
        """(log Z, p*) of exp r(x) = sum_j P(j | x) factor_j."""
        return _normalised(self.weight.log() + factor.log(), self.mean, self.var)

    def mean_square(self) -> float:
        """E |X|^2 / d."""
        each = self.mean.square().mean(-1) + self.var
        return float((self.weight * each).sum())


def _normalised(log_weight: Tensor, mean: Tensor, var: Tensor) -> tuple[float, Components]:
    return float(log_weight.logsumexp(0)), Components(torch.softmax(log_weight, 0), mean, var)


def _square(level: Level) -> Level:
    return level * level


def square_distances(
    x: Float[Tensor, "*b d"], mean: Float[Tensor, "m d"], signal: Level = 1.0
) -> Float[Tensor, "*b m"]:
    """|x - signal mean_j|^2 from differences: expanding the square would cancel in float32.

    Summed over whichever of d and m is shorter, so that nothing of shape (*b, m, d) is made."""
    m, d = mean.shape
    if d <= m:
        total = (x[..., :1] - signal * mean[:, 0]).square()
        for i in range(1, d):
            total = total + (x[..., i : i + 1] - signal * mean[:, i]).square()
        return total
    return torch.stack([(x - signal * mean[j]).square().sum(-1) for j in range(m)], -1)
