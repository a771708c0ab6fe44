"""A perceptron that says, at every point, how far to follow the reward's gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.samplers.networks.control import Control
from tiltbench.samplers.networks.model import Model, Network, at_least_one
from tiltbench.samplers.networks.perceptron import Perceptron
from tiltbench.samplers.networks.timed import Guidance
from tiltbench.targets.bases.process import Process, Stepper


@dataclass(frozen=True)
class Gated(Network):
    """u_i = v_i(x, t) + g_i(x, t) h_i,  h = grad r(x) spread clipped to length `clip`.

    v and g are the two halves of one perceptron's output, 0 at first.  `Guided` has one gate for
    all of space at a time, which suits modes of one width.  Where widths differ by orders of
    magnitude, as in a funnel, the noised score is a multiple of grad r that depends on the point:
    exp(v) / (exp(v) + noise^2) of it where the variance is exp(v).  The hint is paid at every
    point.
    """

    name: ClassVar[str] = "Gated"
    width: int = 64
    layers: int = 4
    clip: float = 20.0  # the greatest length of h

    def __post_init__(self) -> None:
        at_least_one(self, "width", "layers")
        if not 0 < self.clip < math.inf:
            raise ValueError(f"clip is {self.clip}; it must be positive and finite")

    def build(self, dim: int, process: Process, generator: Generator) -> Model:
        field = Perceptron(self.width, self.layers, dim, 2 * dim, process, generator)
        return Model(_Gating(field, process, self.clip)).to(generator.device)


@final
class _Gating(Control):
    guided = True

    def __init__(self, field: Perceptron, process: Process, clip: float) -> None:
        super().__init__()
        self.field, self.guidance = field, Guidance(clip, process.spread)
        self.project = process.project

    def control(
        self, x: Float[Tensor, "*b d"], t: Tensor, hint: Tensor | None = None
    ) -> Float[Tensor, "*b d"]:
        self.count(x)
        return self._both(self.field(x, self.field.embed(t, x)), hint)

    def on_grid(self, t: Float[Tensor, " k"]) -> Stepper:
        field = self.field.along(self.field.embed(t, t))

        def step(x: Tensor, k: int | Tensor, hint: Tensor | None) -> Tensor:
            self.count(x)
            return self._both(field(x, k), hint)

        return step

    def _both(self, out: Float[Tensor, "*b o"], hint: Tensor | None) -> Float[Tensor, "*b d"]:
        free, gate = out.chunk(2, dim=-1)
        return self.project(free + self.guidance.term(hint, gate))
