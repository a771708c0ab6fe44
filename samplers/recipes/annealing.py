"""The tilt on its way: r_t with r_0 = 0 and r_1 = r, so that pi_t = p_t exp(r_t) / Z_t."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tiltbench.targets.bases.noising import Noising
from tiltbench.targets.constants import constant
from tiltbench.targets.problem import Reward, graded


class Annealed(NamedTuple):
    """What one value and one gradient of r tell of r_t at x, where r_t = share(t) r(y)."""

    r: Float[Tensor, " *b"]  # r(y)
    pull: Float[Tensor, "*b d"]  # grad r_t
    moved: Float[Tensor, " *b"] | None = None  # d/dt r(y), where y is not x itself


class Annealing(ABC):
    """A path from no tilt to all of it; a frozen dataclass, `name` registers it."""

    name: ClassVar[str]

    @abstractmethod
    def at(self, base: Noising, reward: Reward, x: Float[Tensor, "*b d"], k: int) -> Annealed:
        """The tilt at time t_k of the base's grid, for a value and a gradient a point.

        Differentiable in an x that requires a gradient while gradients are recorded."""

    def along(
        self, base: Noising, met: list[Annealed]
    ) -> tuple[Float[Tensor, " k1 *b"], Float[Tensor, " k1 *b"]]:
        """(r_t, d/dt r_t with x held fixed) at all the times of the grid."""
        r = torch.stack([here.r for here in met])
        lead = (-1, *[1] * (r.dim() - 1))
        share, rate = (
            constant(part, r).reshape(lead) for part in zip(*map(_ramp, base.times), strict=True)
        )
        change = _times(rate, r)
        moved = [here.moved for here in met if here.moved is not None]
        if moved:
            change = change + share * torch.stack(moved)
        return _times(share, r), change


@dataclass(frozen=True)
class Ramp(Annealing):
    """r_t = lambda(t) r(x), lambda = t^2 (3 - 2 t)."""

    name: ClassVar[str] = "Ramp"

    def at(self, base: Noising, reward: Reward, x: Float[Tensor, "*b d"], k: int) -> Annealed:
        r, g = _with_grad(reward, x)
        return Annealed(r, _ramp(base.times[k])[0] * g)


class _Ahead(Annealing):
    """r_t = lambda(t) r(y(x, t)): the tilt felt where the path is bound for.

    d/dt r_t = lambda' r(y) + lambda grad r(y) . dy/dt (math.md 5.2)."""

    @abstractmethod
    def ahead(self, base: Noising, x: Float[Tensor, "*b d"], k: int) -> Float[Tensor, "*b d"]:
        """y."""

    @abstractmethod
    def rate(self, base: Noising, x: Float[Tensor, "*b d"], k: int) -> Float[Tensor, "*b d"]:
        """dy/dt, x held fixed."""

    def at(self, base: Noising, reward: Reward, x: Float[Tensor, "*b d"], k: int) -> Annealed:
        keep = _differentiable(x)
        with torch.enable_grad():
            y = x if keep else x.detach().requires_grad_()
            end = self.ahead(base, y, k)
            r, slope = _with_grad(reward, end if keep else end.detach())
            (g,) = torch.autograd.grad(end, y, slope, create_graph=keep)
        moved = (slope * self.rate(base, x, k)).sum(-1)
        return Annealed(r, _ramp(base.times[k])[0] * g, moved)


@dataclass(frozen=True)
class ThroughDenoiser(_Ahead):
    """r_t = lambda(t) r(E_base[X_1 | X_t = x]), lambda = t^2 (3 - 2 t)."""

    name: ClassVar[str] = "ThroughDenoiser"

    def ahead(self, base: Noising, x: Float[Tensor, "*b d"], k: int) -> Float[Tensor, "*b d"]:
        return base.denoise(x, k)

    def rate(self, base: Noising, x: Float[Tensor, "*b d"], k: int) -> Float[Tensor, "*b d"]:
        return base.denoise_rate(x, k)


@dataclass(frozen=True)
class ThroughFlow(_Ahead):
    """r_t = lambda(t) r(y), y where the base's flow carries x (`Noising.bound`).

    On a static base y = x, and it is `Ramp`; on an interpolant it is `ThroughDenoiser`.  A tilt
    that is felt at x itself pulls paths of a flow to places that they have yet to reach."""

    name: ClassVar[str] = "ThroughFlow"

    def at(self, base: Noising, reward: Reward, x: Float[Tensor, "*b d"], k: int) -> Annealed:
        return Ramp().at(base, reward, x, k) if base.still else super().at(base, reward, x, k)

    def ahead(self, base: Noising, x: Float[Tensor, "*b d"], k: int) -> Float[Tensor, "*b d"]:
        return base.bound(x, k)

    def rate(self, base: Noising, x: Float[Tensor, "*b d"], k: int) -> Float[Tensor, "*b d"]:
        return base.bound_rate(x, k)


def height(t: float, r: Float[Tensor, " *b"]) -> Float[Tensor, " *b"]:
    """r_t = lambda(t) r(y), 0 where nothing is tilted yet."""
    share = _ramp(t)[0]
    return share * r if share else torch.zeros_like(r)


def _ramp(t: float) -> tuple[float, float]:
    """lambda and d lambda / dt."""
    return t * t * (3 - 2 * t), 6 * t * (1 - t)


def _times(numbers: Tensor, r: Tensor) -> Tensor:
    """numbers r, with 0 times -inf = 0: no tilt, no wall."""
    return (numbers * r).masked_fill(numbers == 0, 0.0)


def _differentiable(x: Tensor) -> bool:
    """Whether a derivative of what is made of x may be asked for."""
    return torch.is_grad_enabled() and x.requires_grad


def _with_grad(reward: Reward, x: Float[Tensor, "*b d"]) -> tuple[Tensor, Tensor]:
    """r(x) and grad r(x), differentiable where x wants it."""
    both = graded(reward)
    return both.recorded(x) if _differentiable(x) else both.value_and_grad(x)
