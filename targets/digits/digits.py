"""Real images small enough for anyone: a flow and a diffusion on scikit-learn's 8 x 8 digits.

1,797 images of 13 writers with grey levels 0..16, scaled to [-1, 1]; every fifth is held out.  The
networks were trained by `tiltbench base digits` (bench/pretrain) and ship with the package.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tiltbench.targets.bases.checkpoint import checkpoint
from tiltbench.targets.bases.interpolant import Ancestral, Stepping
from tiltbench.targets.bases.noising import Step
from tiltbench.targets.bases.pretrained import Doubt, Pretrained, Reading, epsilon, velocity
from tiltbench.targets.bases.schedules import RectifiedFlow, Schedule, VariancePreserving
from tiltbench.targets.target import table

SIDE, DIM, CLASSES = 8, 64, 10
SPREAD = 0.85  # rms coordinate of the images, rounded


class Images(NamedTuple):
    """x (n, 64) in [-1, 1], row by row, and the digit that each shows."""

    x: Float[Tensor, "n 64"]
    digit: Int[Tensor, " n"]


def images(like: Tensor) -> Images:
    """All 1,797, on the device and in the dtype of `like`."""
    rows = table("digits", like)
    return Images(rows[:, :DIM] / 8 - 1, rows[:, DIM].long())


def split(like: Tensor) -> tuple[Images, Images]:
    """(1,438 images to train on, 359 held out)."""
    x, digit = images(like)
    out = torch.arange(len(x), device=x.device) % 5 == 4
    return Images(x[~out], digit[~out]), Images(x[out], digit[out])


class Field(nn.Module):
    """(x, t) -> (*b, 64): `blocks` residual blocks of two layers under layer norms, SiLU, each told
    the time by 32 Fourier features."""

    rate: Tensor

    def __init__(self, width: int = 192, blocks: int = 3) -> None:
        super().__init__()
        rate = math.pi * torch.logspace(-0.5, 1.5, 16)
        self.register_buffer("rate", rate, persistent=False)
        self.into = nn.Linear(DIM, width)
        self.time = nn.Linear(32, width)
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(blocks)])
        self.tell = nn.ModuleList([nn.Linear(width, width) for _ in range(blocks)])
        self.first = nn.ModuleList([nn.Linear(width, width) for _ in range(blocks)])
        self.second = nn.ModuleList([nn.Linear(width, width) for _ in range(blocks)])
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, DIM)

    def _time(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b w"]:
        angle = t[..., None] * self.rate
        return nn.functional.silu(self.time(torch.cat([angle.sin(), angle.cos()], -1)))

    def forward(self, x: Float[Tensor, "*b 64"], t: Float[Tensor, "*b"]) -> Tensor:
        time, h = self._time(t), self.into(x)
        for norm, tell, first, second in zip(
            self.norms, self.tell, self.first, self.second, strict=True
        ):
            h = h + second(nn.functional.silu(first(norm(h)) + tell(time)))
        return self.out(nn.functional.silu(self.norm(h)))

    def on_grid(self, t: Float[Tensor, " k"]) -> Callable[[Tensor, Step], Tensor]:
        """(x, k) -> forward(x, t_k), k an int or indices (*b), for parameters that stay as they
        are: what a block is told of the time is part of the bias of its first layer."""
        time = self._time(t)
        blocks: Any = list(zip(self.norms, self.first, self.tell, self.second, strict=True))
        biases = [first.bias + tell(time) for _, first, tell, _ in blocks]

        def evaluate(x: Tensor, k: Step) -> Tensor:
            h = self.into(x)
            for (norm, first, _, second), bias in zip(blocks, biases, strict=True):
                if isinstance(k, int):
                    inner = nn.functional.linear(norm(h), first.weight, bias[k])
                else:
                    inner = nn.functional.linear(norm(h), first.weight) + bias[k]
                h = h + second(nn.functional.silu(inner))
            return self.out(nn.functional.silu(self.norm(h)))

        return evaluate


class Classifier(nn.Module):
    """(*b, 64) -> (*b, 10) logits: two 3 x 3 convolutions (16 and 32 channels, SiLU), each before a
    mean over 2 x 2, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.near = nn.Conv2d(1, 16, 3, padding=1)
        self.far = nn.Conv2d(16, 32, 3, padding=1)
        self.out = nn.Linear(32 * 4, CLASSES)

    def features(self, x: Float[Tensor, "*b 64"]) -> Float[Tensor, "*b 128"]:
        """What the linear layer reads."""
        pool, silu = nn.functional.avg_pool2d, nn.functional.silu
        h = pool(silu(self.near(x.reshape(-1, 1, SIDE, SIDE))), 2)
        h = pool(silu(self.far(h)), 2)
        return h.reshape(*x.shape[:-1], 128)

    def forward(self, x: Float[Tensor, "*b 64"]) -> Float[Tensor, "*b 10"]:
        return self.out(self.features(x))


class Kind(NamedTuple):
    """A base that ships: how its network is read, and where it lies."""

    schedule: Schedule
    reading: Reading
    stored: str


MEMORYLESS = Ancestral()
FLOW = Kind(RectifiedFlow(), velocity, "digits_flow")
DDPM = Kind(VariancePreserving(), epsilon, "digits_ddpm")


def digits(
    schedule: Schedule = FLOW.schedule, stepping: Stepping = MEMORYLESS, steps: int = 50
) -> Pretrained:
    """p_base of the digit tilts: flow matching on RectifiedFlow, DDPM on VariancePreserving.

    Raises ValueError for other schedules, on which nothing was trained."""
    for kind in (FLOW, DDPM):
        if schedule == kind.schedule:
            return wrapped(kind, *_field(kind.stored), stepping, steps)
    raise ValueError(
        f"no network for digits was trained on {schedule}: use RectifiedFlow() or "
        "VariancePreserving()"
    )


def wrapped(
    kind: Kind,
    network: Field,
    doubt: Doubt,
    stepping: Stepping = MEMORYLESS,
    steps: int = 50,
) -> Pretrained:
    return Pretrained(network, kind.reading, SPREAD, doubt, kind.schedule, stepping, steps)


@lru_cache(maxsize=4)
def _field(stored: str) -> tuple[Field, Doubt]:
    tensors, note = checkpoint(stored)
    network = Field(note["width"], note["blocks"])
    network.load_state_dict(tensors)
    return network, tuple((t, tau) for t, tau in note["doubt"])


def log_classes(x: Float[Tensor, "*b 64"]) -> Float[Tensor, "*b 10"]:
    """log P(digit | x) by the classifier that ships, in the dtype of x."""
    return _classifier(x.device, x.dtype)(x).log_softmax(-1)


def features(x: Float[Tensor, "*b 64"]) -> Float[Tensor, "*b 128"]:
    """What the classifier that ships reads its classes from."""
    return _classifier(x.device, x.dtype).features(x)


@lru_cache(maxsize=8)
def _classifier(device: torch.device, dtype: torch.dtype) -> Classifier:
    network = Classifier()
    network.load_state_dict(checkpoint("digits_classifier").tensors)
    return copy.deepcopy(network).to(device, dtype).requires_grad_(False)
