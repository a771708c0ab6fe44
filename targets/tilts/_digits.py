"""What tilts of the digits share: the base, what draws are compared in, and where truth is from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from jaxtyping import Float
from torch import Tensor

from tiltbench.targets.bases.interpolant import Ancestral, Stepping
from tiltbench.targets.bases.pretrained import Pretrained
from tiltbench.targets.bases.schedules import RectifiedFlow, Schedule
from tiltbench.targets.digits.digits import DIM, SIDE, SPREAD, digits, features
from tiltbench.targets.digits.pool import tilted
from tiltbench.targets.target import Tilt, Truth

STRONGEST = 1e3  # beyond it the rounding of the classifier's float32 shows in the truth
POOLED = (RectifiedFlow(), Ancestral(), 50)  # the chain whose draws are stored


@dataclass(frozen=True)
class DigitsTilt(Tilt):
    """p_base of images of digits in 64 dimensions: flow matching on RectifiedFlow, DDPM on
    VariancePreserving.  Raises ValueError on other schedules."""

    dim = DIM
    scale = SPREAD
    schedule: Schedule = RectifiedFlow()
    stepping: Stepping = Ancestral()
    steps: int = 50

    def __post_init__(self) -> None:
        _ = self.base  # refuses what cannot be a base

    @cached_property
    def base(self) -> Pretrained:  # type: ignore[override]
        return digits(self.schedule, self.stepping, self.steps)

    @property
    def pixels(self) -> tuple[int, int]:
        return SIDE, SIDE

    def features(self, x: Float[Tensor, "*b 64"]) -> Float[Tensor, "*b 128"]:
        return features(x)

    def truth(self) -> Truth:
        """By importance sampling from stored draws of the base; unknown on another base."""
        return self._truth

    @cached_property
    def _truth(self) -> Truth:
        if (self.schedule, self.stepping, self.steps) != POOLED:
            return Truth("unknown: draws are stored of the memoryless flow in 50 steps only")
        return tilted(self.reward)


def check_strength(strength: float) -> None:
    if not 0 < strength <= STRONGEST:
        raise ValueError(f"strength is {strength}; it must be positive, at most {STRONGEST:g}")
