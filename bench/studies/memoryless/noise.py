"""Where control problems end whose noise is not memoryless: worlds, and what needs no training."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.samplers.at_once import at_once
from tiltbench.samplers.networks.adapter import Adapter
from tiltbench.samplers.networks.model import Model
from tiltbench.samplers.recipes.borrowed import Borrowed
from tiltbench.samplers.weights import resample
from tiltbench.targets.bases.interpolant import Ancestral, Constant, Interpolant, Mix, Stepping
from tiltbench.targets.bases.mixture_flow import MixtureFlow
from tiltbench.targets.bases.process import Additive, Kernel, Process
from tiltbench.targets.bases.schedules import Schedule
from tiltbench.targets.target import Tilt, Truth

MEAN, POWER = 1.2, 0.3  # of the Gaussian target of math.md 2
AT_ONCE = 4_096  # points shown to a network `at_once`: more is slower on a CPU


@dataclass(frozen=True)
class Flowing(Stepping):
    """The probability flow by Euler's method: a step of v + gain u.  `std` is what multiplies u
    sqrt(dt), not the size of a noise, and `lift` makes an Adapter's u (v_theta - v_base) / gain."""

    name: ClassVar[str] = "Flowing"
    gain: float = 1.0

    def check(self, schedule: Schedule) -> None:
        """Any schedule will do."""

    def mix(self, base: Interpolant, k: int) -> Mix:
        return Mix(1.0, velocity=base.times[k + 1] - base.times[k])

    def std(self, base: Interpolant, k: int) -> float:
        return self.gain * math.sqrt(base.times[k + 1] - base.times[k])

    def lift(self, base: Interpolant, k: int) -> float:
        alpha_rate, power_rate = base.rates[k]
        ratio = base.signals[k] / base.noises[k]
        return (alpha_rate - ratio * power_rate / (2 * base.noises[k])) / self.gain

    def reversal(self, base: Interpolant, x: Float[Tensor, "*b d"], k: int) -> Kernel:
        raise NotImplementedError("a flow without noise has no kernel to go back by")

    def memory(self, base: Interpolant) -> float:
        return 1.0


@dataclass(frozen=True)
class Integrated(Ancestral):
    """sigma(t) = level by steps that are exact were X_1 what the denoiser says, as Ancestral's are:
    the noise xi = (x - alpha X_1) / beta is then an Ornstein-Uhlenbeck process, xi <- rho xi +
    sqrt(1 - rho^2) z with rho = exp(-int sigma^2 / (2 beta^2) dt), and the uncertainty of X_1 is
    added to it.  Euler's steps are unstable where beta^2 < sigma^2 dt / 4, at the end of any law
    near a surface: images.  The integral is exact where beta is linear in t (a rectified flow)."""

    name: ClassVar[str] = "Integrated"
    level: float = 1.0

    def parts(self, base: Interpolant, k: int) -> tuple[float, float, float]:
        a0, a1, b0, b1 = (*base.signals[k : k + 2], *base.noises[k : k + 2])
        dt = base.times[k + 1] - base.times[k]
        rho = math.exp(-(self.level**2) * dt / (2 * b0 * b1)) if b1 else 0.0
        return rho * b1 / b0, a1 - rho * b1 / b0 * a0, (1 - rho**2) * b1**2

    def reversal(self, base: Interpolant, x: Float[Tensor, "*b d"], k: int) -> Kernel:
        raise NotImplementedError("this chain has no kernel for reverse paths: use Constant")

    def memory(self, base: Interpolant) -> float:
        return Constant(self.level).memory(base)


class Silent(Borrowed, Additive):
    """The probability flow of an interpolant with a control and no noise: dX = (v + gain u) dt.

    u costs |u|^2 / 2, as with noise, so a loss whose label and value do not need the noise trains
    it; the chain has no kernels with a density, and its weights mean nothing."""

    def __init__(self, flow: Interpolant, gain: float = 1.0) -> None:
        self.flow = replace(flow, stepping=Flowing(gain))  # type: ignore[type-var]

    def normal(self, shape: tuple[int, ...], generator: Generator, dtype: torch.dtype) -> Tensor:
        return torch.zeros(shape, device=generator.device, dtype=dtype)

    def base(self, x: Float[Tensor, "*b d"], k: int) -> Kernel:
        return self.flow.base(x, k)

    def backward(self, x: Float[Tensor, "*b d"], k: int) -> Kernel:
        return self.flow.backward(x, k)


@dataclass(frozen=True)
class Tuned(Adapter):
    """The same without noise: u = v_theta - v_base."""

    name: ClassVar[str] = "Tuned"

    def build(self, dim: int, process: Process, generator: Generator) -> Model:
        assert isinstance(process, Silent)
        return super().build(dim, process.flow, generator)


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
            device = generator.device
            xi = torch.randn(n, 2, generator=generator, device=device, dtype=torch.float64)
            return MEAN + math.sqrt(POWER) * xi

        return Truth("closed form", log_Z=0.0, sample=sample)


class TerminalLaw(NamedTuple):
    """A Gaussian terminal law, in each coordinate."""

    mean: float
    variance: float


def remembered(memory: float) -> TerminalLaw:
    """Of the optimum on a base with corr(X_0, X_1) = memory (math.md 2)."""
    left = 1 - memory**2
    sharp = 1 / left + 1 / POWER - 1
    return TerminalLaw(MEAN / (POWER * sharp), 1 / sharp + (memory / (left * sharp)) ** 2)


def steered(gain: float = 1.0) -> TerminalLaw:
    """Of the optimum without noise on a rectified flow, whose map is the identity here: to end at y
    instead of X_0 = x costs (y - x)^2 / 2G, G = gain^2 int dt / (t^2 + (1 - t)^2) = gain^2 pi / 2,
    and the optimum ends at the y of the largest r(y) less that."""
    push = 2 / (math.pi * gain**2)
    stiff = push + 1 / POWER - 1
    return TerminalLaw(MEAN / (POWER * stiff), (push / stiff) ** 2)


class Siblings(NamedTuple):
    """X_0, and the ends of `each` independent paths of the base from every one of them."""

    start: Float[Tensor, "starts d"]
    ends: Float[Tensor, "each starts d"]


@lru_cache(maxsize=8)  # the shapes share a base
@torch.no_grad()
def siblings(base: Process, dim: int, starts: int, each: int, device: str) -> Siblings:
    source = Generator(device).manual_seed(4)
    start = base.start((starts, dim), source, torch.float32)
    x = start.expand(each, starts, dim)
    parts = max(at_once(AT_ONCE, dim, x.device) // starts, 1)
    for k in range(base.steps):
        std = base.base(x[:1, :1], k).std
        mean = torch.cat([base.base(part, k).mean for part in x.split(parts)])
        x = mean + std * base.normal(tuple(x.shape), source, x.dtype)
    return Siblings(start, x)


def optimum(
    ends: Float[Tensor, "each starts d"], r: Float[Tensor, "each starts"], source: Generator
) -> Float[Tensor, "starts d"]:
    """One draw a start from the terminal law of the optimal control, up to O(1 / each): X_0 is what
    it was, and X_1 | X_0 is the base's times exp r, normalised for every X_0 apart."""
    rows = torch.cat([resample(r[:, i], 1, source) for i in range(r.shape[1])])
    return ends[rows, torch.arange(r.shape[1], device=rows.device)]
