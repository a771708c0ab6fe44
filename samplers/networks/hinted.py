"""Networks whose control is one field of x and t, with the reward's gradient as a hint or without.

The two kinds of one architecture differ by a term alone: `class Guided(Hinted, Mlp)` is all of Mlp
and gate(t) h beside it.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, fields
from typing import ClassVar

from torch import Generator

from tiltbench.samplers.networks.model import Model, Network
from tiltbench.samplers.networks.timed import Field, Timed
from tiltbench.targets.bases.process import Process


@dataclass(frozen=True)
class OfField(Network):
    """u = field(x, t); what it has of whole numbers are sizes, 1 or more, but for `may_be_none`."""

    may_be_none: ClassVar[tuple[str, ...]] = ()  # sizes of what can be left out: 0 or more

    def __post_init__(self) -> None:
        for part in fields(self):
            size, least = getattr(self, part.name), 0 if part.name in self.may_be_none else 1
            if isinstance(size, int) and size < least:
                raise ValueError(f"{part.name} is {size}; it must be {least} or more")

    @abstractmethod
    def field(self, dim: int, process: Process, generator: Generator, gates: int) -> Field:
        """u without hints, 0 at first, with `gates` entries more in its embedding of t."""

    def longest(self, dim: int) -> float | None:
        """The length to which hints are clipped; None: the control takes none."""
        return None

    def build(self, dim: int, process: Process, generator: Generator) -> Model:
        clip = self.longest(dim)
        field = self.field(dim, process, generator, gates=0 if clip is None else 1)
        return Model(Timed(field, process, clip)).to(generator.device)


@dataclass(frozen=True)
class Hinted(OfField):
    """u = field(x, t) + gate(t) h,  h = grad r(x) spread clipped to length `clip`."""

    clip: float = 20.0  # the greatest length of h

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.clip < math.inf:
            raise ValueError(f"clip is {self.clip}; it must be positive and finite")

    def longest(self, dim: int) -> float:
        return self.clip
