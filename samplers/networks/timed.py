"""Controls that embed time once a step; the guidance term that paid gradients enter by."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from tiltbench.samplers.networks.model import Model
from tiltbench.targets.bases.process import Process, Stepper

FEATURES = 64  # frequencies, each with a sine and a cosine


MOST = 50.0  # |u_i| < MOST: an unbounded control can throw its own paths ever further out


class Timed(Model):
    """A model whose control is `field`(x, an embedding of t), projected as the process is.

    The embedding, 128 Fourier features sin and cos(w t) -> 128 -> the width that the field asks
    for, is evaluated once per time, not per point; w / pi runs from 0.3 to `fastest`.  Features
    faster than the grid let a long training fit each of its times apart from its neighbours."""

    rate: Tensor
    phase: Tensor
    time: nn.Sequential

    def __init__(self, process: Process, fastest: float = 100.0) -> None:
        super().__init__()
        self.spread = process.spread
        self.project: Callable[[Tensor], Tensor] = process.project if process.removed else _as_is
        rate = torch.logspace(-0.5, math.log10(fastest), FEATURES) * math.pi
        self.register_buffer("rate", torch.cat([rate, rate]), persistent=False)
        phase = torch.tensor([0.0, math.pi / 2]).repeat_interleave(FEATURES)
        self.register_buffer("phase", phase, persistent=False)  # a cosine is a sine a quarter on

    def embed(self, t: Tensor, like: Tensor) -> Tensor:
        angle = torch.addcmul(self.phase, t.to(like.dtype)[..., None], self.rate)
        return self.time(angle.sin())

    @abstractmethod
    def field(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(*b, D) -> (*b, outputs); counts its points."""

    def count(self, x: Tensor) -> None:
        points = math.prod(x.shape[:-1])
        self.forward_points += points
        self.backward_points += points * torch.is_grad_enabled()

    def control(
        self, x: Float[Tensor, "*b d"], t: Tensor, hint: Tensor | None = None
    ) -> Float[Tensor, "*b d"]:
        return self.project(self.steered(x, self.embed(t, x), hint))

    def steered(self, x: Tensor, embedding: Tensor, hint: Tensor | None) -> Tensor:
        """u from an embedded time, not yet projected."""
        return self.field(x, embedding)

    def on_grid(self, t: Float[Tensor, " k"]) -> Stepper:
        whole = self.embed(t, t)
        each = whole.unbind(0)

        def step(x: Tensor, k: int | Tensor, hint: Tensor | None) -> Tensor:
            embedding = each[k] if isinstance(k, int) else whole[k]
            return self.project(self.steered(x, embedding, hint))

        return step


class Guidance(Timed):
    """Put before a `Timed` model built with one gate more: u + gate(t) h, h = grad r(x) spread
    clipped to length `clip`; the gate is the last entry of the embedding, and 0 at first."""

    guided = True
    clip: float

    def led(self, clip: float) -> None:
        self.clip = clip
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
        return super().steered(x, embedding[..., :-1], None) + embedding[..., -1:] * pull

    def stretched(
        self, x: Float[Tensor, "*b d"], t: Tensor, directions: Float[Tensor, "*c m d"]
    ) -> tuple[Float[Tensor, "*b d"], Float[Tensor, "*b m"]]:
        return Model.stretched(self, x, t, directions)


def clock(outputs: int) -> nn.Sequential:
    """The embedding's layers after its Fourier features."""
    return nn.Sequential(nn.Linear(2 * FEATURES, 128), nn.SiLU(), nn.Linear(128, outputs))


def _as_is(x: Tensor) -> Tensor:
    return x


def initialise(module: nn.Module, generator: Generator) -> None:
    """U(-1/sqrt(fan in), 1/sqrt(fan in)), as torch's own layers, but from the given generator."""
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
                bound = 1 / math.sqrt(layer.weight[0].numel())
                layer.weight.uniform_(-bound, bound, generator=generator)
                if layer.bias is not None:
                    layer.bias.uniform_(-bound, bound, generator=generator)
