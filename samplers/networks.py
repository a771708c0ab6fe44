"""Controls u(x, t): multilayer perceptrons with time features, unguided and guided."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from tiltbench.targets.process import Controlled, Process, Stepper

BENDS = 8  # sines that bend the free energy away from a straight line


class Model(nn.Module, Controlled):
    """What is trained: a control and the free energy F(t), F(0) = 0 and F(1) = -log_Z."""

    guided = False  # whether `control` wants grad r(x) as its hint
    forward_points = 0  # points (x, t) at which the control was evaluated, and of those
    backward_points = 0  # the ones whose graph was kept: recorded, never limited

    def __init__(self) -> None:
        super().__init__()
        self.log_Z = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.bend = nn.Parameter(torch.zeros(BENDS, dtype=torch.float64))

    def free_energy(self, t: Tensor) -> Tensor:
        """-t log_Z + sum_j bend_j sin(j pi t), BENDS terms, differentiable in t."""
        waves = torch.arange(1, BENDS + 1, device=t.device) * math.pi
        bends = (self.bend * torch.sin(t.double()[..., None] * waves)).sum(-1)
        return -t * self.log_Z + bends.to(t)

    def free_energy_parameters(self) -> Iterator[nn.Parameter]:
        """What only F depends on: trained at a rate of its own."""
        yield self.log_Z
        yield self.bend


class Network(ABC):
    """The description of a model: a frozen dataclass, `name` registers it."""

    name: ClassVar[str]

    @abstractmethod
    def build(self, dim: int, process: Process, generator: Generator) -> Model:
        """A fresh model on the generator's device, u = 0 at first."""


@dataclass(frozen=True)
class Mlp(Network):
    """u = squash(MLP(x / spread, embedding(t))): state layer, layers - 1 hidden ones, output; SiLU.

    The embedding (128 Fourier features -> 128 -> width) is evaluated once per time, not per
    point, so the cost of a point is that of the state layers alone.
    """

    name: ClassVar[str] = "Mlp"
    width: int = 64
    layers: int = 4

    def __post_init__(self) -> None:
        _at_least_one(self, "width", "layers")

    def build(self, dim: int, process: Process, generator: Generator) -> Model:
        return _Perceptron(self, dim, process, generator)


@dataclass(frozen=True)
class Guided(Network):
    """u = Mlp(x, t) + gate(t) h,  h = grad r(x) spread clipped to length `clip`, gate(t) learned.

    The hint grad r(x) is paid at every point (one gradient a step).  In the manner of PIS
    (arXiv 2111.15141) and DDS (2302.13834): near t = 1 the optimum is sigma grad r.
    """

    name: ClassVar[str] = "Guided"
    width: int = 64
    layers: int = 4
    clip: float = 20.0

    def __post_init__(self) -> None:
        _at_least_one(self, "width", "layers")
        if not self.clip > 0:
            raise ValueError(f"clip is {self.clip}; it must be positive")

    def build(self, dim: int, process: Process, generator: Generator) -> Model:
        return _GuidedPerceptron(self, dim, process, generator)


def _at_least_one(network: Network, *fields: str) -> None:
    for field in fields:
        if getattr(network, field) < 1:
            raise ValueError(f"{field} is {getattr(network, field)}; it must be 1 or more")


FEATURES = 64  # frequencies, each with a sine and a cosine
MOST = 50.0  # |u_i| < MOST: an unbounded control can throw its own paths ever further out


class _Perceptron(Model):
    rate: Tensor
    phase: Tensor

    def __init__(
        self, spec: Mlp | Guided, dim: int, process: Process, generator: Generator, gates: int = 0
    ) -> None:
        super().__init__()
        width = spec.width
        self.inverse_spread = 1 / process.spread
        rate = torch.logspace(-0.5, 2, FEATURES) * math.pi
        self.register_buffer("rate", torch.cat([rate, rate]), persistent=False)
        phase = torch.tensor([0.0, math.pi / 2]).repeat_interleave(FEATURES)
        self.register_buffer("phase", phase, persistent=False)  # a cosine is a sine a quarter on
        self.state = nn.Linear(dim, width)
        self.time = nn.Sequential(
            nn.Linear(2 * FEATURES, 128), nn.SiLU(), nn.Linear(128, width + gates)
        )
        self.hidden = nn.ModuleList([nn.Linear(width, width) for _ in range(spec.layers - 1)])
        self.out = nn.Linear(width, dim)
        self.width = width
        self.to(generator.device)
        _initialise(self, generator)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def embed(self, t: Tensor, like: Tensor) -> Tensor:
        angle = torch.addcmul(self.phase, t.to(like.dtype)[..., None], self.rate)
        return self.time(angle.sin())

    def field(self, x: Tensor, embedding: Tensor) -> Tensor:
        points = math.prod(x.shape[:-1])
        self.forward_points += points
        self.backward_points += points * torch.is_grad_enabled()
        h = nn.functional.silu(self.state(x * self.inverse_spread) + embedding)
        for layer in self.hidden:
            h = nn.functional.silu(layer(h))
        return MOST * torch.tanh(self.out(h) / MOST)

    def control(
        self, x: Float[Tensor, "*b d"], t: Tensor, hint: Tensor | None = None
    ) -> Float[Tensor, "*b d"]:
        return self.steered(x, self.embed(t, x), hint)

    def steered(self, x: Tensor, embedding: Tensor, hint: Tensor | None) -> Tensor:
        """u from an embedded time."""
        return self.field(x, embedding)

    def on_grid(self, t: Float[Tensor, " k"]) -> Stepper:
        embedded = self.embed(t, t).unbind(0)
        return lambda x, k, hint: self.steered(x, embedded[k], hint)


class _GuidedPerceptron(_Perceptron):
    guided = True

    def __init__(self, spec: Guided, dim: int, process: Process, generator: Generator) -> None:
        super().__init__(spec, dim, process, generator, gates=1)
        self.clip = spec.clip
        self.spread = process.spread
        last = self.time[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.weight[-1:].zero_()
            last.bias[-1:].zero_()

    def steered(self, x: Tensor, embedding: Tensor, hint: Tensor | None) -> Tensor:
        if hint is None:
            raise ValueError("a guided control needs the reward's gradient at x as its hint")
        pull = hint * self.spread
        length = pull.norm(dim=-1, keepdim=True)
        pull = pull * (self.clip / length.clamp(min=self.clip))
        return self.field(x, embedding[..., :-1]) + embedding[..., -1:] * pull


def _initialise(module: nn.Module, generator: Generator) -> None:
    """U(-1/sqrt(fan in), 1/sqrt(fan in)), as torch.nn.Linear, but from the given generator."""
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.Linear):
                bound = 1 / math.sqrt(layer.in_features)
                layer.weight.uniform_(-bound, bound, generator=generator)
                layer.bias.uniform_(-bound, bound, generator=generator)
