"""A base process is a grid of Gaussian kernels; a control shifts their means.

    dX = b(X, t) dt + sigma(t) dW  on  0 = t_0 < ... < t_K = 1,    X_0 ~ p_0,  X_1 ~ p_base,

stepped by X_{k+1} | X_k ~ N(m_k(X_k) + std_k sqrt(dt_k) u, std_k^2 I).  The controlled chain is
weighed against the base *chain*, so that E_u[exp log_w] = Z holds exactly at any number of steps
for any control (math.md 5.1).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor


class Kernel(NamedTuple):
    """N(mean, std^2 I)."""

    mean: Float[Tensor, "*b d"]
    std: float


class Path(NamedTuple):
    """A simulated batch and all that is needed to weigh it again for free: K steps, K+1 points."""

    t: Float[Tensor, " k1"]
    x: Float[Tensor, "k1 *b d"]
    mean: Float[Tensor, "k *b d"]  # of the base kernel
    std: Float[Tensor, " k"]
    u: Float[Tensor, "k *b d"]  # the control it was simulated (or retraced) with
    hint: Float[Tensor, "k *b d"] | None = None  # paid reward gradients, for guided controls

    @property
    def dt(self) -> Tensor:
        return self.t.diff()


class Controlled(ABC):
    """What `simulate` needs of a model."""

    @abstractmethod
    def control(
        self, x: Float[Tensor, "*b d"], t: Tensor, hint: Tensor | None = None
    ) -> Float[Tensor, "*b d"]:
        """u(x, t), with t broadcastable to x.shape[:-1]."""

    def on_grid(self, t: Float[Tensor, " k"]) -> Stepper:
        """(x, k, hint) -> u(x, t_k): whatever depends on time alone may be worked out once."""
        return lambda x, k, hint: self.control(x, t[k], hint)


Stepper = Callable[[Tensor, int, Tensor | None], Tensor]
Guide = Callable[[Tensor], Tensor]  # (*b, D) -> (*b, D): a paid hint for guided models


class Process(ABC):
    """A Markov chain of Gaussian kernels with a start and an exactly weighable reversal."""

    steps: int

    @property
    @abstractmethod
    def times(self) -> tuple[float, ...]:
        """The grid t_0 = 0 < ... < t_K = 1."""

    @property
    @abstractmethod
    def spread(self) -> float:
        """rms coordinate of X_1 under the base: the length by which networks scale their input."""

    @abstractmethod
    def start(self, shape: tuple[int, ...], generator: Generator, dtype: torch.dtype) -> Tensor:
        """X_0, drawn on the generator's device."""

    @abstractmethod
    def base(self, x: Float[Tensor, "*b d"], k: int) -> Kernel:
        """X_{k+1} | X_k without control."""

    @abstractmethod
    def backward(self, x: Float[Tensor, "*b d"], k: int) -> Kernel:
        """X_k | X_{k+1} along reversed paths."""

    @abstractmethod
    def log_ratio(self, path: Path) -> Float[Tensor, " *b"]:
        """log dP^u/dP^base of each path, float64: with log_w = r(x_K) - log_ratio,
        E_u[exp log_w] = Z."""

    def grid(self, like: Tensor) -> Float[Tensor, " k1"]:
        return torch.tensor(self.times, dtype=like.dtype, device=like.device)

    def pull_back(self, x: Float[Tensor, "*b d"], k: int, a: Tensor) -> Tensor:
        """(d m_k / d x)^T a at x = X_k: one step of the lean adjoint (math.md 4), a VJP."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(self.base(x, k).mean, x, a)[0]


class Additive(Process):
    """Processes whose control adds std sqrt(dt) u to the base mean and is weighed by Girsanov."""

    def log_ratio(self, path: Path) -> Float[Tensor, " *b"]:
        """sum_k sqrt(dt_k) u_k . z_k - dt_k |u_k|^2 / 2 with z_k = (x_{k+1} - mean_k) / std_k.

        The logarithm of the ratio of the Gaussian kernels: exact in discrete time.  Summed over
        time in float64; differentiable in path.u and path.x."""
        dt = path.dt.double()
        ahead = path.x[1:] - path.mean
        cross = (path.u * ahead).sum(-1).double()
        energy = path.u.square().sum(-1).double()
        return _over_time(dt.sqrt() / path.std.double(), cross) - _over_time(dt / 2, energy)


def _over_time(weight: Tensor, values: Tensor) -> Tensor:
    return torch.tensordot(weight, values, dims=([0], [0]))


class Linear(Additive):
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

    @property
    def spread(self) -> float:
        return math.sqrt(self.variance(1.0))

    def signal(self, t: float) -> float:
        """alpha_t: X_t | X_1 ~ N(alpha_t X_1, beta_t^2 I) under the base, any start included."""
        return self.variance(t) * self.between(t, 1.0)[0] / self.variance(1.0)

    def noise(self, t: float) -> float:
        """beta_t."""
        gain = self.between(t, 1.0)[0]
        here = self.variance(t)
        return math.sqrt(max(here - (here * gain) ** 2 / self.variance(1.0), 0.0))

    def log_end(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
        """log N(x; 0, spread^2 I)."""
        d, s = x.shape[-1], self.spread
        return -x.square().sum(-1) / (2 * s * s) - d * math.log(s * math.sqrt(2 * math.pi))

    def end(
        self, shape: tuple[int, ...], generator: Generator, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Exact draws of X_1 under the base."""
        return self.spread * _normal(shape, generator, dtype)

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
        return math.sqrt(self.start_var) * _normal(shape, generator, dtype)

    def base(self, x: Float[Tensor, "*b d"], k: int) -> Kernel:
        gain, std = self.kernels[k]
        return Kernel(gain * x, std)

    def backward(self, x: Float[Tensor, "*b d"], k: int) -> Kernel:
        gain, std = self.reversals[k]
        return Kernel(gain * x, std)

    def pull_back(self, x: Float[Tensor, "*b d"], k: int, a: Tensor) -> Tensor:
        return self.kernels[k][0] * a

    def pull(self, k: Tensor, g: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """What a control at step k (*b) is regressed on, given g = grad r(X_1): sigma c_t g of
        adjoint sampling in the discrete chain's own units (arXiv 2504.11713)."""
        return torch.tensor(self.pulls, dtype=g.dtype, device=g.device)[k][..., None] * g

    def bridge(
        self,
        x0: Float[Tensor, "b d"],
        x1: Float[Tensor, "b d"],
        k: Tensor,
        generator: Generator,
    ) -> Float[Tensor, "b d"]:
        """X_{t_k} given both ends, under the base; k (B,) are indices of the grid."""
        a, b, sd = self.bridges.to(device=x1.device, dtype=x1.dtype)[:, k, None]
        return a * x0 + b * x1 + sd * _normal(x1.shape, generator, x1.dtype)

    @cached_property
    def bridges(self) -> Float[Tensor, "3 k1"]:
        """(weight of X_0, weight of X_1, sd) of X_{t_k} | X_0, X_1."""
        rows = []
        _, total = self.between(0.0, 1.0)
        for t in self.times:
            (g0, v0), (g1, v1) = self.between(0.0, t), self.between(t, 1.0)
            rows.append((g0 * v1 / total, g1 * v0 / total, math.sqrt(max(v0 * v1 / total, 0.0))))
        return torch.tensor(rows, dtype=torch.float64).T


def _normal(shape: tuple[int, ...], generator: Generator, dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, generator=generator, device=generator.device, dtype=dtype)


def simulate(
    process: Process,
    model: Controlled,
    shape: tuple[int, ...],
    generator: Generator,
    guide: Guide | None = None,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """A batch of controlled paths of shape (*b, D), forward from `process.start`.

    Differentiable in the model unless called under `torch.no_grad`; `guide` is charged K points a
    path and its hints are detached."""
    x = process.start(shape, generator, dtype)
    t = process.grid(x)
    root = t.diff().sqrt().tolist()
    control = model.on_grid(t[:-1])
    xs, means, us, stds, hints = [x], [], [], [], []
    for k in range(process.steps):
        mean, std = process.base(x, k)
        hint = guide(x.detach()) if guide else None
        u = control(x, k, hint)
        x = mean + std * (root[k] * u + _normal(shape, generator, dtype))
        xs.append(x)
        means.append(mean)
        us.append(u)
        stds.append(std)
        if hint is not None:
            hints.append(hint)
    return Path(
        t,
        torch.stack(xs),
        torch.stack(means),
        torch.tensor(stds, dtype=dtype, device=x.device),
        torch.stack(us),
        torch.stack(hints) if hints else None,
    )


def retrace(
    process: Process,
    model: Controlled,
    x_end: Float[Tensor, "*b d"],
    generator: Generator,
    guide: Guide | None = None,
) -> Path:
    """Paths that end at x_end, drawn backward with `process.backward`, with the model's control."""
    xs = [x_end]
    for k in reversed(range(process.steps)):
        mean, std = process.backward(xs[-1], k)
        xs.append(mean + std * _normal(x_end.shape, generator, x_end.dtype))
    x = torch.stack(xs[::-1])
    kernels = [process.base(x[k], k) for k in range(process.steps)]
    path = Path(
        process.grid(x),
        x,
        torch.stack([kernel.mean for kernel in kernels]),
        torch.tensor([kernel.std for kernel in kernels], dtype=x.dtype, device=x.device),
        x[:-1],
        guide(x[:-1]) if guide else None,
    )
    return path._replace(u=along(model, path))


def along(model: Controlled, path: Path) -> Float[Tensor, "k *b d"]:
    """The model's control at every point of a path, in one batch."""
    t = path.t[:-1].reshape(-1, *[1] * (path.x.dim() - 2))
    return model.control(path.x[:-1], t, path.hint)
