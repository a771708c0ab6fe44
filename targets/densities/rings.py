"""Four concentric rings in the plane."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from tiltbench.targets.constants import constant
from tiltbench.targets.densities._tabulated import TabulatedDensity, tabulate
from tiltbench.targets.log_sum import log_sum_exp
from tiltbench.targets.target import Density, Modes, Observable, Truth

RADII = (1.0, 2.0, 3.0, 4.0)
SD = 0.15
BORDERS = (1.5, 2.5, 3.5)  # between the rings


@dataclass(frozen=True)
class Rings(Density):
    """log rho(x) = log sum_k exp(-(|x| - k)^2 / (2 0.15^2)), k = 1, 2, 3, 4, x in the plane.

    The profile gives every ring one height, so that ring k holds k tenths of the mass (to 1e-5):
    |X| has the density r times the profile, not the profile, which would share the mass equally.
    At the origin, where rho is e^-22, log rho has a cone; its gradient there is 0 by convention.
    """

    name = "rings"
    dim = 2
    scale = 2.24
    test_value = -4.701448499641748

    def log_rho(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
        return _profile(torch.linalg.vector_norm(x, dim=-1))

    def log_rho_and_grad(
        self, x: Float[Tensor, "*b d"]
    ) -> tuple[Float[Tensor, " *b"], Float[Tensor, "*b d"]]:
        x = x.detach()
        r = torch.linalg.vector_norm(x, dim=-1)
        off = _off(r)
        value, e, total = log_sum_exp(off.square() / (-2 * SD**2))
        slope = (e * off).sum(0) / (total * SD**2)
        outwards = x / r.clamp(min=torch.finfo(r.dtype).tiny)[..., None]  # 0 at the origin
        return value, outwards * slope[..., None]

    def truth(self) -> Truth:
        line = _radius()
        above = torch.tensor([1.0, *map(line.above, BORDERS), 0.0], dtype=torch.float64)
        cells = -above.diff()
        inner = float(cells[0])
        mean, square, fourth = _moment(1), _moment(2), _moment(4)
        return Truth(
            "quadrature, 1e-8",
            log_Z=line.log_Z + math.log(2 * math.pi),
            sample=_sample,
            modes=Modes(cells, _ring),
            observables={
                "inner_ring": Observable(_in_first, inner, math.sqrt(inner * (1 - inner))),
                "radius": Observable(_norm, mean, math.sqrt(square - mean**2)),
                "square": Observable(
                    lambda x: x.square().mean(-1), square / 2, math.sqrt(fourth - square**2) / 2
                ),
                "mean_0": Observable(lambda x: x[:, 0], 0.0, math.sqrt(square / 2)),
                "mean_1": Observable(lambda x: x[:, 1], 0.0, math.sqrt(square / 2)),
            },
        )


def _profile(r: Float[Tensor, " *b"]) -> Float[Tensor, " *b"]:
    value, *_ = log_sum_exp(_off(r).square() / (-2 * SD**2))
    return value


def _off(r: Float[Tensor, " *b"]) -> Float[Tensor, 4 * b]:
    """From the radius to that of every ring."""
    return constant(RADII, r).reshape(-1, *[1] * r.ndim) - r


@lru_cache(maxsize=1)
def _radius() -> TabulatedDensity:
    """The law of |X|: r times the profile."""

    def log_density(r: Tensor) -> Tensor:
        return torch.where(r > 0, r, 0.0).log() + _profile(r)

    return tabulate(log_density, reach=6.0, points=48_001)


def _moment(order: int) -> float:
    """E r^order."""
    return _radius().mean(lambda r: r**order)


def _sample(n: int, generator: Generator) -> Float[Tensor, "n d"]:
    r = _radius().sample((n,), generator)
    turn = torch.rand(n, generator=generator, device=generator.device, dtype=torch.float64)
    angle = 2 * math.pi * turn
    return torch.stack([r * torch.cos(angle), r * torch.sin(angle)], -1)


def _norm(x: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
    return torch.linalg.vector_norm(x, dim=-1)


def _ring(x: Float[Tensor, "*b d"]) -> Int[Tensor, " *b"]:
    """The ring of the nearest radius."""
    return torch.bucketize(torch.linalg.vector_norm(x, dim=-1), constant(BORDERS, x))


def _in_first(x: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
    return (_ring(x) == 0).to(x.dtype)
