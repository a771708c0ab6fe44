"""A control and beside it the flow of sub-trajectory balance, a scalar function of x and t."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from tiltbench.samplers.networks.model import Model, Network, at_least_one
from tiltbench.samplers.networks.perceptron import Mlp
from tiltbench.samplers.networks.timed import MOST, Field, clock, initialise
from tiltbench.targets.bases.process import Process

NATS = 10.0  # a unit of the last layer: log-flows are tens of nats where controls are of order one


@dataclass(frozen=True)
class Valued(Network):
    """The network `control` and beside it V = NATS squash(MLP(factor x / spread, embedding(t))).

    V + log_Z is the logarithm of the flow relative to the base's density, log E_base[exp r(X_1) |
    X_t = x] at the optimum (sub-trajectory balance).  V starts at 0 and stays within 500 nats.
    `width`, `layers` and `factor`, which is that of `Sharpened`, are of V alone; SiLU between
    layers.
    """

    name: ClassVar[str] = "Valued"
    flows: ClassVar[bool] = True
    width: int = 32
    layers: int = 3
    factor: float = 1.0
    control: Network = Mlp()

    def __post_init__(self) -> None:
        at_least_one(self, "width", "layers")
        if self.control.flows:
            raise ValueError(
                f"control is {self.control.name}, which has a flow of its own that nothing would "
                "train: use its control alone"
            )
        if not 0 < self.factor < math.inf:
            raise ValueError(f"factor is {self.factor}; it must be positive and finite")

    def build(self, dim: int, process: Process, generator: Generator) -> Model:
        model = self.control.build(dim, process, generator)
        flow = _Flow(self, dim, process, generator)
        return Model(model.network, model.correction, model.energy, flow)


class _Flow(nn.Module):
    def __init__(self, spec: Valued, dim: int, process: Process, generator: Generator) -> None:
        super().__init__()
        self.field = _Height(spec, dim, process, generator)

    def forward(self, x: Float[Tensor, "*b d"], t: Tensor) -> Float[Tensor, " *b"]:
        height: Tensor = self.field(x, self.field.embed(t, x))
        return NATS * height[..., 0]


class _Height(Field):
    def __init__(self, spec: Valued, dim: int, process: Process, generator: Generator) -> None:
        super().__init__()
        self.inverse_spread = spec.factor / process.spread
        self.state = nn.Linear(dim, spec.width)
        self.time = clock(spec.width)
        self.hidden = nn.ModuleList(
            [nn.Linear(spec.width, spec.width) for _ in range(spec.layers - 1)]
        )
        self.out = nn.Linear(spec.width, 1)
        self.to(generator.device)
        initialise(self, generator)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Float[Tensor, "*b d"], embedding: Tensor) -> Float[Tensor, "*b 1"]:
        h = nn.functional.linear(x, self.state.weight * self.inverse_spread)
        h = nn.functional.silu(h + (embedding + self.state.bias))
        for layer in self.hidden:
            h = nn.functional.silu(layer(h))
        return MOST * torch.tanh(self.out(h) / MOST)
