"""Rewards that select some Gaussians of a grid: the end is a shape."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tiltbench.targets.bases.components import Components
from tiltbench.targets.bases.interpolant import Ancestral, Stepping
from tiltbench.targets.bases.mixture_flow import MixtureFlow
from tiltbench.targets.bases.schedules import RectifiedFlow, Schedule
from tiltbench.targets.log_sum import log_sum_exp
from tiltbench.targets.target import Modes, Tilt, Truth
from tiltbench.targets.tilts._mixture import mixture_truth, rms, share

CENTRES = (-4.0, -2.0, 0.0, 2.0, 4.0)
VARIANCE = 0.16
OFF = 1e-3  # factor of a component outside the shape, against 1 inside
SHAPES = {
    "diagonal": "#.... .#... ..#.. ...#. ....#",
    "corners": "#...# ..... ..... ..... #...#",
    "cross": "..#.. ..#.. ##### ..#.. ..#..",
    "ring": "##### #...# #...# #...# #####",
    "checkerboard": "#.#.# .#.#. #.#.# .#.#. #.#.#",
}


@dataclass(frozen=True)
class TiltShapes(Tilt):
    """r = log sum_j P(j | x) a_j on 25 equal Gaussians N(m_j, .16 I), m_j in {-4, -2, 0, 2, 4}^2.

    P(j | x) is the probability that x came from component j; a_j is 1 on the shape (diagonal,
    corners, cross, ring or checkerboard) and 1e-3 off it.  r is smooth and p* is exactly the
    mixture with weights proportional to a_j, so that Z is the mean of a_j.  The shapes are those of
    iterative importance fine-tuning (arXiv 2502.04468), whose constants are not published: these
    are ours.  ess of the base's own draws: about the share of components in it.
    """

    name = "tilt_shapes"
    dim = 2
    shape: str = "cross"
    schedule: Schedule = RectifiedFlow()
    stepping: Stepping = Ancestral()
    steps: int = 50
    test_value = -0.1558904094580074

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise ValueError(f"shape is {self.shape!r}; it must be one of {', '.join(SHAPES)}")
        _ = self.base  # refuses what cannot be a base

    @cached_property
    def base(self) -> MixtureFlow:  # type: ignore[override]
        means = tuple((a, b) for a in CENTRES for b in CENTRES)
        weights, variances = (1 / 25,) * 25, (VARIANCE,) * 25
        return MixtureFlow(weights, means, variances, self.schedule, self.stepping, self.steps)

    def reward(self, x: Float[Tensor, "*b 2"]) -> Float[Tensor, " *b"]:
        """The base is a product, so that P(j | x) is one of the rows and columns: 5 + 5, not 25."""
        _, factor = _constants(self.shape, x.device, x.dtype)
        first, second = self._shares(x).unbind(-1)
        return (first * torch.tensordot(factor, second, 1)).sum(0).log()

    def reward_and_grad(
        self, x: Float[Tensor, "*b 2"]
    ) -> tuple[Float[Tensor, " *b"], Float[Tensor, "*b 2"]]:
        """Along either coordinate the gradient is what the tilt moves the mean centre by, over the
        variance."""
        x = x.detach()
        row, factor = _constants(self.shape, x.device, x.dtype)
        share = self._shares(x)
        first, second = share.unbind(-1)
        given = torch.stack(
            [torch.tensordot(factor, second, 1), torch.tensordot(factor.T, first, 1)], -1
        )
        tilted = share * given
        total = tilted.sum(0)  # the same for both coordinates
        off = row.reshape(-1, *[1] * x.ndim) - torch.tensordot(row, share, 1)
        grad = ((tilted / total - share) * off).sum(0) / VARIANCE
        return total[..., 0].log(), grad

    def _shares(self, x: Float[Tensor, "*b 2"]) -> Float[Tensor, "5 *b 2"]:
        """P(row or column j | x_i)."""
        row, _ = _constants(self.shape, x.device, x.dtype)
        off = row.reshape(-1, *[1] * x.ndim) - x
        _, e, total = log_sum_exp(off.square() / (-2 * VARIANCE))
        return e / total

    @cached_property
    def _tilted(self) -> tuple[float, Components]:
        return self.base.law.reweighted(_factor(self.shape).flatten())

    @property
    def scale(self) -> float:  # type: ignore[override]
        return rms(self._tilted[1])

    def truth(self) -> Truth:
        log_Z, law = self._tilted
        modes = _squares(law.weight)
        shape = share(modes, _factor(self.shape).flatten() == 1)
        return mixture_truth(law, log_Z, modes, self._log_Z_along, shape=shape)

    def _log_Z_along(self, signal: float, noise: float, strength: float) -> float:
        """By the trapezoidal rule in the plane, good to 1e-10: the integrand is smooth."""
        width = math.sqrt(signal**2 * VARIANCE + noise**2)
        reach = signal * max(CENTRES) + 9 * width
        points = 2 * math.ceil(reach / min(0.03, width / 4)) + 1
        x = torch.linspace(-reach, reach, points, dtype=torch.float64)
        row, factor = _constants(self.shape, x.device, x.dtype)
        share = torch.softmax((x[:, None] - row).square() / (-2 * VARIANCE), -1)
        near = torch.exp((x[:, None] - signal * row).square() / (-2 * width**2)).sum(-1)
        mass = near / near.sum()
        return math.log(float(mass @ (share @ factor @ share.T) ** strength @ mass))


def _factor(shape: str) -> Float[Tensor, "5 5"]:
    """a_j."""
    rows = [[1.0 if c == "#" else OFF for c in line] for line in SHAPES[shape].split()]
    return torch.tensor(rows, dtype=torch.float64)


@lru_cache(maxsize=32)
def _constants(shape: str, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(the centres of a row, a_j)."""
    row = torch.tensor(CENTRES, device=device, dtype=dtype)
    return row, _factor(shape).to(device=device, dtype=dtype)


def _squares(weight: Float[Tensor, " 25"]) -> Modes:
    """The squares around the centres; their masses are products of differences of normal cdfs."""
    row = torch.tensor(CENTRES, dtype=torch.float64)
    far = torch.tensor([torch.inf], dtype=torch.float64)
    borders = (row[1:] + row[:-1]) / 2
    edges = torch.cat([-far, borders, far])
    inside = torch.special.ndtr((edges[:, None] - row) / math.sqrt(VARIANCE)).diff(dim=0)
    mass = inside @ weight.reshape(5, 5) @ inside.T

    def assign(x: Float[Tensor, "*b 2"]) -> Int[Tensor, " *b"]:
        cell = torch.bucketize(x, borders.to(x))
        return 5 * cell[..., 0] + cell[..., 1]

    return Modes(mass.flatten(), assign)
