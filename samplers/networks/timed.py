"""Controls that embed time once a step; the guidance term that paid gradients enter by."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from tiltbench.samplers.networks.control import Control, Sloped
from tiltbench.targets.bases.process import Process, Stepper

Along = Callable[[Tensor, int | Tensor], Tensor]

FEATURES = 64  # frequencies, each with a sine and a cosine


MOST = 50.0  # |u_i| < MOST: an unbounded control can throw its own paths ever further out


class Field(nn.Module, ABC):
    """A function of x and of an embedding of t, not yet projected.

    The embedding, 128 Fourier features sin and cos(w t) -> 128 -> the width that the field asks
    for, is evaluated once per time, not per point; w / pi runs from 0.3 to `fastest`.  Features
    faster than the grid let a long training fit each of its times apart from its neighbours."""

    rate: Tensor
    phase: Tensor
    time: nn.Sequential  # made by the field, of `clock`

    def __init__(self, fastest: float = 100.0) -> None:
        super().__init__()
        rate = torch.logspace(-0.5, math.log10(fastest), FEATURES) * math.pi
        self.register_buffer("rate", torch.cat([rate, rate]), persistent=False)
        phase = torch.tensor([0.0, math.pi / 2]).repeat_interleave(FEATURES)
        self.register_buffer("phase", phase, persistent=False)  # a cosine is a sine a quarter on

    def embed(self, t: Tensor, like: Tensor) -> Float[Tensor, "*t w"]:
        angle = torch.addcmul(self.phase, t.to(like.dtype)[..., None], self.rate)
        out: Tensor = self.time(angle.sin())
        return out

    @abstractmethod
    def forward(self, x: Float[Tensor, "*b d"], embedding: Tensor) -> Float[Tensor, "*b o"]:
        """(*b, D) -> (*b, outputs)."""

    def along(self, embedding: Float[Tensor, "k w"]) -> Along:
        """(x, k) -> the field at x and time k, an int or indices (*b), of embeddings of a grid:
        a field may work out beforehand what depends on time or on its parameters alone."""
        each = embedding.unbind(0)
        return lambda x, k: self(x, each[k] if isinstance(k, int) else embedding[k])

    def silence(self, rows: slice) -> None:
        """These entries of the embedding are 0 at first, at every time."""
        last = self.time[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.weight[rows].zero_()
            last.bias[rows].zero_()


class Pushed(Field):
    """A field whose derivative along directions is cheaper than by products."""

    @abstractmethod
    def push(
        self,
        x: Float[Tensor, "*b d"],
        embedding: Tensor,
        directions: Float[Tensor, "*c m d"],
        onto: Float[Tensor, "*c m o"],
    ) -> tuple[Float[Tensor, "*b o"], Float[Tensor, "*b m"]]:
        """The value v, and onto_i . (dv/dx) directions_i for every i."""


FREE = 8.0  # |gate| up to which it is as learned; the optimum at t = 1, sigma / spread, is about 1


def bounded(gate: Tensor) -> Tensor:
    """The gate itself up to FREE, and never beyond 2 FREE: at high learning rates it runs away,
    and the hint with it."""
    over = torch.nn.functional.softshrink(gate, FREE)
    return gate - (over - FREE * torch.tanh(over / FREE))


@dataclass(frozen=True)
class Guidance:
    """gate(t) h,  h = grad r(x) spread clipped to length `clip`."""

    clip: float
    spread: float

    def term(self, hint: Tensor | None, gate: Tensor) -> Tensor:
        if hint is None:
            raise ValueError("a guided control needs the reward's gradient at x as its hint")
        most = self.clip / self.spread  # of grad r itself
        length = torch.linalg.vector_norm(hint, dim=-1, keepdim=True)
        return hint * (gate * (self.clip / length.clamp(min=most)))


@final
class Timed(Control):
    """u = field(x, embedding of t), and the guidance where there is one, projected as the process
    is.  The gate of the guidance is one entry of the embedding more, the last, and 0 at first."""

    def __init__(self, field: Field, process: Process, clip: float | None = None) -> None:
        super().__init__()
        self.field = field
        self.guidance = None if clip is None else Guidance(clip, process.spread)
        self.guided = self.guidance is not None
        self.project = process.project if process.removed else _as_is
        if self.guided:
            field.silence(slice(-1, None))

    def control(
        self, x: Float[Tensor, "*b d"], t: Tensor, hint: Tensor | None = None
    ) -> Float[Tensor, "*b d"]:
        self.count(x)
        embedding = self.field.embed(t, x)
        if self.guidance is None:
            return self.project(self.field(x, embedding))
        term = self.guidance.term(hint, bounded(embedding[..., -1:]))
        return self.project(self.field(x, embedding[..., :-1]) + term)

    def on_grid(self, t: Float[Tensor, " k"]) -> Stepper:
        whole = self.field.embed(t, t)
        field = self.field.along(whole[:, :-1] if self.guided else whole)
        gates = bounded(whole[:, -1:]) if self.guided else whole[:, -1:]
        each = gates.unbind(0)

        def step(x: Tensor, k: int | Tensor, hint: Tensor | None) -> Tensor:
            self.count(x)
            u = field(x, k)
            if self.guidance is not None:
                u = u + self.guidance.term(hint, each[k] if isinstance(k, int) else gates[k])
            return self.project(u)

        return step

    def stretched(
        self, x: Float[Tensor, "*b d"], t: Tensor, directions: Float[Tensor, "*c m d"]
    ) -> tuple[Float[Tensor, "*b d"], Float[Tensor, "*b m"]]:
        if self.guided or not isinstance(self.field, Pushed):
            return super().stretched(x, t, directions)
        self.count(x)
        embedding, onto = self.field.embed(t, x), self.project(directions)
        u, each = self.field.push(x, embedding, directions, onto)
        return self.project(u), each


@final
class Descent(Sloped):
    """u = grad phi / spread with phi = spread^2 field(x, embedding of t), a field of one output."""

    def __init__(self, field: Field, process: Process) -> None:
        super().__init__()
        self.field, self.spread = field, process.spread
        self.project = process.project if process.removed else _as_is

    def potential(self, x: Float[Tensor, "*b d"], t: Tensor) -> Float[Tensor, " *b"]:
        self.count(x)
        height: Tensor = self.field(x, self.field.embed(t, x))
        return self.spread**2 * height[..., 0]

    def control(
        self, x: Float[Tensor, "*b d"], t: Tensor, hint: Tensor | None = None
    ) -> Float[Tensor, "*b d"]:
        return self.project(self.slope(x, self.field.embed(t, x)))

    def slope(self, x: Tensor, embedding: Tensor) -> Tensor:
        """u from an embedded time, not yet projected."""
        keep = torch.is_grad_enabled()
        with torch.enable_grad():
            y = x if keep and x.requires_grad else x.detach().requires_grad_()
            self.count(y)
            height = self.spread * self.field(y, embedding).sum()
            (u,) = torch.autograd.grad(height, y, create_graph=keep)
        return u

    def on_grid(self, t: Float[Tensor, " k"]) -> Stepper:
        whole = self.field.embed(t, t)
        each = whole.unbind(0)

        def step(x: Tensor, k: int | Tensor, hint: Tensor | None) -> Tensor:
            return self.project(self.slope(x, each[k] if isinstance(k, int) else whole[k]))

        return step


def clock(outputs: int) -> nn.Sequential:
    """The embedding's layers after its Fourier features."""
    return nn.Sequential(nn.Linear(2 * FEATURES, 128), nn.SiLU(), nn.Linear(128, outputs))


def _as_is(x: Tensor) -> Tensor:
    return x


def initialise(module: nn.Module, generator: Generator) -> None:
    """U(-1/sqrt(fan in), 1/sqrt(fan in)), and N(0, 1) where embedded, as torch's own layers, but
    from the given generator."""
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
                bound = 1 / math.sqrt(layer.weight[0].numel())
                layer.weight.uniform_(-bound, bound, generator=generator)
                if layer.bias is not None:
                    layer.bias.uniform_(-bound, bound, generator=generator)
            elif isinstance(layer, nn.Embedding):
                layer.weight.normal_(generator=generator)
