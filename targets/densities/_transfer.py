"""Scalar fields with nearest-neighbour coupling, site by site on an even grid.

The weight of a ring is the product over its bonds of T(a, b) = exp(-(a - b)^2 / 2 - V(a) / 2 -
V(b) / 2), V(a) = m2 a^2 / 2 + lam a^4.  On a grid of step h sums over sites replace integrals; the
integrands are analytic and vanish at both ends, so that the error falls like exp(-const / h^2)
(trapezoidal rule): below 1e-12 here for everything smooth.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor

REACH = 45.0  # nats above the minimum of V at which the grid ends


def potential(x: Tensor, m2: float, lam: float) -> Tensor:
    """V, sitewise."""
    square = x.square()
    return square * (m2 / 2 + lam * square)


def refuse_unbounded(m2: float, lam: float) -> None:
    """Raises ValueError where exp(-V) has no integral, or NaN is among the constants."""
    if not (lam > 0 or (lam == 0 and m2 > 0)) or not math.isfinite(m2 + lam):
        raise ValueError(f"m2 is {m2} and lam {lam}; lam must be positive, or 0 with m2 positive")


def sites(m2: float, lam: float) -> Float[Tensor, " p"]:
    """The grid: as far as V is within 45 nats of its minimum, in steps of half a standard
    deviation of the narrowest conditional law of a site within 12 nats."""

    def edge(height: float) -> float:
        """x^2 where V is `height` above its minimum."""
        if lam == 0:
            return 2 * height / m2
        deepest = max(-m2 / (4 * lam), 0.0)  # x^2 of the minimum
        low = m2 / 2 * deepest + lam * deepest**2 + height
        half = m2 / (4 * lam)
        return -half + math.sqrt(half**2 + low / lam)

    reach, stiff = math.sqrt(edge(REACH)), 2 + max(m2 + 12 * lam * edge(12.0), 0.0)
    half = math.ceil(2 * reach * math.sqrt(stiff))
    return torch.arange(-half, half + 1, dtype=torch.float64) * (reach / half)


class Ring(NamedTuple):
    """T dx = exp(log_top) vectors diag(decay) vectors^T, decay[0] = 1; float64 on the CPU."""

    side: int
    x: Float[Tensor, " p"]
    vectors: Float[Tensor, "p r"]
    decay: Float[Tensor, " r"]
    log_top: float

    @property
    def log_Z(self) -> float:
        """log Tr (T dx)^side."""
        return self.side * self.log_top + float(self.decay.pow(self.side).sum().log())

    def moment(self, *where: int) -> float:
        """E of the product of the fields at the sites `where`, equal ones allowed."""
        order = sorted(k % self.side for k in where)
        gaps = [b - a for a, b in zip(order, [*order[1:], order[0] + self.side], strict=True)]
        field = self.vectors.T @ (self.x[:, None] * self.vectors)
        product = torch.eye(len(field), dtype=torch.float64)
        for gap in gaps:
            product = product @ (field * self.decay.pow(gap))
        return float(product.trace() / self.decay.pow(self.side).sum())

    def mean_modulus(self, nodes: int = 200) -> float:
        """E |M|, M the mean of the fields.

        (2 / pi) int_0^inf (1 - c(a)) / a^2 da with c(a) = E cos(a M) = Tr (E_a T)^side / Tr T^side,
        E_a = exp(i a x / side); c is below 1e-10 beyond the upper end, which is found by doubling.
        """
        top = 1.0
        while abs(self._characteristic(torch.tensor([top, 0.9 * top])).abs().max()) > 1e-10:
            top *= 2
        a, weight = (torch.as_tensor(v) for v in np.polynomial.legendre.leggauss(nodes))
        a, weight = top / 2 * (a + 1), top / 2 * weight
        inner = (weight * (1 - self._characteristic(a)) / a.square()).sum()
        return 2 / math.pi * float(inner + 1 / top)

    def _characteristic(self, a: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
        wave = torch.exp(1j * a.double()[:, None] * self.x / self.side)
        v = self.vectors.to(wave.dtype)
        step = (v.T * wave[:, None]) @ v * self.decay
        power = torch.linalg.matrix_power(step, self.side)
        return power.diagonal(dim1=-2, dim2=-1).sum(-1).real / self.decay.pow(self.side).sum()

    def sample(self, n: int, generator: Generator) -> Float[Tensor, "n half"]:
        """i.i.d. fields at the sites 0, 2, 4, ..., on the grid: the first from the diagonal of
        T^side, each further one given the one before and the first."""
        device = generator.device
        v, decay = self.vectors.to(device), self.decay.to(device)

        def power(k: int) -> Tensor:
            return ((v * decay.pow(k)) @ v.T).clamp(min=0)  # below 0 by rounding only

        def pick(weight: Tensor) -> Tensor:
            cdf = weight.cumsum(-1)
            u = torch.rand((n, 1), generator=generator, device=device, dtype=torch.float64)
            return torch.searchsorted(cdf, u * cdf[:, -1:])[:, 0].clamp(max=len(v) - 1)

        first = pick(power(self.side).diagonal().expand(n, -1))
        chosen, two = [first], power(2)
        for k in range(2, self.side, 2):
            chosen.append(pick(two[chosen[-1]] * power(self.side - k)[first]))
        return self.x.to(device)[torch.stack(chosen, 1)]


@lru_cache(maxsize=8)
def ring(side: int, m2: float, lam: float) -> Ring:
    x = sites(m2, lam)
    half = potential(x, m2, lam) / 2
    log_t = -(x[:, None] - x).square() / 2 - half[:, None] - half
    top = float(log_t.max())
    value, vectors = torch.linalg.eigh(torch.exp(log_t - top))
    value, vectors = value.flip(0), vectors.flip(1)
    decay = value / value[0]
    resolved = decay > 1e-17
    log_top = top + float(value[0].log()) + math.log(float(x[1] - x[0]))
    return Ring(side, x, vectors[:, resolved], decay[resolved], log_top)


def heat_bath(pull: Tensor, neighbours: int, m2: float, lam: float, generator: Generator) -> Tensor:
    """Draws of density exp(-lam x^4 - (neighbours + m2) x^2 / 2 + pull x) up to a constant, one for
    each entry of `pull`, the sum of the neighbours: exact, by rejection.

    lam x^4 = lam (x^2 - s)^2 + 2 lam s x^2 - lam s^2 for any s, so that a draw of the Gaussian of
    precision a = neighbours + m2 + 4 lam s and mean pull / a is kept with probability
    exp(-lam (x^2 - s)^2).  s is the mean square of that Gaussian itself: a cubic in a, increasing
    from its root on.
    """
    bare = neighbours + m2
    a = max(bare, 0) + (4 * lam * pull.square()).pow(1 / 3) + math.sqrt(4 * lam)  # above the root
    for _ in range(12):  # Newton; where it ends moves the rate, not the law
        value = ((a - bare) * a - 4 * lam) * a - 4 * lam * pull.square()
        a = a - value / ((3 * a - 2 * bare) * a - 4 * lam)
    s = (pull / a).square() + 1 / a if lam == 0 else (a - bare) / (4 * lam)
    x, left = torch.empty_like(pull).flatten(), torch.arange(pull.numel(), device=pull.device)
    mean, width, s = (pull / a).flatten(), a.rsqrt().flatten(), s.flatten()
    options: dict[str, Any] = {"generator": generator, "device": pull.device, "dtype": pull.dtype}
    while len(left):
        y = mean[left] + width[left] * torch.randn(len(left), **options)
        accepted = torch.rand(len(left), **options) < torch.exp(
            -lam * (y.square() - s[left]).square()
        )
        x[left[accepted]] = y[accepted]
        left = left[~accepted]
    return x.reshape(pull.shape)


@lru_cache(maxsize=32)
def bethe_rms(neighbours: int, m2: float, lam: float) -> float:
    """The rms field on the tree of `neighbours` neighbours a site: the square lattice (4) of side 8
    is within 5 % of it (lam = 0.5, m2 from -2.8 to -1.2), a long chain (2) equal to it."""
    x = sites(m2 + neighbours - 2, lam)
    kernel = torch.exp(-(x[:, None] - x).square() / 2)
    v = potential(x, m2, lam)
    weight = torch.exp(v.min() - v)
    message = torch.exp(0.05 * x)  # breaks the symmetry where the tree does
    for _ in range(1000):
        new = kernel @ (weight * message.pow(neighbours - 1))
        new, old = new / new.max(), message
        message = new
        if float((new - old).abs().max()) < 1e-9:
            break
    law = weight * message.pow(neighbours)
    return math.sqrt(float((law @ x.square()) / law.sum()))
