"""A chain that borrows another's frame: its grid, its start and the subspace it lives on."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.targets.bases.process import Process
from tiltbench.targets.target import Groups


class Borrowed(Process):
    """A process that starts and keeps time as `flow` does, and steps by kernels of its own."""

    flow: Process

    @property
    def steps(self) -> int:  # type: ignore[override]
        return self.flow.steps

    @property
    def times(self) -> tuple[float, ...]:
        return self.flow.times

    @property
    def spread(self) -> float:
        return self.flow.spread

    @property
    def removed(self) -> int:
        return self.flow.removed

    @property
    def lattice(self) -> tuple[int, ...] | None:
        return self.flow.lattice

    @property
    def alike(self) -> Groups | None:
        return self.flow.alike

    @property
    def chiral(self) -> bool:
        return self.flow.chiral

    def project(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        return self.flow.project(x)

    def start(self, shape: tuple[int, ...], generator: Generator, dtype: torch.dtype) -> Tensor:
        return self.flow.start(shape, generator, dtype)
