"""A Gaussian mixture tilted by a quadratic reward: everything is closed form."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from tiltbench.targets.bases.components import Components
from tiltbench.targets.bases.interpolant import Ancestral, Stepping
from tiltbench.targets.bases.mixture_flow import MixtureFlow
from tiltbench.targets.bases.schedules import RectifiedFlow, Schedule
from tiltbench.targets.constants import constant
from tiltbench.targets.target import Tilt, Truth
from tiltbench.targets.tilts._mixture import mixture_truth, rms, share
from tiltbench.targets.tilts._pair import VARIANCES, WEIGHTS, extended, halves, pair_means

POWER = 1.0  # tau^2


@dataclass(frozen=True)
class TiltQuadratic(Tilt):
    """r = -|x - y|^2 / 2, y = (-.3, 1), on .4 N((-1.5, 0), .3 I) + .6 N((1.5, .5), .2 I).

    log Z = -1.438954; each mode keeps half of the mass.  In coordinates i = 3, 4, ... the means are
    -+0.5 cos(i) and y_i = 0.5 sin(i).  ess of the base's own draws, Z^2 / E exp 2r: .63, .43 and
    .06 in D = 2, 10 and 50.
    """

    name = "tilt_quadratic"
    dim: int = 2
    schedule: Schedule = RectifiedFlow()
    stepping: Stepping = Ancestral()
    steps: int = 50
    test_value = -1.355789913954896

    def __post_init__(self) -> None:
        _ = self.base  # refuses what cannot be a base

    @cached_property
    def base(self) -> MixtureFlow:  # type: ignore[override]
        means = pair_means(self.dim)
        return MixtureFlow(WEIGHTS, means, VARIANCES, self.schedule, self.stepping, self.steps)

    @cached_property
    def centre(self) -> tuple[float, ...]:
        """y."""
        return extended((-0.3, 1.0), 0.5, self.dim)

    def reward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
        return (x - constant(self.centre, x)).square().sum(-1) / (-2 * POWER)

    def reward_and_grad(
        self, x: Float[Tensor, "*b d"]
    ) -> tuple[Float[Tensor, " *b"], Float[Tensor, "*b d"]]:
        off = x.detach() - constant(self.centre, x)
        return off.square().sum(-1) / (-2 * POWER), off / -POWER

    @cached_property
    def _tilted(self) -> tuple[float, Components]:
        return self.base.law.tilted_quadratic(self._y, POWER)

    @property
    def _y(self) -> Tensor:
        return torch.tensor(self.centre, dtype=torch.float64)

    @property
    def scale(self) -> float:  # type: ignore[override]
        return rms(self._tilted[1])

    def truth(self) -> Truth:
        log_Z, law = self._tilted
        modes = halves(law)
        first = share(modes, torch.tensor([True, False]))
        return mixture_truth(law, log_Z, modes, self._log_Z_along, first_mode=first)

    def _log_Z_along(self, signal: float, noise: float, strength: float) -> float:
        return self.base.law.noised(signal, noise).tilted_quadratic(self._y, POWER, strength)[0]
