"""Pretrained digits tilted towards one of the ten."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from jaxtyping import Float
from torch import Tensor

from tiltbench.targets.digits import CLASSES, DIM, SPREAD, digits, log_classes
from tiltbench.targets.interpolant import Ancestral, Stepping
from tiltbench.targets.pretrained import Pretrained
from tiltbench.targets.schedules import RectifiedFlow, Schedule
from tiltbench.targets.target import Tilt, Truth


@dataclass(frozen=True)
class DigitsClass(Tilt):
    """r(x) = strength log P(digit | x) by the classifier that ships, on the digits base in 64
    dimensions: flow matching on RectifiedFlow, DDPM on VariancePreserving.

    At strength 1 p* is what the base says of images of this digit, by Bayes, and Z the share of
    them; more asks for clearer ones.  Nothing is known in closed form.
    """

    name = "digits_class"
    dim = DIM
    scale = SPREAD
    digit: int = 3
    strength: float = 1.0
    schedule: Schedule = RectifiedFlow()
    stepping: Stepping = Ancestral()
    steps: int = 50
    test_value = -14.0988710208356

    def __post_init__(self) -> None:
        if self.digit not in range(CLASSES):
            raise ValueError(f"digit is {self.digit}; it must be from 0 to {CLASSES - 1}")
        if not 0 < self.strength < math.inf:
            raise ValueError(f"strength is {self.strength}; it must be positive and finite")
        _ = self.base  # refuses what cannot be a base

    @cached_property
    def base(self) -> Pretrained:  # type: ignore[override]
        return digits(self.schedule, self.stepping, self.steps)

    def reward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
        return self.strength * log_classes(x)[..., self.digit]

    def truth(self) -> Truth:
        return Truth("unknown")
