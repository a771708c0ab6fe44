"""A Gaussian mixture at the levels of a grid: sums over its components and their derivative.

Noised to level k, component j is N(place_kj, v_kj I) with place = signal mean_j and v = signal^2
var_j + noise^2.  Denoiser, score and the steps of a chain are all of the form

    f(x) = sum_j P(j | x) (shift_j + slope_j x),

and have the Jacobian-vector product, with l_j = (place_j - x) / v_j the score of component j,

    (df/dx)^T a = slope a + sum_j P(j | x) ((shift_j + slope_j x) . a - f(x) . a) l_j,

where slope = sum_j P(j | x) slope_j (math.md 8).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tiltbench.targets.bases.components import Components, square_distances

AT_ONCE = 2**22  # numbers of a temporary of `pull_backs`; longer paths are done in parts
Step = int | Int[Tensor, "*b"]


class Rung(NamedTuple):
    """The components at one level, or at one for each point: k is (), (*b) or (n, 1)."""

    log: Float[Tensor, "*k m"]  # of weight_j (2 pi v_j)^(-d/2)
    tight: Float[Tensor, "*k m"]  # -1 / (2 v_j)
    place: Float[Tensor, "*k m d"]

    def share(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b m"]:
        """P(j | x)."""
        far = square_distances(x, self.place)
        return torch.softmax(torch.addcmul(self.log, far, self.tight), -1)


class NoisedMixture:
    """`law` at the levels (signal_k, noise_k), on the device and in the dtype of `like`.

    `mean` is a x + b E[X_1 | x] + c score, with (a, b, c) for each of the first levels."""

    def __init__(
        self,
        law: Components,
        levels: Sequence[tuple[float, float]],
        means: Sequence[tuple[float, float, float]],
        like: Tensor,
    ) -> None:
        signal, noise = torch.tensor(levels, dtype=torch.float64).T[..., None]
        v = signal.square() * law.var + noise.square()
        place, gain = signal[..., None] * law.mean, signal * law.var / v
        log = law.weight.log() - law.mean.shape[-1] / 2 * (2 * math.pi * v).log()
        rungs = Rung(*(part.to(like) for part in (log, -1 / (2 * v), place)))

        end = _table((1 - signal * gain)[..., None] * law.mean, gain)
        score = _table(place / v[..., None], -1 / v)
        a, b, c = torch.tensor(means, dtype=torch.float64).T[..., None, None]
        mean = b * end[: len(means)] + c * score[: len(means)]
        mean[..., -1:] += a
        self.end, self.score, self.mean = (Sum(rungs, t.to(like)) for t in (end, score, mean))
        self.both = Sums(rungs, torch.cat([end, score], -1).to(like))


def _table(shift: Float[Tensor, "k m d"], slope: Float[Tensor, "k m"]) -> Float[Tensor, "k m d1"]:
    return torch.cat([shift, slope[..., None]], -1)


class Sums:
    """sum_j P(j | x) (shift_j + slope_j x) at every level, several such sums side by side."""

    def __init__(self, rungs: Rung, table: Float[Tensor, "k m w"]) -> None:
        self.rungs, self.table, self.each = rungs, table, table.unbind(0)
        self.one = [Rung(*parts) for parts in zip(*(p.unbind(0) for p in rungs), strict=True)]

    def __call__(self, x: Float[Tensor, "*b d"], k: Step) -> tuple[Tensor, ...]:
        d = x.shape[-1]
        affine = self._added(x, k)
        if affine.shape[-1] == d + 1:
            return (torch.addcmul(affine[..., :d], affine[..., d:], x),)
        parts = (part.split([d, 1], -1) for part in affine.split(d + 1, -1))
        return tuple(torch.addcmul(shift, slope, x) for shift, slope in parts)

    def _added(self, x: Float[Tensor, "*b d"], k: Step) -> Float[Tensor, "*b w"]:
        """sum_j P(j | x) of the rows of the table."""
        if isinstance(k, int):
            return self.one[k].share(x) @ self.each[k]
        share = Rung(*(part[k] for part in self.rungs)).share(x)
        if k.dim() > 1 and k.shape[-1] == 1:  # one level for many points
            return share @ self.table[k[..., 0]]
        return (share[..., None, :] @ self.table[k])[..., 0, :]


class Sum:
    """One sum_j P(j | x) (shift_j + slope_j x) at every level, and its derivative."""

    def __init__(self, rungs: Rung, table: Float[Tensor, "k m d1"]) -> None:
        self.rungs, self.table, self.sums = rungs, table, Sums(rungs, table)

    def __call__(self, x: Float[Tensor, "*b d"], k: Step) -> Float[Tensor, "*b d"]:
        return self.sums(x, k)[0]

    def pull_backs(
        self, x: Float[Tensor, "k b d"], first: int = 0
    ) -> Callable[[int, Tensor], Tensor]:
        """(k, a) -> (df_k/dx)^T a at x_k, for a (b, d): one to three launches a step.

        `x` are the points from level `first` on."""
        many = max(AT_ONCE // max(x[0].numel() * self.table.shape[1], 1), 1)
        held: dict[int, Callable[[Tensor], Tensor]] = {}

        def back(k: int, a: Tensor) -> Tensor:
            if k not in held:
                low = max(k + 1 - many, first)  # they are asked for from the last to the first
                held.clear()
                parts = self._bent(x[low - first : k + 1 - first], slice(low, k + 1))
                held.update(zip(range(low, k + 1), parts, strict=True))
            return held[k](a)

        return back

    @torch.no_grad()
    def _bent(self, x: Float[Tensor, "k b d"], steps: slice) -> list[Callable[[Tensor], Tensor]]:
        d = x.shape[-1]
        rungs, table = Rung(*(part[steps, None] for part in self.rungs)), self.table[steps]
        share = rungs.share(x)
        shift, slope = (share @ table).split([d, 1], -1)
        f = torch.addcmul(shift, slope, x)[..., None, :]
        y, each = x[..., None, :], table[:, None]
        away = torch.addcmul(each[..., :d], each[..., d:], y) - f
        right = share[..., None] * away  # (k, b, m, d)
        left = (y - rungs.place).mul_((2 * rungs.tight)[..., None]).mT  # l_j, (k, b, d, m)
        if d <= 2 * share.shape[-1]:
            jacobian = left @ right
            jacobian.diagonal(dim1=-2, dim2=-1).add_(slope)
            return [partial(_dense, j) for j in jacobian.unbind(0)]
        parts = (slope[..., None].unbind(0), left.unbind(0), right.unbind(0))
        return [partial(_thin, *part) for part in zip(*parts, strict=True)]


def _dense(jacobian: Float[Tensor, "b d d"], a: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
    return torch.bmm(jacobian, a[..., None])[..., 0]


def _thin(
    slope: Float[Tensor, "b 1 1"],
    left: Float[Tensor, "b d m"],
    right: Float[Tensor, "b m d"],
    a: Float[Tensor, "b d"],
) -> Float[Tensor, "b d"]:
    column = a[..., None]
    return torch.baddbmm(slope * column, left, torch.bmm(right, column))[..., 0]
