"""A Gaussian mixture whose noised law, denoiser, tilts and draws are closed form (math.md 8)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

Level = float | Tensor  # alpha or beta: a number, or (*b, 1) beside points (*b, d)


@dataclass(frozen=True, eq=False)
class Components:
    """sum_j weight_j N(mean_j, var_j I); float64 on the CPU, moved to where it is asked for.

    Noised to signal X + noise xi its components are N(signal mean_j, signal^2 var_j + noise^2).
    """

    weight: Float[Tensor, " m"]  # sums to 1
    mean: Float[Tensor, "m d"]
    var: Float[Tensor, " m"]
    _moved: dict[tuple[torch.dtype, torch.device], Components] = field(
        default_factory=dict, init=False, repr=False
    )

    def on(self, like: Tensor) -> Components:
        """The same on the device and in the dtype of `like`, moved once."""
        place = (like.dtype, like.device)
        if place not in self._moved:
            with torch.inference_mode(False), torch.no_grad():
                moved = Components(self.weight.to(like), self.mean.to(like), self.var.to(like))
            self._moved[place] = moved
        return self._moved[place]

    def _near(self, x: Tensor, signal: Level, noise: Level) -> tuple[Tensor, Tensor]:
        """(log weight_j N(x; noised component j), variance of it), both (*b, m)."""
        law = self.on(x)
        v = _square(signal) * law.var + _square(noise)
        far = square_distances(x, law.mean, signal)
        log_norm = x.shape[-1] / 2 * (2 * math.pi * v).log()
        return law.weight.log() - far / (2 * v) - log_norm, v

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
        return signal * (weight @ self.on(x).mean) - weight.sum(-1, keepdim=True) * x

    def denoise(
        self, x: Float[Tensor, "*b d"], signal: Level, noise: Level
    ) -> Float[Tensor, "*b d"]:
        """E[X | signal X + noise xi = x]."""
        near, v = self._near(x, signal, noise)
        share, law = torch.softmax(near, -1), self.on(x)
        gain = share * (signal * law.var / v)
        pure = share - gain * signal
        return pure @ law.mean + gain.sum(-1, keepdim=True) * x

    def left(self, x: Float[Tensor, "*b d"], signal: Level, noise: Level) -> Float[Tensor, " *b"]:
        """tr Cov(X | signal X + noise xi = x)."""
        near, v = self._near(x, signal, noise)
        share, law = torch.softmax(near, -1), self.on(x)
        gain = signal * law.var / v
        centre = law.mean * (1 - signal * gain)[..., None] + gain[..., None] * x[..., None, :]
        middle = (share[..., None] * centre).sum(-2, keepdim=True)
        between = (share * (centre - middle).square().sum(-1)).sum(-1)
        within = (share * (law.var * (1 - signal * gain))).sum(-1)
        return between + x.shape[-1] * within

    def posterior(
        self, x: Float[Tensor, "*b d"], signal: Level, noise: Level, generator: Generator
    ) -> Float[Tensor, "*b d"]:
        """Draws of X | signal X + noise xi = x."""
        near, v = self._near(x, signal, noise)
        share, law = torch.softmax(near, -1), self.on(x)
        # torch.multinomial's own way for one draw, without the checks that stop the host
        race = torch.empty_like(share).exponential_(generator=generator)
        j = (share / race).argmax(-1)
        gain = (signal * law.var / v).expand_as(share).gather(-1, j[..., None])
        var, mean = law.var[j][..., None], law.mean[j]
        xi = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        return mean + gain * (x - signal * mean) + (var * (1 - signal * gain)).sqrt() * xi

    def sample(self, n: int, generator: Generator) -> Float[Tensor, "n d"]:
        """n i.i.d. draws, float64, on the generator's device."""
        like = torch.empty(0, device=generator.device, dtype=torch.float64)
        law = self.on(like)
        j = torch.multinomial(law.weight, n, True, generator=generator)
        shape = (n, self.mean.shape[-1])
        xi = torch.randn(shape, generator=generator, device=like.device, dtype=like.dtype)
        return law.mean[j] + law.var[j].sqrt()[:, None] * xi

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
    x: Float[Tensor, "*b d"], mean: Float[Tensor, "*k m d"], signal: Level = 1.0
) -> Float[Tensor, "*b m"]:
    """|x - signal mean_j|^2 from differences: expanding the square would cancel in float32.

    Coordinate by coordinate or component by component, whichever are fewer, unless that would take
    many calls for little: a tensor (*b, m, d) is made only where m d is at most WIDE."""
    m, d = mean.shape[-2:]
    if min(d, m) > FEW and d * m <= WIDE:
        places = (signal[..., None] if isinstance(signal, Tensor) else signal) * mean
        return (x[..., None, :] - places).square().sum(-1)
    plain = isinstance(signal, float) and signal == 1.0
    rows = [row if plain else signal * row for row in mean.unbind(-1 if d <= m else -2)]
    if d > m:
        return torch.stack([(x - row).square().sum(-1) for row in rows], -1)
    total = None
    for u, v in zip(x[..., None, :].unbind(-1), rows, strict=True):
        z = u - v
        total = z.square() if total is None else torch.addcmul(total, z, z)
    assert total is not None
    return total


FEW, WIDE = 3, 256
