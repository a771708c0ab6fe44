"""Pretrained digits tilted towards one of the ten."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from tiltbench.targets.digits.digits import CLASSES, log_classes
from tiltbench.targets.tilts._digits import DigitsTilt, check_strength


@dataclass(frozen=True)
class DigitsClass(DigitsTilt):
    """r(x) = strength log P(digit | x) by the classifier that ships, on the digits base.

    At strength 1 p* is what the base says of images of this digit, by Bayes, and Z the share of
    them; more asks for clearer ones.
    """

    name = "digits_class"
    digit: int = 3
    strength: float = 1.0
    test_value = -14.0988710208356

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.digit not in range(CLASSES):
            raise ValueError(f"digit is {self.digit}; it must be from 0 to {CLASSES - 1}")
        check_strength(self.strength)

    def reward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
        return self.strength * log_classes(x)[..., self.digit]
