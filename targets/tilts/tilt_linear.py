"""A Gaussian mixture tilted by a linear reward: everything is closed form."""

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


@dataclass(frozen=True)
class TiltLinear(Tilt):
    """r = c.x on the base .4 N((-1.5, 0), .3 I) + .6 N((1.5, .5), .2 I), c = (.8, -.5): math.md 11.

    log Z = 0.606237, E X = (1.44073, 0.35870); the smaller mode keeps .075 of the mass.  In
    coordinates i = 3, 4, ... the means are -+0.5 cos(i) and c_i = 0.3 sin(i).  ess of the base's
    own draws, Z^2 / E exp 2r: .58, .54 and .39 in D = 2, 10 and 50.
    """

    name = "tilt_linear"
    dim: int = 2
    schedule: Schedule = RectifiedFlow()
    stepping: Stepping = Ancestral()
    steps: int = 50
    test_value = 0.832409841858508

    def __post_init__(self) -> None:
        _ = self.base  # refuses what cannot be a base

    @cached_property
    def base(self) -> MixtureFlow:  # type: ignore[override]
        means = pair_means(self.dim)
        return MixtureFlow(WEIGHTS, means, VARIANCES, self.schedule, self.stepping, self.steps)

    @cached_property
    def slope(self) -> tuple[float, ...]:
        return extended((0.8, -0.5), 0.3, self.dim)

    def reward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
        return x @ constant(self.slope, x)

    def reward_and_grad(
        self, x: Float[Tensor, "*b d"]
    ) -> tuple[Float[Tensor, " *b"], Float[Tensor, "*b d"]]:
        x = x.detach()
        return self.reward(x), constant(self.slope, x).expand_as(x).clone()

    @cached_property
    def _tilted(self) -> tuple[float, Components]:
        return self.base.law.tilted_linear(torch.tensor(self.slope, dtype=torch.float64))

    @property
    def scale(self) -> float:  # type: ignore[override]
        return rms(self._tilted[1])

    def truth(self) -> Truth:
        log_Z, law = self._tilted
        modes = halves(law)
        first = share(modes, torch.tensor([True, False]))
        return mixture_truth(law, log_Z, modes, self._log_Z_along, first_mode=first)

    def _log_Z_along(self, signal: float, noise: float, strength: float) -> float:
        slope = strength * torch.tensor(self.slope, dtype=torch.float64)
        return self.base.law.noised(signal, noise).tilted_linear(slope)[0]
