"""Gaussian base processes with exact transitions: everything about them is closed form."""

from __future__ import annotations

import math
import operator
from abc import abstractmethod
from collections.abc import Callable
from functools import cached_property
from itertools import accumulate

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from tiltbench.targets.bases.continuous import Continuous, Moment
from tiltbench.targets.bases.noising import Current, Known, Side, Step, pick
from tiltbench.targets.bases.process import Kernel
from tiltbench.targets.constants import constant


class Linear(Known, Continuous):
    """Gaussian references dX = -gamma(t)/2 X dt + sigma(t) dW with exact transitions.

    A new one is two formulas: `between(s, t)` and `sigma(t)`.  p_base = N(0, spread^2 I).
    """

    @abstractmethod
    def between(self, s: float, t: float) -> tuple[float, float]:
        """(gain, var): X_t | X_s ~ N(gain X_s, var I), s <= t."""

    @abstractmethod
    def sigma(self, t: float) -> float: ...

    @property
    @abstractmethod
    def start_var(self) -> float:
        """Variance of a coordinate of X_0; 0 is a point at the origin."""

    @abstractmethod
    def widened(self, factor: float) -> Linear:
        """The same process in units of length larger by `factor`."""

    def variance(self, t: float) -> float:
        """Var of a coordinate of X_t under the base."""
        gain, var = self.between(0.0, t)
        return gain * gain * self.start_var + var

    @cached_property
    def spread(self) -> float:  # type: ignore[override]
        return math.sqrt(self.variance(1.0))

    @property
    def memory(self) -> float:
        return self.between(0.0, 1.0)[0] * math.sqrt(self.start_var) / self.spread

    def signal(self, t: float) -> float:
        """alpha_t: X_t | X_1 ~ N(alpha_t X_1, beta_t^2 I) under the base, any start included."""
        return self.variance(t) * self.between(t, 1.0)[0] / self.variance(1.0)

    def noise(self, t: float) -> float:
        """beta_t."""
        gain = self.between(t, 1.0)[0]
        here = self.variance(t)
        return math.sqrt(max(here - (here * gain) ** 2 / self.variance(1.0), 0.0))

    @cached_property
    def rates(self) -> list[tuple[float, float]]:
        return [(_rate(self.signal, t), _rate(lambda s: self.noise(s) ** 2, t)) for t in self.times]

    @cached_property
    def ahead(self) -> list[tuple[float, float]]:
        """(gain, var) of X_1 | X_k at every time of the grid."""
        return [self.between(t, 1.0) for t in self.times]

    @cached_property
    def lifts(self) -> list[float]:
        return [pull / var for pull, (_, var) in zip(self.pulls, self.ahead, strict=False)]

    def ends(self, y: Float[Tensor, "*b d"], at: Moment) -> tuple[Tensor, Tensor]:
        return self.spread**2 * at.signal * y, at.noise * y

    def reach(self, t: float) -> float:
        after, left = min(t + 1 / self.steps, 1.0), self.between(t, 1.0)[1]
        if not left > 0 or after <= t:
            return 0.0
        pull = math.sqrt(self.between(t, after)[1] / (after - t)) * self.between(after, 1.0)[0]
        return left / pull

    def denoise(self, x: Float[Tensor, "*b d"], k: Step) -> Float[Tensor, "*b d"]:
        return pick([gain for gain, _ in self.ahead], k, x) * x

    def score(self, x: Float[Tensor, "*b d"], k: Step) -> Float[Tensor, "*b d"]:
        """-x / Var X_t; 0 at a point start."""
        return pick(self.slopes, k, x) * x

    def current(
        self, x: Float[Tensor, "*b d"], k: Step
    ) -> tuple[Float[Tensor, "*b d"], Float[Tensor, "*b d"]]:
        return pick(self.drifts, k, x) * x, self.score(x, k)

    def carried(
        self, x: Float[Tensor, "*b d"], k: int, dt: float, climb: float
    ) -> tuple[Float[Tensor, "*b d"], Current | None]:
        return (1 + dt * self.drifts[k] + climb * self.slopes[k]) * x, None

    def currents(
        self, x: Float[Tensor, " k1 *b d"], met: list[Current | None]
    ) -> tuple[Float[Tensor, " k1 *b d"], Float[Tensor, " k1 *b d"]]:
        lead = (-1, *[1] * (x.dim() - 1))
        drift, slope = (constant(each, x).reshape(lead) for each in (self.drifts, self.slopes))
        return drift * x, slope * x

    @cached_property
    def drifts(self) -> list[float]:
        """v / x at every time of the grid: the flow of a Gaussian law is linear."""
        return [
            first * gain - second / 2 * slope
            for (first, second), (gain, _), slope in zip(
                self.rates, self.ahead, self.slopes, strict=True
            )
        ]

    @cached_property
    def slopes(self) -> list[float]:
        """-1 / Var X_t at every time of the grid; 0 at a point start."""
        return [-1 / v if (v := self.variance(t)) else 0.0 for t in self.times]

    def denoise_rate(self, x: Float[Tensor, "*b d"], k: Step) -> Float[Tensor, "*b d"]:
        return pick(self.gain_rates, k, x) * x

    def bound(self, x: Float[Tensor, "*b d"], k: Step) -> Float[Tensor, "*b d"]:
        """x std(X_1) / std(X_t): the flow of a Gaussian law is linear, and 1 where it stands."""
        return pick(self.stretches, k, x) * x

    def bound_rate(self, x: Float[Tensor, "*b d"], k: Step) -> Float[Tensor, "*b d"]:
        rates = [-drift * far for drift, far in zip(self.drifts, self.stretches, strict=True)]
        return pick(rates, k, x) * x

    @cached_property
    def still(self) -> bool:  # type: ignore[override]
        last = self.mean_squares[-1]
        return all(math.isclose(v, last, rel_tol=1e-9) for v in self.mean_squares)

    @cached_property
    def stretches(self) -> list[float]:
        """std(X_1) / std(X_t) at every time of the grid; 0 at a point start."""
        return [self.spread / math.sqrt(v) if v else 0.0 for v in self.mean_squares]

    @cached_property
    def mean_squares(self) -> list[float]:  # type: ignore[override]
        return [self.variance(t) for t in self.times]

    @cached_property
    def gain_rates(self) -> list[float]:
        """d/dt of the gain of X_1 | X_t at every time of the grid."""
        return [_rate(lambda s: self.between(s, 1.0)[0], t) for t in self.times]

    def log_change(
        self,
        x: Float[Tensor, " k1 *b d"],
        velocity: Float[Tensor, " k1 *b d"],
        score: Float[Tensor, " k1 *b d"],
        carried: Float[Tensor, " k1 *b d"],
        dt: Float[Tensor, " k"],
        eps: Float[Tensor, " k"],
    ) -> Float[Tensor, " k1 *b"]:
        """Exact, from the Gaussian density of X_t."""
        log_p = self._log_marginal(x, 0)
        return log_p - log_p[:1]

    def log_steps(
        self,
        start: Side,
        end: Side,
        dt: Float[Tensor, " k"],
        eps: Float[Tensor, " k"],
        first: int = 0,
    ) -> Float[Tensor, " k *b"]:
        """Exact, from the Gaussian density of X_t."""
        return self._log_marginal(end.x, first + 1) - self._log_marginal(start.x, first)

    def _log_marginal(self, x: Float[Tensor, "k *b d"], first: int) -> Float[Tensor, " k *b"]:
        """log p_{t_j}(x_j) of the base at the times j = first, first + 1, ..., but for a constant
        that all of them share; float64."""
        rank, variances = x.shape[-1] - self.removed, self.mean_squares[first : first + len(x)]
        bend, log_norm = (
            constant(each, x, torch.float64).reshape(-1, *[1] * (x.dim() - 2))
            for each in (
                [-0.5 / v for v in variances],
                [-rank / 2 * math.log(v) for v in variances],
            )
        )
        return torch.addcmul(log_norm, x.square().sum(-1).double(), bend)

    def posterior(
        self, x: Float[Tensor, "*b d"], k: Int[Tensor, " *b"], generator: Generator
    ) -> Float[Tensor, "*b d"]:
        std = pick([math.sqrt(var) for _, var in self.ahead], k, x)
        return self.denoise(x, k) + std * self.normal(tuple(x.shape), generator, x.dtype)

    def log_end(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
        """log N(x; 0, spread^2 I), on the subspace of the process."""
        d, s = x.shape[-1] - self.removed, self.spread
        return x.square().sum(-1) / (-2 * s * s) - d * math.log(s * math.sqrt(2 * math.pi))

    def less_log_end(
        self, x: Float[Tensor, "*b d"], y: Float[Tensor, " *b"], g: Float[Tensor, "*b d"]
    ) -> tuple[Float[Tensor, " *b"], Float[Tensor, "*b d"]]:
        """(y - log_end(x), g - grad log_end(x))."""
        d, precision = x.shape[-1] - self.removed, 1 / self.spread**2
        above = torch.add(y, x.square().sum(-1), alpha=precision / 2)
        whole = above + d * math.log(self.spread * math.sqrt(2 * math.pi))
        return whole, torch.add(g, x, alpha=precision)

    def end(
        self, shape: tuple[int, ...], generator: Generator, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Exact draws of X_1 under the base."""
        return self.spread * self.normal(shape, generator, dtype)

    @cached_property
    def kernels(self) -> list[tuple[float, float]]:
        """(gain_k, std_k) of every step."""
        pairs = [self.between(s, t) for s, t in zip(self.times, self.times[1:], strict=False)]
        return [(gain, math.sqrt(var)) for gain, var in pairs]

    @cached_property
    def reversals(self) -> list[tuple[float, float]]:
        """(gain, std) of X_k | X_{k+1} under the base: Gaussian conditioning."""
        result = []
        for k, (gain, std) in enumerate(self.kernels):
            before = self.variance(self.times[k])
            after = gain * gain * before + std * std
            result.append((gain * before / after, math.sqrt(before) * std / math.sqrt(after)))
        return result

    @cached_property
    def pulls(self) -> list[float]:
        """std_k / sqrt(dt_k) gain(t_{k+1}, 1): grad r(X_1) -> control units at step k."""
        return [
            std / math.sqrt(t - s) * self.between(t, 1.0)[0]
            for (_, std), s, t in zip(self.kernels, self.times, self.times[1:], strict=False)
        ]

    def start(self, shape: tuple[int, ...], generator: Generator, dtype: torch.dtype) -> Tensor:
        return math.sqrt(self.start_var) * self.normal(shape, generator, dtype)

    def base(self, x: Float[Tensor, "*b d"], k: int) -> Kernel:
        gain, std = self.kernels[k]
        return Kernel(gain * x, std)

    def backward(self, x: Float[Tensor, "*b d"], k: int) -> Kernel:
        gain, std = self.reversals[k]
        return Kernel(gain * x, std)

    def pull_back(self, x: Float[Tensor, "*b d"], k: int, a: Tensor) -> Tensor:
        return self.kernels[k][0] * a

    def adjoints(
        self, x: Float[Tensor, "k1 *b d"], a: Float[Tensor, "*b d"]
    ) -> Float[Tensor, "k *b d"]:
        return constant(self.gains_ahead, a).reshape(-1, *[1] * a.dim()) * a

    @cached_property
    def gains_ahead(self) -> tuple[float, ...]:
        """The gain of E[X_1 | X_k] at t_1, ..., t_K, as the product of those of the steps."""
        gains = [gain for gain, _ in self.kernels[:0:-1]]
        return tuple(accumulate(gains, operator.mul, initial=1.0))[::-1]

    def pull(self, k: Tensor, g: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """What a control at step k (*b) is regressed on, given g = grad r(X_1): sigma c_t g of
        adjoint sampling in the discrete chain's own units (arXiv 2504.11713)."""
        return pick(self.pulls, k, g) * g

    def bridge(
        self,
        x0: Float[Tensor, "b d"],
        x1: Float[Tensor, "b d"],
        k: Tensor,
        generator: Generator,
    ) -> Float[Tensor, "b d"]:
        """X_{t_k} given both ends, under the base; k (B,) are indices of the grid."""
        a, b, sd = (pick(column, k, x1) for column in self.bridges)
        return a * x0 + b * x1 + sd * self.normal(x1.shape, generator, x1.dtype)

    @cached_property
    def bridges(self) -> list[tuple[float, ...]]:
        """The weights of X_0, those of X_1, and the sds of X_{t_k} | X_0, X_1, at every time."""
        rows = []
        _, total = self.between(0.0, 1.0)
        for t in self.times:
            (g0, v0), (g1, v1) = self.between(0.0, t), self.between(t, 1.0)
            rows.append((g0 * v1 / total, g1 * v0 / total, math.sqrt(max(v0 * v1 / total, 0.0))))
        return list(zip(*rows, strict=True))


def _rate(f: Callable[[float], float], t: float) -> float:
    """df/dt within [0, 1], by differences of second order, one-sided at the ends."""
    h = 1e-5
    if t < h:
        return (4 * f(t + h) - f(t + 2 * h) - 3 * f(t)) / (2 * h)
    if t > 1 - h:
        return (3 * f(t) - 4 * f(t - h) + f(t - 2 * h)) / (2 * h)
    return (f(t + h) - f(t - h)) / (2 * h)
