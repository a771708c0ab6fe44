"""Controls u(x, t): multilayer perceptrons with time features, unguided and guided."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from tiltbench.samplers.networks.hinted import Hinted, OfField
from tiltbench.samplers.networks.model import Model, Network, at_least_one
from tiltbench.samplers.networks.timed import (
    MOST,
    Along,
    Descent,
    Pushed,
    clock,
    initialise,
)
from tiltbench.targets.bases.process import Process


@dataclass(frozen=True)
class Mlp(OfField):
    """u = squash(MLP(x / spread, embedding(t))): state layer, layers - 1 hidden ones, output; SiLU.

    The embedding (128 Fourier features -> 128 -> width) is evaluated once per time, not per
    point, so the cost of a point is that of the state layers alone.
    """

    name: ClassVar[str] = "Mlp"
    width: int = 64
    layers: int = 4

    def field(self, dim: int, process: Process, generator: Generator, gates: int) -> Perceptron:
        return Perceptron(self.width, self.layers, dim, dim, process, generator, gates)


@dataclass(frozen=True)
class Guided(Hinted, Mlp):
    """u = Mlp(x, t) + gate(t) h,  h = grad r(x) spread clipped to length `clip`, gate(t) learned.

    The hint grad r(x) is paid at every point (one gradient a step).  In the manner of PIS
    (arXiv 2111.15141) and DDS (2302.13834): near t = 1 the optimum is sigma grad r.
    """

    name: ClassVar[str] = "Guided"


@dataclass(frozen=True)
class Potential(Network):
    """u = grad phi / spread, phi = spread^2 squash(MLP(x / spread, embedding(t))): no curl.

    For action matching (NETS, arXiv 2410.02711); a control costs about three times an `Mlp`'s."""

    name: ClassVar[str] = "Potential"
    width: int = 64
    layers: int = 4

    def __post_init__(self) -> None:
        at_least_one(self, "width", "layers")

    def build(self, dim: int, process: Process, generator: Generator) -> Model:
        field = Perceptron(self.width, self.layers, dim, 1, process, generator)
        return Model(Descent(field, process)).to(generator.device)


@dataclass(frozen=True)
class Corrected(Network):
    """The network `control` and beside it h(x) = MLP(x / spread) / spread, which starts at 0.

    h is what the adjoint Schroedinger bridge subtracts from grad log rho at the end (math.md 3,
    arXiv 2506.22565): `width` and `layers` are of h alone, SiLU between layers.
    """

    name: ClassVar[str] = "Corrected"
    width: int = 64
    layers: int = 3
    control: Network = Mlp()

    def __post_init__(self) -> None:
        at_least_one(self, "width", "layers")

    def build(self, dim: int, process: Process, generator: Generator) -> Model:
        model = self.control.build(dim, process, generator)
        correction = _Correction(self, dim, process, generator)
        return Model(model.network, correction, model.energy)


class _Correction(nn.Module):
    def __init__(self, spec: Corrected, dim: int, process: Process, generator: Generator) -> None:
        super().__init__()
        sizes = [dim] + [spec.width] * (spec.layers - 1)
        inner = [nn.Sequential(nn.Linear(a, b), nn.SiLU()) for a, b in itertools.pairwise(sizes)]
        out = nn.Linear(sizes[-1], dim)
        self.spread, self.project = process.spread, process.project
        self.layers = nn.Sequential(*inner, out)
        self.to(generator.device)
        initialise(self, generator)
        nn.init.zeros_(out.weight)
        nn.init.zeros_(out.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.layers(x / self.spread) / self.spread)


class Perceptron(Pushed):
    """MOST tanh(MLP(x / spread, embedding) / MOST), 0 at first."""

    def __init__(
        self,
        width: int,
        layers: int,
        dim: int,
        outputs: int,
        process: Process,
        generator: Generator,
        gates: int = 0,
    ) -> None:
        super().__init__()
        self.inverse_spread = 1 / process.spread
        self.state = nn.Linear(dim, width)
        self.time = clock(width + gates)
        self.hidden = nn.ModuleList([nn.Linear(width, width) for _ in range(layers - 1)])
        self.out = nn.Linear(width, outputs)
        self.to(generator.device)
        initialise(self, generator)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Float[Tensor, "*b d"], embedding: Tensor) -> Float[Tensor, "*b o"]:
        h = nn.functional.linear(x, self.state.weight * self.inverse_spread)
        h = nn.functional.silu(h + (embedding + self.state.bias))
        # backward, a layer takes a third less on a matrix than on a batch of them
        each = h.reshape(-1, h.shape[-1])
        for layer in self.hidden:
            each = nn.functional.silu(layer(each))
        return MOST * torch.tanh(self.out(each) / MOST).reshape(
            *h.shape[:-1], self.out.out_features
        )

    def along(self, embedding: Float[Tensor, "k w"]) -> Along:
        """The scales of x and of the output taken into the layers, the embedding into a bias."""
        first = self.state.weight * self.inverse_spread
        whole = embedding + self.state.bias
        each = whole.unbind(0)
        inner = [(layer.weight, layer.bias) for layer in self._hidden()]
        last, offset = self.out.weight / MOST, self.out.bias / MOST
        linear, silu = nn.functional.linear, nn.functional.silu

        def at(x: Tensor, k: int | Tensor) -> Tensor:
            fresh = not torch.is_grad_enabled()
            if isinstance(k, int):
                h = linear(x, first, each[k])
            else:
                h = linear(x, first) + whole[k]
            h = silu(h, inplace=fresh)
            for weight, bias in inner:
                h = silu(linear(h, weight, bias), inplace=fresh)
            return MOST * torch.tanh(linear(h, last, offset))

        return at

    def _hidden(self) -> Iterator[nn.Linear]:
        return cast(Iterator[nn.Linear], iter(self.hidden))

    def push(
        self,
        x: Float[Tensor, "*b d"],
        embedding: Tensor,
        directions: Float[Tensor, "*c m d"],
        onto: Float[Tensor, "*c m o"],
    ) -> tuple[Float[Tensor, "*b o"], Float[Tensor, "*b m"]]:
        """Tangents pushed forward layer by layer: exact, a fraction of a control a direction."""
        tangent = directions @ (self.state.weight.T * self.inverse_spread)
        h, bent = _silu(self.state(x * self.inverse_spread) + embedding)
        tangent = bent[..., None, :] * tangent
        for layer in self.hidden:
            assert isinstance(layer, nn.Linear)
            h, bent = _silu(layer(h))
            tangent = bent[..., None, :] * nn.functional.linear(tangent, layer.weight)
        squashed = torch.tanh(self.out(h) / MOST)
        slope = onto * (1 - squashed.square())[..., None, :]
        each = (slope * nn.functional.linear(tangent, self.out.weight)).sum(-1)
        return MOST * squashed, each


def _silu(x: Tensor) -> tuple[Tensor, Tensor]:
    """x sigmoid(x) and its derivative."""
    share = torch.sigmoid(x)
    value = x * share
    return value, torch.addcmul(share, value, 1 - share)
