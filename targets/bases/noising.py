"""Processes whose law at every time is the noised law of the end: flows and diffusions.

    X_t | X_1 ~ N(alpha_t X_1, beta_t^2 I) under the base, alpha and beta of an interpolant (math.md
    2).  Everything is said on the grid: k is a step, an int or a LongTensor of indices (*b).

With kappa = alpha'/alpha the memoryless noise is sigma^2 = 2 eta, eta = kappa beta^2 - (beta^2)'/2.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from tiltbench.targets.bases.process import Additive
from tiltbench.targets.constants import constant

Step = int | Int[Tensor, "*b"]
Current = tuple[Tensor, Tensor]  # (velocity, score), (*b, d) each


class Side(NamedTuple):
    """The points on one side of k steps, and what drives them there."""

    x: Float[Tensor, "k *b d"]
    velocity: Float[Tensor, "k *b d"]
    score: Float[Tensor, "k *b d"]
    carried: Float[Tensor, "k *b d"]  # an escort's w


def pick(values: Sequence[float], k: Step, like: Tensor) -> float | Tensor:
    """values[k] as a number, or as (*b, 1) beside points (*b, d) where k holds indices."""
    if isinstance(k, int):
        return values[k]
    return constant(values, like)[k][..., None]


class Noising(Additive):
    """A base of which denoiser and score are known at the times of its grid."""

    @abstractmethod
    def signal(self, t: float) -> float:
        """alpha_t."""

    @abstractmethod
    def noise(self, t: float) -> float:
        """beta_t."""

    @property
    @abstractmethod
    def rates(self) -> list[tuple[float, float]]:
        """(d alpha/dt, d beta^2/dt) at every time of the grid."""

    @property
    @abstractmethod
    def lifts(self) -> list[float]:
        """What turns a displacement of the denoiser into control units at each step k < K: a chain
        steered to X_1 exactly has u = lift_k (X_1 - denoise(x, k)), so u* is the mean of that."""

    @abstractmethod
    def denoise(self, x: Float[Tensor, "*b d"], k: Step) -> Float[Tensor, "*b d"]:
        """E_base[X_1 | X_{t_k} = x]."""

    @abstractmethod
    def score(self, x: Float[Tensor, "*b d"], k: Step) -> Float[Tensor, "*b d"]:
        """grad log p_{t_k}(x)."""

    @abstractmethod
    def denoise_rate(self, x: Float[Tensor, "*b d"], k: Step) -> Float[Tensor, "*b d"]:
        """d/dt E_base[X_1 | X_t = x] at t = t_k, x held fixed."""

    def bound(self, x: Float[Tensor, "*b d"], k: Step) -> Float[Tensor, "*b d"]:
        """Where the base's flow carries x from t_k to t = 1: here the mean of X_1, which on a
        rectified flow is one Euler step of all that is left; exact where the law is Gaussian."""
        return self.denoise(x, k)

    def bound_rate(self, x: Float[Tensor, "*b d"], k: Step) -> Float[Tensor, "*b d"]:
        """d/dt of `bound` at t = t_k, x held fixed."""
        return self.denoise_rate(x, k)

    @property
    def still(self) -> bool:
        """Whether p_t is the same at all times, so that `bound` is x itself."""
        return False

    @cached_property
    def mean_squares(self) -> list[float]:
        """E|X_t|^2 / d of the base, alpha_t^2 spread^2 + beta_t^2, at every time of the grid."""
        levels = zip(self.signals, self.noises, strict=True)
        return [alpha**2 * self.spread**2 + beta**2 for alpha, beta in levels]

    @property
    @abstractmethod
    def memory(self) -> float:
        """corr(X_0, X_1), for a Gaussian end of the base's spread: 0 is memoryless."""

    @cached_property
    def signals(self) -> list[float]:
        return [self.signal(t) for t in self.times]

    @cached_property
    def noises(self) -> list[float]:
        return [self.noise(t) for t in self.times]

    def velocity(self, x: Float[Tensor, "*b d"], k: Step) -> Float[Tensor, "*b d"]:
        """v = alpha' E[X_1|x] - (beta^2)'/2 score: the probability flow, finite at both ends."""
        return self.current(x, k)[0]

    def current(
        self, x: Float[Tensor, "*b d"], k: Step
    ) -> tuple[Float[Tensor, "*b d"], Float[Tensor, "*b d"]]:
        """(velocity, score), for one call of each closed form."""
        first = pick([rate for rate, _ in self.rates], k, x)
        second = pick([rate for _, rate in self.rates], k, x)
        score = self.score(x, k)
        return first * self.denoise(x, k) - second / 2 * score, score

    def carried(
        self, x: Float[Tensor, "*b d"], k: int, dt: float, climb: float
    ) -> tuple[Float[Tensor, "*b d"], Current | None]:
        """x + dt velocity + climb score, and the two where they were worked out for it."""
        now = self.current(x, k)
        return torch.add(torch.add(x, now[0], alpha=dt), now[1], alpha=climb), now

    def currents(
        self, x: Float[Tensor, " k1 *b d"], met: list[Current | None]
    ) -> tuple[Float[Tensor, " k1 *b d"], Float[Tensor, " k1 *b d"]]:
        """(velocity, score) at all points of a path, of what `carried` has answered along it."""
        velocity, score = zip(*(now for now in met if now is not None), strict=True)
        return torch.stack(velocity), torch.stack(score)

    def renoise(
        self, x1: Float[Tensor, "*b d"], k: Step, generator: Generator
    ) -> Float[Tensor, "*b d"]:
        """X_{t_k} | X_1."""
        mean = pick(self.signals, k, x1) * x1
        return mean + pick(self.noises, k, x1) * self.normal(tuple(x1.shape), generator, x1.dtype)

    def steer(
        self, x: Float[Tensor, "*b d"], k: Step, x1: Float[Tensor, "*b d"]
    ) -> Float[Tensor, "*b d"]:
        """sigma (grad log p(x_t|x_1) - score) in the discrete chain's own units: what a control is
        regressed on given the end point (conditional score matching)."""
        return pick(self.lifts, k, x) * (x1 - self.denoise(x, k))

    def log_ends(self, x: Float[Tensor, "k1 *b d"]) -> Float[Tensor, " *b"] | None:
        """log p_base(x_K) - log p_0(x_0) along paths, float64; None where the one is not known, or
        where `log_change` has it already."""
        return None

    def log_change(
        self,
        x: Float[Tensor, " k1 *b d"],
        velocity: Float[Tensor, " k1 *b d"],
        score: Float[Tensor, " k1 *b d"],
        carried: Float[Tensor, " k1 *b d"],
        dt: Float[Tensor, " k"],
        eps: Float[Tensor, " k"],
    ) -> Float[Tensor, " k1 *b"]:
        """log p_{t_k}(x_k) - log p_0(x_0) along paths with an escort w = `carried`, float64."""
        along = (x, velocity, score, carried)
        start, end = Side(*(of[:-1] for of in along)), Side(*(of[1:] for of in along))
        each = self.log_steps(start, end, dt, eps)
        return torch.cat([torch.zeros_like(each[:1]), each.cumsum(0)])

    def log_steps(
        self,
        start: Side,
        end: Side,
        dt: Float[Tensor, " k"],
        eps: Float[Tensor, " k"],
        first: int = 0,
    ) -> Float[Tensor, " k *b"]:
        """log p_{t_{j+1}}(end_j) - log p_{t_j}(start_j) of the steps j = first, first + 1, ...

        From the base's own kernels, drifts v +- eps score, for steps less w dt, and score . w dt
        for these: right in the mean of its exponential as dt -> 0 only (math.md 5.3, where w dt is
        left in the steps: the same limit, with a bias of order dt / eps that training can exploit).
        A base that knows its density overrides it and is exact."""
        lead = [1] * (start.x.dim() - 1)
        step, push = (v.reshape(-1, *lead).to(start.x) for v in (dt, eps))
        mean_w = (start.carried + end.carried) / 2
        climbed = (step * mean_w * (start.score + end.score) / 2).sum(-1).double()
        ahead, behind = start.velocity + push * start.score, end.velocity - push * end.score
        return climbed - turns(end.x - start.x - step * mean_w, ahead, behind, dt, eps)


def turn(
    moved: Float[Tensor, "k *b d"],
    ahead: Float[Tensor, "k *b d"],
    behind: Float[Tensor, "k *b d"],
    dt: Float[Tensor, " k"],
    eps: Float[Tensor, " k"],
) -> Float[Tensor, " k1 *b"]:
    """The sum of `turns` up to every k: how much likelier a path is backward."""
    each = turns(moved, ahead, behind, dt, eps)
    return torch.cat([torch.zeros_like(each[:1]), each.cumsum(0)])


def turns(
    moved: Float[Tensor, "k *b d"],
    ahead: Float[Tensor, "k *b d"],
    behind: Float[Tensor, "k *b d"],
    dt: Float[Tensor, " k"],
    eps: Float[Tensor, " k"],
) -> Float[Tensor, " k *b"]:
    """log N(x_j; x_{j+1} - behind_j dt, 2 eps dt) - log N(x_{j+1}; x_j + ahead_j dt, ..) of steps
    `moved` = x_{j+1} - x_j, float64: how much likelier a step is backward.

    The difference of the squares is taken as a product, which does not cancel in float32."""
    step = dt.reshape(-1, *[1] * (moved.dim() - 1)).to(moved)
    product = (behind - ahead) * (2 * moved - (ahead + behind) * step)
    return product.sum(-1).double() / (4 * eps.double()).reshape(-1, *[1] * (moved.dim() - 2))


class Known(Noising):
    """A base whose terminal density is known: classical methods need it."""

    @abstractmethod
    def log_end(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
        """log p_base, normalised."""

    @abstractmethod
    def end(
        self, shape: tuple[int, ...], generator: Generator, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Exact draws of X_1 under the base."""

    @abstractmethod
    def posterior(
        self, x: Float[Tensor, "*b d"], k: Int[Tensor, " *b"], generator: Generator
    ) -> Float[Tensor, "*b d"]:
        """Exact draws of X_1 | X_{t_k} = x under the base."""
