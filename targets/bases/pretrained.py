"""Pretrained flows and diffusions as bases: read once at the door, a `Noising` like any other."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from tiltbench.targets.bases.continuous import Continuous, Moment
from tiltbench.targets.bases.interpolant import Ancestral, Interpolant, Mix, Stepping
from tiltbench.targets.bases.noising import Step, pick
from tiltbench.targets.bases.process import Kernel
from tiltbench.targets.bases.schedules import RectifiedFlow, Schedule
from tiltbench.targets.constants import constant, settled

EDGE = 1e-3  # the levels at t = 1 are those of t = 1 - EDGE where the noise there is none


class Levels(NamedTuple):
    """alpha, beta and their rates at a time, or at one for each point, (*b, 1)."""

    signal: float | Tensor
    noise: float | Tensor
    signal_rate: float | Tensor
    noise_rate: float | Tensor


Reading = Callable[[Tensor, Tensor, Levels], tuple[Tensor, Tensor]]
# (what the network says, x, levels) -> (E[X_1 | x], E[xi | x]), where x = alpha X_1 + beta xi


def linear(reading: Reading) -> Reading:
    """Marks a reading that is linear in what the network says and x, without a constant: its two
    coefficients are then all that is needed of it at a level."""
    reading.linear = True  # type: ignore[attr-defined]
    return reading


Doubt = Sequence[tuple[float, float]]  # (t, sqrt(E tr Cov(X_1 | X_t) / d)), to t = 1


@linear
def velocity(output: Tensor, x: Tensor, at: Levels) -> tuple[Tensor, Tensor]:
    """v = alpha' E[X_1|x] + beta' E[xi|x]: flow matching (arXiv 2210.02747)."""
    turn = at.signal_rate * at.noise - at.signal * at.noise_rate
    end = at.noise / turn * output - at.noise_rate / turn * x
    return end, at.signal_rate / turn * x - at.signal / turn * output


@linear
def epsilon(output: Tensor, x: Tensor, at: Levels) -> tuple[Tensor, Tensor]:
    """E[xi|x]: DDPM (arXiv 2006.11239)."""
    return (x - at.noise * output) / at.signal, output


@linear
def score(output: Tensor, x: Tensor, at: Levels) -> tuple[Tensor, Tensor]:
    """grad log p_t(x) = -E[xi|x] / beta."""
    return epsilon(-at.noise * output, x, at)


@linear
def v_prediction(output: Tensor, x: Tensor, at: Levels) -> tuple[Tensor, Tensor]:
    """alpha E[xi|x] - beta E[X_1|x]: progressive distillation (arXiv 2202.00512)."""
    power = at.signal**2 + at.noise**2
    return (at.signal * x - at.noise * output) / power, (at.noise * x + at.signal * output) / power


@linear
def sample(output: Tensor, x: Tensor, at: Levels) -> tuple[Tensor, Tensor]:
    """E[X_1|x]: the denoiser itself."""
    return output, (x - at.signal * output) / at.noise


def answer(
    network: nn.Module, x: Float[Tensor, "*b d"], t: Float[Tensor, "*b"]
) -> Float[Tensor, "*b d"]:
    """network(x, t) in the dtype of its parameters.  Raises ValueError where it is no tensor of the
    shape of x."""
    first = next(network.parameters(), x)
    return _shaped(network(x.to(first.dtype), t.to(first.dtype)), x)


def _shaped(output: Any, x: Tensor) -> Tensor:
    shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    if shape != tuple(x.shape):
        raise ValueError(
            f"the network maps {tuple(x.shape)} to {shape}: it must answer a tensor of that shape"
        )
    return output.to(x)


class Frozen(NamedTuple):
    """The network on a device: as it is, and asked at the times of the grid.

    A network may offer `on_grid(t) -> ((x, k) -> what it says at t_k)`, k an int or indices: what
    depends on time alone is then worked out once, as its parameters do not change."""

    network: nn.Module
    dtype: torch.dtype | None  # of its parameters, where it has any
    ask: Callable[[Tensor, Step], Tensor]


def _frozen(network: nn.Module, times: tuple[float, ...]) -> Frozen:
    first = next(network.parameters(), None)
    dtype = None if first is None else first.dtype
    if first is not None and hasattr(network, "on_grid"):
        with torch.inference_mode(False), torch.no_grad():
            offered: Any = network
            return Frozen(network, dtype, offered.on_grid(constant(times, first)))

    def ask(x: Tensor, k: Step) -> Tensor:
        return network(x, _time(times, k, x))

    return Frozen(network, dtype, ask)


GRAPH_BYTES = 2**28  # bytes of the graphs that one batch of paths may hold


def levels(schedule: Schedule, t: float) -> Levels:
    if schedule.noise_power(t) == 0 and t > 0.5:
        t -= EDGE
    noise = math.sqrt(schedule.noise_power(t))
    rate = schedule.noise_power_rate(t) / (2 * noise) if noise else math.inf
    return Levels(schedule.signal(t), noise, schedule.signal_rate(t), rate)


def trainable_copy(network: nn.Module, generator: Generator) -> nn.Module:
    return copy.deepcopy(network).requires_grad_(True)


@dataclass(frozen=True, eq=False)
class Pretrained(Interpolant, Continuous):
    """The process of a network: (x (*b, d), t (*b)) -> (*b, d), read by `reading`.

    t runs from noise at 0 to data at 1 along `schedule`; a model with other times or layouts is
    wrapped in a module that takes these.  With the Ancestral stepping the noise is memoryless: the
    drift is 2 v - kappa x for a velocity model, and a step DDPM's for an epsilon model.  `rms`
    is the rms coordinate of p_base, and `doubt` holds pairs (t, sqrt(E tr Cov(X_1 | X_t) / d)),
    interpolated between (see `doubts`): the step's noise for what the denoiser cannot know.  The
    chain ends in a law of its own, off p_base by the network's error and O(1/K); weights are exact
    for that chain.  `network` is frozen here, in evaluation mode; `trainable` makes of it what an
    `Adapter` trains.  Of a network that offers `on_grid` the time is told once (see `Frozen`).

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
    _placed: dict[torch.device, Frozen] = field(default_factory=dict, init=False, repr=False)
    _memory: Memory | None = field(default=None, init=False, repr=False)

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
        shift, within [0, 1], or [0, 1 - EDGE] where the noise at t = 1 is none."""
        times, rows = self.times, self._rows
        if shift:
            times = self._shifted(shift)
            rows = _numbers([levels(self.schedule, t) for t in times])
        at = _at(rows, k, x)
        return *self.reading(answer(network, x, _time(times, k, x)), x, at), at

    @cached_property
    def _rows(self) -> tuple[float, ...]:
        return _numbers(self._levels)

    def placed(self, device: torch.device) -> nn.Module:
        """The frozen network on that device."""
        return self._on(device).network

    def _on(self, device: torch.device) -> Frozen:
        frozen = self._placed.get(device)
        if frozen is None:
            device = settled(device)
            if device not in self._placed:
                here = {p.device for p in self.network.parameters()} <= {device}
                network = self.network if here else copy.deepcopy(self.network).to(device)
                self._placed[device] = _frozen(network, self.times)
            frozen = self._placed[device]
        return frozen

    def _output(self, x: Float[Tensor, "*b d"], k: Step) -> Float[Tensor, "*b d"]:
        here = self._on(x.device)
        return _shaped(here.ask(x if here.dtype is None else x.to(here.dtype), k), x)

    def denoise(self, x: Float[Tensor, "*b d"], k: Step) -> Float[Tensor, "*b d"]:
        if isinstance(k, int):
            return self.mixed(x, k, Mix(0.0, end=1.0))
        return self.reading(self._output(x, k), x, _at(self._rows, k, x))[0]

    def score(self, x: Float[Tensor, "*b d"], k: Step) -> Float[Tensor, "*b d"]:
        return self.current(x, k)[1]

    def current(
        self, x: Float[Tensor, "*b d"], k: Step
    ) -> tuple[Float[Tensor, "*b d"], Float[Tensor, "*b d"]]:
        """(velocity, score), by one call of the network; those of 1 - EDGE at t = 1."""
        at = self._levels[k] if isinstance(k, int) else _at(self._rows, k, x)
        end, noise = self.reading(self._output(x, k), x, at)
        return at.signal_rate * end + at.noise_rate * noise, -noise / at.noise

    def mixed(self, x: Float[Tensor, "*b d"], k: int, mix: Mix) -> Float[Tensor, "*b d"]:
        """By one call of the network."""
        at, output = self._levels[k], self._output(x, k)
        end, noise = mix.end, 0.0  # the parts of E[X_1 | x] and E[xi | x]
        if mix.velocity or mix.score:
            end += mix.velocity * float(at.signal_rate)
            noise = mix.velocity * float(at.noise_rate) - mix.score / float(at.noise)
        if getattr(self.reading, "linear", False):
            reading: Any = self.reading  # of numbers, too
            output_1, x_1 = reading(1.0, 0.0, at), reading(0.0, 1.0, at)
            of_output, of_x = (end * e + (noise * n if noise else 0.0) for e, n in (output_1, x_1))
            return torch.add((mix.x + of_x) * x, output, alpha=of_output)
        ends, noises = self.reading(output, x, at)
        return mix.x * x + end * ends + (noise * noises if noise else 0.0)

    def ends(self, y: Float[Tensor, "*b d"], at: Moment) -> tuple[Tensor, Tensor]:
        network, x = self.placed(y.device), at.size * y
        time = x.new_full(x.shape[:-1], at.t)
        return self.reading(answer(network, x, time), x, levels(self.schedule, at.t))

    def precise(self) -> Pretrained:
        return self.of(copy.deepcopy(self.network).double())

    def of(self, network: nn.Module) -> Pretrained:
        """The process of another network, which is frozen here, read in the same way."""
        return replace(self, network=network)

    @property
    def reversed_exactly(self) -> bool:
        """No: the noising is the reversal of the flow that the network stands for, and not of the
        chain of K Gaussian steps that draws from it, whose terminal density nobody knows."""
        return False

    def remembering(self) -> Pretrained:
        """It keeps the graph of the network's call at every step of the last path simulated, if all
        fit into KEPT bytes: a `pull_back` then costs no call of its own."""
        twin = copy.copy(self)  # with what is cached
        object.__setattr__(twin, "_memory", Memory(self.steps))
        return twin

    def base(self, x: Float[Tensor, "*b d"], k: int) -> Kernel:
        if self._memory is None or self._memory.full:
            return super().base(x, k)
        mean = self._memory.keep(k, x, lambda y: self.mixed(y, k, self.mixes[k]))
        return Kernel(mean, self.stds[k])

    def pull_backs(self, x: Float[Tensor, "k1 *b d"]) -> Callable[[int, Tensor], Tensor]:
        memory = self._memory or Memory(0)
        return lambda k, a: memory.recall(k, a) if k in memory.held else self.pull_back(x[k], k, a)

    def pull_back(self, x: Float[Tensor, "*b d"], k: int, a: Tensor) -> Tensor:
        with torch.enable_grad():
            y = x.detach().requires_grad_()
            return torch.autograd.grad(self.mixed(y, k, self.mixes[k]), y, a)[0]

    def denoise_rate(self, x: Float[Tensor, "*b d"], k: Step) -> Float[Tensor, "*b d"]:
        """By a difference of 2 EDGE in the network's time, one-sided at the ends."""
        here = self.placed(x.device)
        ahead, behind = (self.read(here, x, k, shift)[0] for shift in (EDGE, -EDGE))
        return (ahead - behind) / pick(self._widths, k, x)

    @cached_property
    def _widths(self) -> tuple[float, ...]:
        ahead, behind = self._shifted(EDGE), self._shifted(-EDGE)
        return tuple(t - s for s, t in zip(behind, ahead, strict=True))

    def _shifted(self, shift: float) -> tuple[float, ...]:
        # t = 1 has the levels of 1 - EDGE: a difference between the two would be none
        last = 1.0 if self.schedule.noise_power(1.0) else 1.0 - EDGE
        return tuple(min(max(min(t, last) + shift, 0.0), last) for t in self.times)


def _numbers(rows: Sequence[Levels]) -> tuple[float, ...]:
    return tuple(float(number) for row in rows for number in row)


def _time(times: tuple[float, ...], k: Step, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b"]:
    t = constant(times, x)
    return (t.unbind(0)[k] if isinstance(k, int) else t[k]).expand(x.shape[:-1])


def _at(rows: tuple[float, ...], k: Step, x: Tensor) -> Levels:
    """The levels, of which `rows` holds one after the other, at step k or at one for each point."""
    if isinstance(k, int):
        return Levels(*rows[4 * k : 4 * k + 4])
    return Levels(*constant(rows, x).reshape(-1, 4)[k].split(1, -1))


class Memory:
    """The graphs of the steps of one batch of paths, each from x_k to the mean of its kernel."""

    def __init__(self, steps: int) -> None:
        self.steps, self.held = steps, dict[int, tuple[Tensor, Tensor]]()
        self.full = False  # a first step has shown that all of them would not fit

    def keep(
        self, k: int, x: Float[Tensor, "*b d"], f: Callable[[Tensor], Tensor]
    ) -> Float[Tensor, "*b d"]:
        """f(x), without a graph for whoever asked.  Points that are not the next of a path end it:
        nothing is kept any more."""
        if k != len(self.held):
            self.full = True
            self.held.clear()
        if self.full:
            return f(x)
        with torch.enable_grad():
            y = x.detach().requires_grad_()
            mean, size = (f(y), 0) if self.held else _sized(f, y)
        self.full = size * self.steps > GRAPH_BYTES
        if not self.full:
            self.held[k] = y, mean
        return mean.detach()

    def recall(self, k: int, a: Tensor) -> Tensor:
        """(df_k/dx)^T a; the graph of step k is gone afterwards."""
        y, mean = self.held.pop(k)
        return torch.autograd.grad(mean, y, a)[0]


def _sized(f: Callable[[Tensor], Tensor], y: Tensor) -> tuple[Tensor, int]:
    """f(y) and the bytes that its graph holds, parameters left out."""
    tensors: dict[int, Tensor] = {}

    def seen(t: Tensor) -> Tensor:
        whole = t if t._base is None else t._base
        if not isinstance(whole, nn.Parameter):
            tensors[id(whole)] = whole
        return t

    with torch.autograd.graph.saved_tensors_hooks(seen, lambda t: t):
        value = f(y)
    return value, sum(t.numel() * t.element_size() for t in tensors.values())


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
    pairs, most = [], float((x1 - x1.mean(0)).square().mean().sqrt())
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
        pairs.append((t, min(error, most)))
    return [*pairs, (1.0, 0.0)]
