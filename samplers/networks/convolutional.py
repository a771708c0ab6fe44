"""Controls of a field on a periodic lattice: equivariant under translations, odd in the field.

Convolutions wrap around and have no bias; the features h are odd in x, and a layer multiplies an
odd function by an even one, into which the time enters:

    h <- h + tanh(a) sigmoid(b tanh b + c(t)),    (a, b) = conv(h) + W mean_over_sites(h),

so that u(-x, t) = -u(x, t) holds exactly, at the cost of one evaluation.  The means carry the
magnetisation everywhere at once; dilations 1, 2, 4 carry the rest across 16 sites in three layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from tiltbench.samplers.networks.hinted import Hinted, OfField
from tiltbench.samplers.networks.timed import MOST, Field, clock, initialise
from tiltbench.samplers.sampler import Unsupported
from tiltbench.targets.bases.process import Process

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
DILATIONS = (1, 2, 4)
PART = 512  # lattices at a time: what is kept of more of them leaves the cache in between


@dataclass(frozen=True)
class Convolutional(OfField):
    """u by circular convolutions with 3 taps an axis: u(shifted x) = shifted u(x), u(-x) = -u(x).

    For bases that carry the lattice of their target, of one to three axes; raises Unsupported on
    others.
    """

    name: ClassVar[str] = "Convolutional"
    width: int = 16
    layers: int = 3

    def field(self, dim: int, process: Process, generator: Generator, gates: int) -> _Lattice:
        return _Lattice(self, dim, process, generator, gates)


@dataclass(frozen=True)
class ConvolutionalGuided(Hinted, Convolutional):
    """u = Convolutional(x, t) + gate(t) h,  h = grad r(x) spread clipped to length `clip`.

    As `Guided` is to `Mlp`; odd and equivariant where r is even and invariant.
    """

    name: ClassVar[str] = "ConvolutionalGuided"


class _Lattice(Field):
    def __init__(
        self,
        spec: Convolutional,
        dim: int,
        process: Process,
        generator: Generator,
        gates: int,
    ) -> None:
        super().__init__()
        sides = process.lattice
        if not sides or len(sides) > len(CONVOLUTIONS):
            raise Unsupported(
                "this network is for fields on a lattice of one to three axes, carried by the "
                "base: state the sides in the target's `lattice`"
            )
        self.sides, self.width, self.spread = sides, spec.width, process.spread
        width, layers = spec.width, spec.layers
        self.lift = self._conv(1, width, 1)
        self.time = clock(width * (layers + 1) + gates)
        reach = [DILATIONS[j % len(DILATIONS)] for j in range(layers)]
        self.near = nn.ModuleList([self._conv(width, 2 * width, step) for step in reach])
        self.far = nn.ModuleList([nn.Linear(width, 2 * width, bias=False) for _ in reach])
        self.to(generator.device)
        initialise(self, generator)
        # u is read out by a vector of the time, 0 at first
        self.silence(slice(width * layers, width * (layers + 1)))

    def _conv(self, ins: int, outs: int, step: int) -> nn.Module:
        steps = tuple(max(1, min(step, side // 2)) for side in self.sides)
        kind: Any = CONVOLUTIONS[len(steps) - 1]
        return _Wrapped(kind(ins, outs, 3, dilation=steps, bias=False))

    def forward(self, x: Float[Tensor, "*b d"], embedding: Tensor) -> Float[Tensor, "*b d"]:
        sites = x.reshape(-1, 1, *self.sides) / self.spread  # (B, 1, side, ...)
        if embedding.dim() > 1:
            embedding = embedding.expand(*x.shape[:-1], -1).flatten(0, -2)
        most = PART if x.device.type == "cpu" else max(1, len(sites))
        parts = sites.split(most)
        times = embedding.split(most) if embedding.dim() > 1 else [embedding] * len(parts)
        u = [self._part(part, time) for part, time in zip(parts, times, strict=True)]
        return (MOST * torch.tanh(torch.cat(u) / MOST)).reshape(x.shape)

    def _part(self, sites: Float[Tensor, "b 1 *sides"], embedding: Tensor) -> Tensor:
        *shifts, readout = embedding.split(self.width, -1)
        flat = (-1, *[1] * len(self.sides))
        h = self.lift(sites)
        for near, far, shift in zip(self.near, self.far, shifts, strict=True):
            both = near(h) + far(h.flatten(2).mean(-1)).unflatten(-1, flat)
            a, b = both.chunk(2, 1)
            h = h + torch.tanh(a) * torch.sigmoid(b * torch.tanh(b) + shift.unflatten(-1, flat))
        return (h * readout.unflatten(-1, flat)).sum(1)


class _Wrapped(nn.Module):
    """A convolution of the torus.  Its margins are put on by `cat`: the circular padding of torch's
    own layers writes into a copy, whose backward pass takes as long as the convolution's."""

    def __init__(self, inner: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, h: Float[Tensor, "b c *sides"]) -> Tensor:
        for axis, step in enumerate(self.inner.dilation, start=2):
            last = h.narrow(axis, h.shape[axis] - step, step)
            h = torch.cat([last, h, h.narrow(axis, 0, step)], axis)
        out: Tensor = self.inner(h)
        return out
