"""A base known at every time, and not on its grid alone: what its probability flow needs.

In coordinates y = X_t / size_t of unit variance every noising is the trigonometric one,

    y = sin(angle) X_1 / spread + cos(angle) xi,    tan(angle) = alpha_t spread / beta_t,

whatever its schedule.  The angle turns from about 0 to pi/2, and along it the probability flow is

    dy / d angle = cos(angle) E[X_1 | y] / spread - sin(angle) E[xi | y],

which is finite at both ends, at a start from a point too (there y_0 ~ N(0, I), although X_0 = 0).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from tiltbench.targets.bases.noising import Noising

HALVINGS = 60  # of [0, 1], to find the time of an angle


class Moment(NamedTuple):
    """A time t, at which y = X_t / size = signal X_1 + noise xi."""

    t: float
    signal: float
    noise: float
    size: float


class Continuous(Noising):
    """A `Noising` of which denoiser and control are known between the times of its grid."""

    @abstractmethod
    def ends(self, y: Float[Tensor, "*b d"], at: Moment) -> tuple[Tensor, Tensor]:
        """(E[X_1 | y], E[xi | y]), in the dtype of y."""

    @abstractmethod
    def reach(self, t: float) -> float:
        """What turns a control at time t into the displacement of E[X_1 | x] that it stands for:
        1 / lift_k at the times of the grid, and between them that of a step of the chain's length
        taken from t, the last one shorter.  0 at t = 1, and where a control moves nothing."""

    def precise(self) -> Continuous:
        """The same with what it holds of networks in float64."""
        return self

    @property
    def angles(self) -> tuple[float, float]:
        """The first and the last one."""
        return self.angle(0.0), self.angle(1.0)

    def angle(self, t: float) -> float:
        signal, noise = self.signal(t) * self.spread, self.noise(t)
        return math.atan2(signal, noise)  # 0 at a start from a point

    def moment(self, angle: float) -> Moment:
        """The time of an angle, by bisection: alpha_t / beta_t grows."""
        low, high = 0.0, 1.0
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if self.angle(middle) < angle else (low, middle)
        first, last = self.angles
        t = 0.0 if angle <= first else 1.0 if angle >= last else (low + high) / 2
        size = math.hypot(self.signal(t) * self.spread, self.noise(t))
        return Moment(t, math.sin(angle) / self.spread, math.cos(angle), size)
