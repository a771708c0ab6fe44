"""Where control problems end whose noise is not memoryless: worlds, and what needs no training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.samplers.weights import resample
from tiltbench.targets.interpolant import Ancestral, Stepping
from tiltbench.targets.mixture_flow import MixtureFlow
from tiltbench.targets.process import Additive, Kernel, Process
from tiltbench.targets.target import Tilt, Truth

MEAN, POWER = 1.2, 0.3  # of the Gaussian target of math.md 2


class Silent(Additive):
    """The probability flow with a control and no noise: dX = (v + gain u) dt.

    u costs |u|^2 / 2, as with noise, so a loss whose label and value do not need the noise trains
    it; the chain has no kernels with a density, and its weights mean nothing."""

    def __init__(self, flow: MixtureFlow, gain: float = 1.0) -> None:
        self.flow, self.gain, self.steps = flow, gain, flow.steps

    @property
    def times(self) -> tuple[float, ...]:
        return self.flow.times

    @property
    def spread(self) -> float:
        return self.flow.spread

    def start(self, shape: tuple[int, ...], generator: Generator, dtype: torch.dtype) -> Tensor:
        return self.flow.start(shape, generator, dtype)

    def normal(self, shape: tuple[int, ...], generator: Generator, dtype: torch.dtype) -> Tensor:
        return torch.zeros(shape, device=generator.device, dtype=dtype)

    def base(self, x: Float[Tensor, "*b d"], k: int) -> Kernel:
        dt = self.times[k + 1] - self.times[k]
        return Kernel(x + dt * self.flow.velocity(x, k), self.gain * math.sqrt(dt))

    def backward(self, x: Float[Tensor, "*b d"], k: int) -> Kernel:
        raise NotImplementedError("a flow without noise has no kernel to go back by")


@dataclass(frozen=True)
class Rebased(Tilt):
    """The same reward and truth on another process of the same base law."""

    name = "rebased"
    tilt: Tilt
    base: Process  # type: ignore[misc]

    @property
    def dim(self) -> int:  # type: ignore[override]
        return self.tilt.dim

    def reward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
        return self.tilt.reward(x)

    def truth(self) -> Truth:
        return self.tilt.truth()


@dataclass(frozen=True)
class Bell(Tilt):
    """N(1.2, .3 I) from N(0, I), r = log of their ratio: log Z = 0."""

    name = "bell"
    dim = 2
    stepping: Stepping = Ancestral()
    steps: int = 50

    @property
    def base(self) -> MixtureFlow:  # type: ignore[override]
        return MixtureFlow((1.0,), ((0.0, 0.0),), (1.0,), stepping=self.stepping, steps=self.steps)

    def reward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
        far = (x - MEAN).square().sum(-1) / POWER - x.square().sum(-1)
        return -far / 2 - math.log(POWER)

    def truth(self) -> Truth:
        def sample(n: int, generator: Generator) -> Float[Tensor, "n d"]:
            xi = torch.randn(n, 2, generator=generator, dtype=torch.float64)
            return MEAN + math.sqrt(POWER) * xi

        return Truth("closed form", log_Z=0.0, sample=sample)


class Ends(NamedTuple):
    """A Gaussian terminal law, in each coordinate."""

    mean: float
    variance: float


def remembered(memory: float) -> Ends:
    """Of the optimum on a base with corr(X_0, X_1) = memory (math.md 2)."""
    left = 1 - memory**2
    sharp = 1 / left + 1 / POWER - 1
    return Ends(MEAN / (POWER * sharp), 1 / sharp + (memory / (left * sharp)) ** 2)


def steered(gain: float = 1.0) -> Ends:
    """Of the optimum without noise on a rectified flow, whose map is the identity here: to end at y
    instead of X_0 = x costs (y - x)^2 / 2G, G = gain^2 int dt / (t^2 + (1 - t)^2) = gain^2 pi / 2,
    and the optimum ends at the y of the largest r(y) less that."""
    push = 2 / (math.pi * gain**2)
    stiff = push + 1 / POWER - 1
    return Ends(MEAN / (POWER * stiff), (push / stiff) ** 2)


@lru_cache(maxsize=8)  # the shapes share a base
def siblings(base: Process, starts: int, each: int, device: str) -> Float[Tensor, "each starts d"]:
    """Ends of `each` independent paths of the base from every one of `starts` points X_0."""
    source = Generator(device).manual_seed(4)
    with torch.no_grad():
        x = base.start((starts, 2), source, torch.float32).expand(each, starts, 2)
        for k in range(base.steps):
            mean, std = base.base(x, k)
            x = mean + std * base.normal(tuple(x.shape), source, x.dtype)
        return x


def optimum(
    ends: Float[Tensor, "each starts d"], r: Float[Tensor, "each starts"], source: Generator
) -> Float[Tensor, "starts d"]:
    """One draw a start from the terminal law of the optimal control, up to O(1 / each): X_0 is what
    it was, and X_1 | X_0 is the base's times exp r, normalised for every X_0 apart."""
    rows = torch.cat([resample(r[:, i], 1, source) for i in range(r.shape[1])])
    return ends[rows, torch.arange(r.shape[1])]
