"""Smooth bijections from R^n onto the supports of parameters, with the logarithm of their Jacobian.

Each maps free numbers u (*b, free) to parameters theta (*b, size).  The density of u is that of
theta times |det d theta / d u|, which `forward` returns as a logarithm.  The formulas are those of
the Stan Reference Manual, section "Constraint transforms".
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

ROUNDING = 1e-6  # of the sum of a simplex: files round their numbers


def logsigmoid(u: Tensor) -> Tensor:
    """log of 1 / (1 + exp(-u)) to the last digit, with derivatives under vmap."""
    return -softplus(-u, threshold=40.0)


@dataclass(frozen=True)
class Transform(ABC):
    """A bijection R^free -> support.

    Where |u| exceeds `reach` the density is put to 0: exponentials of it would lose all digits.  A
    law that is proper has less than exp(-reach) of its mass there, up to a power."""

    name: ClassVar[str]
    reach: ClassVar[float] = math.inf

    @property
    @abstractmethod
    def support(self) -> str:
        """Where theta lives, in words."""

    def free(self, size: int) -> int:
        """The free numbers behind `size` parameters."""
        return size

    @abstractmethod
    def forward(self, u: Float[Tensor, "*b f"]) -> tuple[Float[Tensor, "*b n"], Tensor]:
        """theta (*b, n) and log |det d theta / d u| (*b)."""

    @abstractmethod
    def inverse(self, theta: Float[Tensor, "*b n"]) -> Float[Tensor, "*b f"]:
        """u of theta; NaN or infinite where theta is outside the support."""


@dataclass(frozen=True)
class Identity(Transform):
    """theta = u."""

    name = "identity"
    support = "real"

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return u, u.new_zeros(()).expand(u.shape[:-1])

    def inverse(self, theta: Tensor) -> Tensor:
        return theta


@dataclass(frozen=True)
class Log(Transform):
    """theta = lower + exp u."""

    lower: float = 0.0
    name = "log"
    reach = 100.0

    @property
    def support(self) -> str:
        return f"above {self.lower:g}"

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return self.lower + u.exp(), u.sum(-1)

    def inverse(self, theta: Tensor) -> Tensor:
        return (theta - self.lower).log()


@dataclass(frozen=True)
class Logit(Transform):
    """theta = lower + (upper - lower) / (1 + exp(-u)).

    Raises ValueError where upper is not above lower."""

    lower: float = 0.0
    upper: float = 1.0
    name = "logit"
    reach = 30.0

    def __post_init__(self) -> None:
        if not self.lower < self.upper:
            raise ValueError(f"upper is {self.upper}; it must be above lower, {self.lower}")

    @property
    def support(self) -> str:
        return f"between {self.lower:g} and {self.upper:g}"

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        width = self.upper - self.lower
        slope = math.log(width) + logsigmoid(u) + logsigmoid(-u)
        return self.lower + width * u.sigmoid(), slope.sum(-1)

    def inverse(self, theta: Tensor) -> Tensor:
        return (theta - self.lower).log() - (self.upper - theta).log()


@dataclass(frozen=True)
class Ordered(Transform):
    """theta_1 = u_1 and theta_k = theta_(k-1) + exp u_k."""

    name = "ordered"
    support = "increasing"
    reach = 100.0

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        steps = torch.cat([u[..., :1], u[..., 1:].exp()], -1)
        return steps.cumsum(-1), u[..., 1:].sum(-1)

    def inverse(self, theta: Tensor) -> Tensor:
        return torch.cat([theta[..., :1], theta.diff(dim=-1).log()], -1)


@dataclass(frozen=True)
class PositiveOrdered(Transform):
    """theta_k = exp u_1 + ... + exp u_k."""

    name = "positive ordered"
    support = "positive, increasing"
    reach = 100.0

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return u.exp().cumsum(-1), u.sum(-1)

    def inverse(self, theta: Tensor) -> Tensor:
        first = theta.new_zeros((*theta.shape[:-1], 1))
        return theta.diff(dim=-1, prepend=first).log()


@dataclass(frozen=True)
class Corner(Transform):
    """Positive numbers that sum to less than 1, by stick-breaking: theta_k is the share
    sigmoid(u_k - log(n + 1 - k)) of what theta_1, ..., theta_(k-1) have left of 1."""

    name = "stick-breaking"
    support = "positive, of sum below 1"
    reach = 30.0

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        v = u - self._even(u)
        share, rest = logsigmoid(v), logsigmoid(-v).cumsum(-1)
        before = torch.cat([torch.zeros_like(rest[..., :1]), rest[..., :-1]], -1)
        return (share + before).exp(), (share + rest).sum(-1)

    def inverse(self, theta: Tensor) -> Tensor:
        rest = 1 - theta.cumsum(-1)
        return theta.log() - rest.log() + self._even(theta)

    @staticmethod
    def _even(u: Tensor) -> Tensor:
        """log(n), ..., log(1), by which u = 0 is the middle."""
        n = u.shape[-1]
        return torch.arange(n, 0, -1, dtype=u.dtype, device=u.device).log()


@dataclass(frozen=True)
class Simplex(Transform):
    """Positive numbers that sum to 1: a `Corner` and what is left.  The Jacobian is that of all
    but the last."""

    name = "simplex"
    support = "positive, of sum 1"
    reach = 30.0

    def free(self, size: int) -> int:
        return size - 1

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        first, slope = Corner().forward(u)
        rest = logsigmoid(Corner._even(u) - u).sum(-1, keepdim=True)
        return torch.cat([first, rest.exp()], -1), slope

    def inverse(self, theta: Tensor) -> Tensor:
        rest = theta.flip(-1).cumsum(-1).flip(-1)[..., 1:]
        whole = (theta.sum(-1, keepdim=True) - 1).abs() < ROUNDING
        rest = rest.masked_fill(~whole, torch.nan)
        return theta[..., :-1].log() - rest.log() + Corner._even(rest)


REAL, POSITIVE, UNIT = Identity(), Log(), Logit()
ORDERED, POSITIVE_ORDERED = Ordered(), PositiveOrdered()
CORNER, SIMPLEX = Corner(), Simplex()
