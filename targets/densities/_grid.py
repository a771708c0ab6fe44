"""The equal mixture on a square grid {centres}^2: a product, so half the work of a general one."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from tiltbench.targets.constants import constant
from tiltbench.targets.densities._mixture import Mixture
from tiltbench.targets.log_sum import log_sum_exp
from tiltbench.targets.target import Truth


def grid_log_density(
    x: Float[Tensor, "*b 2"], centres: tuple[float, ...], var: float
) -> Float[Tensor, " *b"]:
    """sum_i log (1/m) sum_j N(x_i; centre_j, var), normalised."""
    value, *_ = log_sum_exp(_off(x, centres).square() / (-2 * var))
    return value.sum(-1) - 2 * _norm(centres, var)


def grid_log_density_and_grad(
    x: Float[Tensor, "*b 2"], centres: tuple[float, ...], var: float
) -> tuple[Float[Tensor, " *b"], Float[Tensor, "*b 2"]]:
    """The same and its gradient, without a graph."""
    off = _off(x.detach(), centres)
    value, e, total = log_sum_exp(off.square() / (-2 * var))
    return value.sum(-1) - 2 * _norm(centres, var), (e * off).sum(0) / (total * var)


def _off(x: Float[Tensor, "*b 2"], centres: tuple[float, ...]) -> Float[Tensor, "m *b 2"]:
    """centre_j - x_i."""
    return constant(centres, x).reshape(-1, *[1] * x.ndim) - x


def _norm(centres: tuple[float, ...], var: float) -> float:
    """Of one coordinate, the logarithm."""
    return math.log(len(centres) * math.sqrt(2 * math.pi * var))


def grid_truth(centres: tuple[float, ...], var: float) -> Truth:
    """Closed form; the cells are squares, their masses products of differences of normal cdfs."""
    row = torch.tensor(centres, dtype=torch.float64)
    mean = torch.cartesian_prod(row, row)
    weight = torch.full((len(mean),), 1 / len(mean), dtype=torch.float64)
    far = torch.tensor([torch.inf], dtype=torch.float64)
    edges = torch.cat([-far, (row[1:] + row[:-1]) / 2, far])
    cdf = torch.special.ndtr((edges[:, None] - row) / math.sqrt(var)).mean(-1)
    cells = torch.outer(cdf.diff(), cdf.diff()).flatten()
    return Mixture(weight, mean, var).truth(cells)
