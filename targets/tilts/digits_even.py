"""Pretrained digits tilted towards the even ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from jaxtyping import Float
from torch import Tensor

from tiltbench.targets.digits import DIM, SPREAD, digits, log_classes
from tiltbench.targets.interpolant import Ancestral, Stepping
from tiltbench.targets.pretrained import Pretrained
from tiltbench.targets.schedules import RectifiedFlow, Schedule
from tiltbench.targets.target import Tilt, Truth


@dataclass(frozen=True)
class DigitsEven(Tilt):
    """r(x) = strength log P(the digit is 0, 2, 4, 6 or 8 | x), with the base and the classifier of
    `digits_class`: five modes to be kept in the proportions of the base, Z about a half.
    """

    name = "digits_even"
    dim = DIM
    scale = SPREAD
    strength: float = 1.0
    schedule: Schedule = RectifiedFlow()
    stepping: Stepping = Ancestral()
    steps: int = 50
    test_value = -3.47802470354319

    def __post_init__(self) -> None:
        if not 0 < self.strength < math.inf:
            raise ValueError(f"strength is {self.strength}; it must be positive and finite")
        _ = self.base  # refuses what cannot be a base

    @cached_property
    def base(self) -> Pretrained:  # type: ignore[override]
        return digits(self.schedule, self.stepping, self.steps)

    def reward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
        return self.strength * log_classes(x)[..., ::2].logsumexp(-1)

    def truth(self) -> Truth:
        return Truth("unknown")
