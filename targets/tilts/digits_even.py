"""Pretrained digits tilted towards the even ones."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from tiltbench.targets.digits.digits import log_classes
from tiltbench.targets.tilts._digits import DigitsTilt, check_strength


@dataclass(frozen=True)
class DigitsEven(DigitsTilt):
    """r(x) = strength log P(the digit is 0, 2, 4, 6 or 8 | x), with the base and the classifier of
    `digits_class`: five modes to be kept in the proportions of the base, Z about a half.
    """

    name = "digits_even"
    strength: float = 1.0
    test_value = -3.47802470354319

    def __post_init__(self) -> None:
        super().__post_init__()
        check_strength(self.strength)

    def reward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
        return self.strength * log_classes(x)[..., ::2].logsumexp(-1)
