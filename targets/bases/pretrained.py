"""Pretrained flows and diffusions as bases: read once at the door, a `Noising` like any other."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from tiltbench.targets.bases.interpolant import Ancestral, Interpolant, Stepping
from tiltbench.targets.bases.noising import Step, pick
from tiltbench.targets.bases.schedules import RectifiedFlow, Schedule

EDGE = 1e-3  # the levels at t = 1 are those of t = 1 - EDGE where the noise there is none


class Levels(NamedTuple):
    """alpha, beta and their rates at a time, or at one for each point, (*b, 1)."""

    signal: float | Tensor
    noise: float | Tensor
    signal_rate: float | Tensor
    noise_rate: float | Tensor


Reading = Callable[[Tensor, Tensor, Levels], tuple[Tensor, Tensor]]
# (what the network says, x, levels) -> (E[X_1 | x], E[xi | x]), where x = alpha X_1 + beta xi

Doubt = Sequence[tuple[float, float]]  # (t, sqrt(E tr Cov(X_1 | X_t) / d)), to t = 1


def velocity(said: Tensor, x: Tensor, at: Levels) -> tuple[Tensor, Tensor]:
    """v = alpha' E[X_1|x] + beta' E[xi|x]: flow matching (arXiv 2210.02747)."""
    turn = at.signal_rate * at.noise - at.signal * at.noise_rate
    end = at.noise / turn * said - at.noise_rate / turn * x
    return end, at.signal_rate / turn * x - at.signal / turn * said


def epsilon(said: Tensor, x: Tensor, at: Levels) -> tuple[Tensor, Tensor]:
    """E[xi|x]: DDPM (arXiv 2006.11239)."""
    return (x - at.noise * said) / at.signal, said


def score(said: Tensor, x: Tensor, at: Levels) -> tuple[Tensor, Tensor]:
    """grad log p_t(x) = -E[xi|x] / beta."""
    return epsilon(-at.noise * said, x, at)


def v_prediction(said: Tensor, x: Tensor, at: Levels) -> tuple[Tensor, Tensor]:
    """alpha E[xi|x] - beta E[X_1|x]: progressive distillation (arXiv 2202.00512)."""
    power = at.signal**2 + at.noise**2
    return (at.signal * x - at.noise * said) / power, (at.noise * x + at.signal * said) / power


def sample(said: Tensor, x: Tensor, at: Levels) -> tuple[Tensor, Tensor]:
    """E[X_1|x]: the denoiser itself."""
    return said, (x - at.signal * said) / at.noise


def answer(
    network: nn.Module, x: Float[Tensor, "*b d"], t: Float[Tensor, "*b"]
) -> Float[Tensor, "*b d"]:
    """network(x, t) in the dtype of its parameters.  Raises ValueError where it is no tensor of the
    shape of x."""
    first = next(network.parameters(), x)
    said = network(x.to(first.dtype), t.to(first.dtype))
    shape = tuple(said.shape) if isinstance(said, Tensor) else type(said).__name__
    if shape != tuple(x.shape):
        raise ValueError(
            f"the network maps {tuple(x.shape)} to {shape}: it must answer a tensor of that shape"
        )
    return said.to(x)


def levels(schedule: Schedule, t: float) -> Levels:
    if schedule.noise_power(t) == 0 and t > 0.5:
        t -= EDGE
    noise = math.sqrt(schedule.noise_power(t))
    rate = schedule.noise_power_rate(t) / (2 * noise) if noise else math.inf
    return Levels(schedule.signal(t), noise, schedule.signal_rate(t), rate)


def trainable_copy(network: nn.Module, generator: Generator) -> nn.Module:
    return copy.deepcopy(network).requires_grad_(True)


@dataclass(frozen=True, eq=False)
class Pretrained(Interpolant):
    """The process of a network: (x (*b, d), t (*b)) -> (*b, d), read by `reading`.

    t runs from noise at 0 to data at 1 along `schedule`; a model with other times or layouts is
    wrapped in a module that takes these.  With the Ancestral stepping the noise is memoryless: the
    drift is 2 v - kappa x for a velocity model, and a step DDPM's for an epsilon model.  `rms`
    is the rms coordinate of p_base, and `doubt` holds pairs (t, sqrt(E tr Cov(X_1 | X_t) / d)),
    interpolated between (see `doubts`): the step's noise for what the denoiser cannot know.  The
    chain ends in a law of its own, off p_base by the network's error and O(1/K); weights are exact
    for that chain.  `network` is frozen here, in evaluation mode; `trainable` makes of it what an
    `Adapter` trains.

    Raises ValueError where the model says nothing of X_1 at t = 0 (an epsilon or score model needs
    a signal there), the last step would have no noise, or a number cannot be what it stands for.
    """

    network: nn.Module
    reading: Reading
    rms: float
    doubt: Doubt
    schedule: Schedule = RectifiedFlow()
    stepping: Stepping = Ancestral()
    steps: int = 50
    trainable: Callable[[nn.Module, Generator], nn.Module] = trainable_copy
    _placed: dict[torch.device, nn.Module] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not (isinstance(self.steps, int) and self.steps >= 1):
            raise ValueError(f"steps is {self.steps}; it must be a whole number, 1 or more")
        if not 0 < self.rms < math.inf:
            raise ValueError(f"rms is {self.rms}; it must be positive and finite")
        ends = [t for t, _ in self.doubt]
        if len(ends) < 2 or sorted(ends) != ends or ends[0] > 0 or ends[-1] < 1:
            raise ValueError(
                "doubt must be pairs (t, value) from t = 0 to t = 1 in order: measure it with "
                "`doubts`"
            )
        if not all(0 <= value < math.inf for _, value in self.doubt):
            raise ValueError("doubt holds values that are negative, infinite or NaN")
        self.stepping.check(self.schedule)
        one = torch.ones(1)
        if not all(part.isfinite() for part in self.reading(one, one, self._levels[0])):
            raise ValueError(
                f"this model says nothing of X_1 at t = 0 of {self.schedule.name}: an epsilon or "
                "score model needs a schedule with some signal there (VariancePreserving), a "
                "velocity model one with noise (RectifiedFlow)"
            )
        if not min(self.uncertainty) > 0:
            raise ValueError(
                "doubt is 0 before t = 1, which leaves a step without noise and paths without "
                "weights: measure it with `doubts`"
            )
        self.network.requires_grad_(False).eval()  # dropout would make another base of every call

    def __deepcopy__(self, memo: dict[int, Any]) -> Pretrained:
        return self  # frozen: a copy of a model that steers it has no use for another

    @property
    def spread(self) -> float:
        return self.rms

    @cached_property
    def uncertainty(self) -> list[float]:  # type: ignore[override]
        t, tau = zip(*self.doubt, strict=True)
        return [float(v) for v in np.interp(self.times[:-1], t, tau)]

    @cached_property
    def _levels(self) -> list[Levels]:
        return [levels(self.schedule, t) for t in self.times]

    def read(
        self, network: nn.Module, x: Float[Tensor, "*b d"], k: Step, shift: float = 0.0
    ) -> tuple[Tensor, Tensor, Levels]:
        """(E[X_1|x], E[xi|x], levels) by `network`, this base's or a fine-tuned one, at t_k +
        shift, within [0, 1]."""
        times, rows = self.times, self._levels
        if shift:
            times = tuple(min(max(t + shift, 0.0), 1.0) for t in times)
            rows = [levels(self.schedule, t) for t in times]
        at = Levels(*(pick(column, k, x) for column in zip(*rows, strict=True)))
        t = pick(times, k, x)
        if not isinstance(t, Tensor):
            t = x.new_tensor([t])
        said = answer(network, x, t[..., 0].expand(x.shape[:-1]))
        return *self.reading(said, x, at), at

    def placed(self, device: torch.device) -> nn.Module:
        """The frozen network on that device."""
        if device not in self._placed:
            here = {p.device for p in self.network.parameters()} <= {device}
            self._placed[device] = self.network if here else copy.deepcopy(self.network).to(device)
        return self._placed[device]

    def denoise(self, x: Float[Tensor, "*b d"], k: Step) -> Float[Tensor, "*b d"]:
        return self.read(self.placed(x.device), x, k)[0]

    def score(self, x: Float[Tensor, "*b d"], k: Step) -> Float[Tensor, "*b d"]:
        return self.current(x, k)[1]

    def current(
        self, x: Float[Tensor, "*b d"], k: Step
    ) -> tuple[Float[Tensor, "*b d"], Float[Tensor, "*b d"]]:
        """(velocity, score), by one call of the network; those of 1 - EDGE at t = 1."""
        end, noise, at = self.read(self.placed(x.device), x, k)
        return at.signal_rate * end + at.noise_rate * noise, -noise / at.noise

    def denoise_rate(self, x: Float[Tensor, "*b d"], k: Step) -> Float[Tensor, "*b d"]:
        """By a difference of 2 EDGE in the network's time, one-sided at the ends."""
        here = self.placed(x.device)
        ahead, behind = (self.read(here, x, k, shift)[0] for shift in (EDGE, -EDGE))
        width = [min(t + EDGE, 1.0) - max(t - EDGE, 0.0) for t in self.times]
        return (ahead - behind) / pick(width, k, x)


@torch.no_grad()
def doubts(
    network: nn.Module,
    reading: Reading,
    schedule: Schedule,
    x1: Float[Tensor, "n d"],
    generator: Generator,
    times: int = 100,
) -> Doubt:
    """(t, sqrt(E |X_1 - E[X_1|X_t]|^2 / d)) at t = 0, 1/times, ..., 1 over data or samples x1.

    The base's own uncertainty and the error of its denoiser, capped by that of a constant.  Raises
    ValueError where the samples are all alike or the network is not finite."""
    network.eval()
    found, most = [], float((x1 - x1.mean(0)).square().mean().sqrt())
    if not 0 < most < math.inf:
        raise ValueError(f"the {len(x1)} samples x1 have no spread: give finite ones that differ")
    for i in range(times):
        t = i / times
        at = levels(schedule, t)
        xi = torch.randn(x1.shape, generator=generator, device=x1.device, dtype=x1.dtype)
        x = at.signal * x1 + at.noise * xi
        end, _ = reading(answer(network, x, x.new_full(x.shape[:-1], t)), x, at)
        error = float((x1 - end).square().mean().sqrt())
        if not math.isfinite(error):
            raise ValueError(f"the network is not finite at t = {t:g}")
        found.append((t, min(error, most)))
    return [*found, (1.0, 0.0)]
