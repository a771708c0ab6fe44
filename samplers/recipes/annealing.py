"""The tilt on its way: r_t with r_0 = 0 and r_1 = r, so that pi_t = p_t exp(r_t) / Z_t."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tiltbench.targets.bases.noising import Noising
from tiltbench.targets.problem import Reward, graded


class Annealed(NamedTuple):
    """What one value and one gradient of r tell of r_t at x."""

    height: Float[Tensor, " *b"]  # r_t
    pull: Float[Tensor, "*b d"]  # grad r_t
    change: Float[Tensor, " *b"]  # d/dt r_t, x held fixed


class Annealing(ABC):
    """A path from no tilt to all of it; a frozen dataclass, `name` registers it."""

    name: ClassVar[str]

    @abstractmethod
    def at(self, base: Noising, reward: Reward, x: Float[Tensor, "*b d"], k: int) -> Annealed:
        """r_t at time t_k of the base's grid, for a value and a gradient a point.

        Differentiable in an x that requires a gradient while gradients are recorded."""


@dataclass(frozen=True)
class Ramp(Annealing):
    """r_t = lambda(t) r(x), lambda = t^2 (3 - 2 t)."""

    name: ClassVar[str] = "Ramp"

    def at(self, base: Noising, reward: Reward, x: Float[Tensor, "*b d"], k: int) -> Annealed:
        share, rate = _ramp(base.times[k])
        r, g = _with_grad(reward, x)
        return Annealed(_times(share, r), share * g, _times(rate, r))


@dataclass(frozen=True)
class ThroughDenoiser(Annealing):
    """r_t = lambda(t) r(E_base[X_1 | X_t = x]): the tilt felt where the path is bound for.

    d/dt r_t = lambda' r(xhat) + lambda grad r(xhat) . d/dt xhat (math.md 5.2)."""

    name: ClassVar[str] = "ThroughDenoiser"

    def at(self, base: Noising, reward: Reward, x: Float[Tensor, "*b d"], k: int) -> Annealed:
        share, rate = _ramp(base.times[k])
        keep = _kept(x)
        with torch.enable_grad():
            y = x if keep else x.detach().requires_grad_()
            end = base.denoise(y, k)
            r, slope = _with_grad(reward, end if keep else end.detach())
            (g,) = torch.autograd.grad(end, y, slope, create_graph=keep)
        moved = (slope * base.denoise_rate(x, k)).sum(-1)
        return Annealed(_times(share, r), share * g, _times(rate, r) + share * moved)


def _ramp(t: float) -> tuple[float, float]:
    """lambda and d lambda / dt."""
    return t * t * (3 - 2 * t), 6 * t * (1 - t)


def _times(number: float, r: Tensor) -> Tensor:
    """number r, with 0 times -inf = 0: no tilt, no wall."""
    return number * r if number else torch.zeros_like(r)


def _kept(x: Tensor) -> bool:
    """Whether a derivative of what is made of x may be asked for."""
    return torch.is_grad_enabled() and x.requires_grad


def _with_grad(reward: Reward, x: Float[Tensor, "*b d"]) -> tuple[Tensor, Tensor]:
    """r(x) and grad r(x), differentiable where x wants it."""
    both = graded(reward)
    return both.recorded(x) if _kept(x) else both.value_and_grad(x)
