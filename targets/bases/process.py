"""A base process is a grid of Gaussian kernels; a control shifts their means.

    dX = b(X, t) dt + sigma(t) dW  on  0 = t_0 < ... < t_K = 1,    X_0 ~ p_0,  X_1 ~ p_base,

stepped by X_{k+1} | X_k ~ N(m_k(X_k) + std_k sqrt(dt_k) u, std_k^2 I).  The controlled chain is
weighed against the base *chain*, so that E_u[exp log_w] = Z holds exactly at any number of steps
for any control (math.md 5.1).
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.targets.constants import constant
from tiltbench.targets.target import Groups


class Kernel(NamedTuple):
    """N(mean, std^2 I)."""

    mean: Float[Tensor, "*b d"]
    std: float


@dataclass(frozen=True, eq=False)
class Path:
    """A simulated batch and all that is needed to weigh it again for free: K steps, K+1 points."""

    t: Float[Tensor, " k1"]
    x: Float[Tensor, "k1 *b d"]
    mean: Float[Tensor, "k *b d"]  # of the base kernel
    std: Float[Tensor, " k"]
    u: Float[Tensor, "k *b d"]  # the control it was simulated (or retraced) with
    hint: Float[Tensor, "k *b d"] | None = None  # paid reward gradients, for guided controls
    excess: Float[Tensor, " *b"] | None = None
    # log dP^sim/dP^u, float64, where the law that simulated is not that of u

    @cached_property
    def dt(self) -> Float[Tensor, " k"]:
        return self.t.diff()


class Controlled(ABC):
    """What `simulate` needs of a model."""

    @abstractmethod
    def control(
        self, x: Float[Tensor, "*b d"], t: Tensor, hint: Tensor | None = None
    ) -> Float[Tensor, "*b d"]:
        """u(x, t), with t broadcastable to x.shape[:-1]."""

    def on_grid(self, t: Float[Tensor, " k"]) -> Stepper:
        """(x, k, hint) -> u(x, t_k), k an int or indices (*b): whatever depends on time alone may
        be worked out once."""
        return lambda x, k, hint: self.control(x, t[k], hint)


class Uncontrolled(Controlled):
    """u = 0: the base itself."""

    def control(
        self, x: Float[Tensor, "*b d"], t: Tensor, hint: Tensor | None = None
    ) -> Float[Tensor, "*b d"]:
        return torch.zeros_like(x)


Stepper = Callable[[Tensor, int | Tensor, Tensor | None], Tensor]
Guide = Callable[[Tensor], Tensor]  # (*b, D) -> (*b, D): a paid hint for guided models


class Process(ABC):
    """A Markov chain of Gaussian kernels with a start and an exactly weighable reversal."""

    steps: int
    path: ClassVar[type[Path]] = Path  # what its paths are, where one is put together again

    @property
    def removed(self) -> int:
        """D less the dimension of the subspace on which the process lives."""
        return 0

    @property
    def lattice(self) -> tuple[int, ...] | None:
        """The sides of the periodic lattice whose fields it moves, row-major, where there is one:
        networks read it, the process itself does not."""
        return None

    @property
    def alike(self) -> Groups | None:
        """The groups of like particles that the target states (`Target.alike`), for networks; None
        where nothing is known of any."""
        return None

    @property
    def chiral(self) -> bool:
        """Whether the target tells mirror images apart, for networks."""
        return False

    def project(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """The orthogonal projection onto that subspace: of start, noise, momenta and controls."""
        return x

    def normal(self, shape: tuple[int, ...], generator: Generator, dtype: torch.dtype) -> Tensor:
        """Standard normal draws on that subspace."""
        return self.project(normal(shape, generator, dtype))

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

    def log_law_over_chain(self, path: Path) -> Float[Tensor, " *b"]:
        """log dQ/dP of each path, float64: P the chain without control, Q paths that end in p_base
        itself and are traced back by `backward`.  0 where the chain ends in p_base.

        With log_w = r(x_K) - log_ratio + log_law_over_chain, E_u[exp log_w] is Z =
        E_{p_base}[exp r], and along paths traced back from p* E[exp -log_w] = 1/Z, at any number of
        steps; without the last term Z is that of the chain (math.md 5.1)."""
        return path.x.new_zeros(path.x.shape[1:-1], dtype=torch.float64)

    def running_cost(self, path: Path) -> Float[Tensor, " *b"]:
        """What has the mean of `log_ratio` under the control, with the least variance known."""
        return self.log_ratio(path)

    def under(self, model: Controlled, path: Path) -> Path:
        """The path through the same points, were they those of the model."""
        return replace(path, u=along(model, path))

    def tempered(self, path: Path, factor: Tensor) -> Path:
        """A path through the same points, had r been larger by `factor`."""
        return path if path.hint is None else replace(path, hint=factor * path.hint)

    def grid(self, like: Tensor) -> Float[Tensor, " k1"]:
        """The times beside `like`: do not write to them."""
        return constant(self.times, like)

    @property
    def roots(self) -> list[float]:
        """sqrt(dt_k) of every step."""
        return [math.sqrt(t - s) for s, t in itertools.pairwise(self.times)]

    @property
    def reversed_exactly(self) -> bool:
        """Whether paths traced back by `backward` from exact draws of the tilt, weighed with
        `log_law_over_chain`, have E[exp -log_w] = 1/Z at this number of steps."""
        return True

    def pull_back(self, x: Float[Tensor, "*b d"], k: int, a: Tensor) -> Tensor:
        """(d m_k / d x)^T a at x = X_k: one step of the lean adjoint (math.md 4), a VJP."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(self.base(x, k).mean, x, a)[0]

    def remembering(self) -> Process:
        """This process for one batch of paths: of what it works out while they are simulated it
        keeps, as far as memory allows, what their `pull_backs` will ask for."""
        return self

    def pull_backs(self, x: Float[Tensor, "k1 *b d"]) -> Callable[[int, Tensor], Tensor]:
        """(k, a) -> pull_back(x_k, k, a) along paths: what does not depend on a may be worked out
        for all points at once."""
        return lambda k, a: self.pull_back(x[k], k, a)

    def adjoints(
        self, x: Float[Tensor, "k1 *b d"], a: Float[Tensor, "*b d"]
    ) -> Float[Tensor, "k *b d"]:
        """The lean adjoint at t_1, ..., t_K along paths, a at t_K."""
        rows, back = [a], self.pull_backs(x)
        for k in range(self.steps - 1, 0, -1):
            rows.append(back(k, rows[-1]))
        return torch.stack(rows[::-1])


class Additive(Process):
    """Processes whose control adds std sqrt(dt) u to the base mean and is weighed by Girsanov."""

    def log_ratio(self, path: Path) -> Float[Tensor, " *b"]:
        """sum_k sqrt(dt_k) u_k . z_k - dt_k |u_k|^2 / 2 with z_k = (x_{k+1} - mean_k) / std_k.

        The logarithm of the ratio of the Gaussian kernels: exact in discrete time.  Summed over
        time in float64; differentiable in path.u and path.x."""
        (pull, cross), (cost, energy) = _girsanov(path)
        return _over_time(pull, cross) - _over_time(cost, energy)

    def log_ratios(self, path: Path) -> Float[Tensor, " k *b"]:
        """The terms of `log_ratio`, that of every step by itself."""
        lead = (-1, *[1] * (path.x.dim() - 2))
        (pull, cross), (cost, energy) = _girsanov(path)
        return pull.reshape(lead) * cross - cost.reshape(lead) * energy

    def running_cost(self, path: Path) -> Float[Tensor, " *b"]:
        """int 1/2 |u|^2 dt: log_ratio less the noise, whose mean is 0 at the present control."""
        energy = path.u.square().sum(-1)
        return _over_time(path.dt.to(energy) / 2, energy)


def _girsanov(path: Path) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """What the terms of Girsanov's formula are made of, each as weights (K,) and values (K, *b)."""
    dt, ahead = path.dt.double(), path.x[1:] - path.mean
    cross, energy = (path.u * ahead).sum(-1), path.u.square().sum(-1)
    return (dt.sqrt() / path.std.double(), cross.double()), (dt / 2, energy.double())


def _over_time(weight: Tensor, values: Tensor) -> Tensor:
    return torch.tensordot(weight, values, dims=([0], [0]))


def log_normal(
    x: Float[Tensor, "*b d"], mean: Float[Tensor, "*b d"] | float, std: float, rank: int
) -> Float[Tensor, " *b"]:
    """log N(x; mean, std^2 I) in `rank` dimensions, float64."""
    far = (x - mean).double().square().sum(-1)
    return far / (-2 * std * std) - rank * math.log(std * math.sqrt(2 * math.pi))


def normal(shape: tuple[int, ...], generator: Generator, dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, generator=generator, device=generator.device, dtype=dtype)


def simulate(
    process: Process,
    model: Controlled,
    shape: tuple[int, ...],
    generator: Generator,
    guide: Guide | None = None,
    dtype: torch.dtype = torch.float32,
    widened: float = 1.0,
) -> Path:
    """A batch of controlled paths of shape (*b, D), forward from `process.start`.

    Differentiable in the model unless called under `torch.no_grad`; `guide` is charged K points a
    path and its hints are detached.  The noise of every step is multiplied by `widened`, which the
    path's `std` does not tell."""
    x = process.start(shape, generator, dtype)
    t = process.grid(x).clone()  # a path is its owner's
    noise = process.normal((process.steps, *shape), generator, dtype).unbind(0)
    control = model.on_grid(t[:-1])
    xs, means, us, stds, hints = [x], [], [], [], []
    for k, root in enumerate(process.roots):
        mean, std = process.base(x, k)
        hint = guide(x.detach()) if guide else None
        u = control(x, k, hint)
        x = torch.add(torch.add(mean, noise[k], alpha=std * widened), u, alpha=std * root)
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
        constant(stds, x).clone(),
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
    noise = process.normal((process.steps, *x_end.shape), generator, x_end.dtype).unbind(0)
    for k, xi in zip(reversed(range(process.steps)), noise, strict=True):
        mean, std = process.backward(xs[-1], k)
        xs.append(torch.add(mean, xi, alpha=std))
    return passing(process, model, torch.stack(xs[::-1]), guide)


def passing(
    process: Process,
    model: Controlled,
    x: Float[Tensor, "k1 *b d"],
    guide: Guide | None = None,
) -> Path:
    """Paths through the given points of the grid, with the model's control along them."""
    kernels = [process.base(x[k], k) for k in range(process.steps)]
    path = Path(
        process.grid(x).clone(),
        x,
        torch.stack([kernel.mean for kernel in kernels]),
        constant([kernel.std for kernel in kernels], x).clone(),
        x[:-1],
        guide(x[:-1]) if guide else None,
    )
    return replace(path, u=along(model, path))


def along(model: Controlled, path: Path) -> Float[Tensor, "k *b d"]:
    """The model's control at every point that has one, all of `path.u`: in one batch, or without a
    graph ALONG points at a time, or one time, for a network may need a thousand numbers a point."""
    n = len(path.u)
    t = path.t[:n].reshape(-1, *[1] * (path.x.dim() - 2))
    rows = max(ALONG // max(path.x.shape[1:-1].numel(), 1), 1)
    if rows >= n or torch.is_grad_enabled():
        return model.control(path.x[:n], t, path.hint)
    hints = [None] * n if path.hint is None else path.hint.split(rows)
    parts = zip(path.x[:n].split(rows), t.split(rows), hints, strict=False)
    return torch.cat([model.control(*part) for part in parts])


ALONG = 2**15  # as many points as a regression takes with a graph
