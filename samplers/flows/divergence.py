"""The divergence of a velocity: exact, or in random directions (Hutchinson)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.targets.bases.process import Process

EXACT_UP_TO = 64  # dimensions; a product with the Jacobian for each of them


class Divergence(ABC):
    """Directions xi of which sum xi . J xi, or its mean, is tr J of a velocity's Jacobian J."""

    @abstractmethod
    def directions(
        self, process: Process, shape: tuple[int, ...], generator: Generator
    ) -> Float[Tensor, "m *b d"]:
        """Fixed for one solution of the ODE, float64, on the subspace of the process."""

    @abstractmethod
    def total(self, each: Float[Tensor, "*b m"]) -> Float[Tensor, " *b"]:
        """tr J, or what it integrates to, of the products in all directions."""

    @abstractmethod
    def noise(self, each: Float[Tensor, "*b m"]) -> Float[Tensor, " *b"]:
        """The variance of `total` by the choice of directions."""


@dataclass(frozen=True)
class Exact(Divergence):
    """One direction a coordinate: D vector-Jacobian products."""

    def directions(
        self, process: Process, shape: tuple[int, ...], generator: Generator
    ) -> Float[Tensor, "d *b d"]:
        d = shape[-1]
        rows = torch.eye(d, device=generator.device, dtype=torch.float64)
        flat = process.project(rows).reshape(d, *[1] * (len(shape) - 1), d)
        return flat.expand(d, *shape)

    def total(self, each: Float[Tensor, "*b m"]) -> Float[Tensor, " *b"]:
        return each.sum(-1)

    def noise(self, each: Float[Tensor, "*b m"]) -> Float[Tensor, " *b"]:
        return torch.zeros_like(each[..., 0])


@dataclass(frozen=True)
class Hutchinson(Divergence):
    """`probes` directions of random signs for each point (Hutchinson 1989; FFJORD, arXiv
    1810.01367): log q is unbiased, with a variance that `noise` estimates, and exp of it is not."""

    probes: int = 8

    def __post_init__(self) -> None:
        if self.probes < 2:
            raise ValueError(
                f"probes is {self.probes}; it must be 2 or more, or nobody can say how far the "
                "divergence is off"
            )

    def directions(
        self, process: Process, shape: tuple[int, ...], generator: Generator
    ) -> Float[Tensor, "m *b d"]:
        many = (self.probes, *shape)
        bits = torch.randint(2, many, generator=generator, device=generator.device)
        return process.project(2.0 * bits.double() - 1)

    def total(self, each: Float[Tensor, "*b m"]) -> Float[Tensor, " *b"]:
        return each.mean(-1)

    def noise(self, each: Float[Tensor, "*b m"]) -> Float[Tensor, " *b"]:
        return each.var(-1) / self.probes


def fitting(dim: int) -> Divergence:
    """`Exact` up to dimension EXACT_UP_TO, `Hutchinson` above."""
    return Exact() if dim <= EXACT_UP_TO else Hutchinson()


def along(
    f: Callable[[Tensor], Tensor], y: Float[Tensor, "*b d"], directions: Float[Tensor, "m *b d"]
) -> tuple[Float[Tensor, "*b d"], Float[Tensor, "*b m"]]:
    """f(y) and xi . (df/dy) xi in every direction, by vector-Jacobian products, without a graph."""
    with torch.enable_grad():
        y = y.detach().requires_grad_()
        value = f(y) + 0 * y  # a velocity that ignores y has divergence 0
        products = []
        for xi in directions:
            (pulled,) = torch.autograd.grad(value, y, xi, retain_graph=True)
            products.append((pulled * xi).sum(-1))
    return value.detach(), torch.stack(products, -1)
