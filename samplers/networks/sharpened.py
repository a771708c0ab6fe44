"""A perceptron that sees its points enlarged: what is narrow beside the base is learnt sooner."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Generator

from tiltbench.samplers.networks.coordinatewise import Coordinatewise, CoordinatewiseGuided
from tiltbench.samplers.networks.gated import Gated
from tiltbench.samplers.networks.model import Model, Network
from tiltbench.samplers.networks.perceptron import Guided, Mlp, Potential
from tiltbench.targets.bases.process import Process

ENLARGED = (Mlp, Guided, Gated, Potential, Coordinatewise, CoordinatewiseGuided)


@dataclass(frozen=True)
class Sharpened(Network):
    """`network` with its input x / spread multiplied by `factor`; nothing else of it changes.

    Layers start with weights of order one, so that a perceptron begins as a function that varies
    over the spread of the base and learns finer detail slowly (spectral bias, arXiv 1806.08734).
    Where modes are a tenth as wide as the base, `factor` = 4 starts it nearer to what is wanted; a
    single Fourier feature's frequency would be raised by the same (arXiv 2006.10739).
    """

    name: ClassVar[str] = "Sharpened"
    network: Network = Mlp()
    factor: float = 4.0

    def __post_init__(self) -> None:
        if not isinstance(self.network, ENLARGED):
            names = [each.name for each in ENLARGED]
            raise ValueError(
                f"network is {self.network.name}; it must be {', '.join(names[:-1])} or "
                f"{names[-1]}, whose input is x / spread"
            )
        if not 0 < self.factor < math.inf:
            raise ValueError(f"factor is {self.factor}; it must be positive and finite")

    def build(self, dim: int, process: Process, generator: Generator) -> Model:
        model = self.network.build(dim, process, generator)
        field: Any = model.network.field
        field.inverse_spread *= self.factor
        return model
