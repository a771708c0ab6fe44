"""Two-sample U-statistics of a function of distance, by blocks of rows: no (n, n, d) is formed."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.estimators import Group, average
from tiltbench.metric import Outcome, Unknown
from tiltbench.metrics._given import given
from tiltbench.samplers.weights import Estimate
from tiltbench.targets.target import Target, Truth

Kernel = Callable[[Tensor], Tensor]  # of distances, elementwise
BLOCK = 2**22  # distances held at once: 32 MB


def both(truth: Truth, outcome: Outcome, generator: Generator) -> tuple[Tensor, Tensor]:
    """The draws and as many exact ones, float64."""
    x = outcome.draws.x.double().cpu()
    if len(x) < 2:
        raise Unknown(f"{len(x)} draw(s): at least two are needed")
    return x, given(truth.sample)(len(x), generator).double().cpu()


def against(
    target: Target, truth: Truth, outcome: Outcome, generator: Generator
) -> tuple[Tensor, Tensor]:
    """The same, the draws of particles under random names and poses: no sampler needs to mix over
    these, and the exact ones have random ones already.  Both less the mean of the exact ones: far
    from the origin the squared norms inside a distance would cancel."""
    x, y = both(truth, outcome, generator)
    middle = y.mean(0)
    return target.posed(x, generator) - middle, y - middle


def two_sample(
    kernel: Kernel, x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], group: Group
) -> Estimate:
    """2 E k|X - Y| - E k|X - X'| - E k|Y - Y'|, unbiased: no point is paired with itself.

    The error is that of the first-order (Hajek) projection, by groups of x: of the right order but
    somewhat too large where the two laws agree and the statistic is degenerate."""
    rows, columns = cross(kernel, x, y)
    inside_x, inside_y = within(kernel, x), within(kernel, y)
    value = 2 * rows.mean() - inside_x.mean() - inside_y.mean()
    of_x = average(2 * (rows - inside_x), group)
    of_y = average(2 * (columns - inside_y))
    return Estimate(float(value), math.hypot(of_x.se, of_y.se), of_x.n)


def cross(kernel: Kernel, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """(n,) means over y of k|x_i - y|, and (m,) means over x of k|x - y_j|."""
    rows, columns = [], torch.zeros(len(y), dtype=torch.float64)
    for block in x.split(max(BLOCK // len(y), 1)):
        k = kernel(torch.cdist(block, y))
        rows.append(k.mean(1))
        columns += k.sum(0)
    return torch.cat(rows), columns / len(x)


def within(kernel: Kernel, x: Tensor) -> Tensor:
    """(n,) means over i' != i of k|x_i - x_i'|."""
    rows, start = [], 0
    for block in x.split(max(BLOCK // len(x), 1)):
        k = kernel(torch.cdist(block, x))
        columns = torch.arange(len(block))
        k[columns, start + columns] = 0.0
        rows.append(k.sum(1))
        start += len(block)
    return torch.cat(rows) / (len(x) - 1)
