"""The Ising model on an L x L torus: log Z by Kaufman, spins by transfer matrix or long runs.

Spins s in {-1, 1}, weight exp(beta sum over the 2 L^2 bonds of s_i s_j).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor

LARGEST_EXACT = 10  # rows of up to 10 spins: 1024 states


def log_partition(side: int, beta: Tensor) -> Tensor:
    """log Z on the torus, beta > 0 a float64 scalar; differentiable in beta.

    Kaufman, Phys. Rev. 76, 1232 (1949): with g_r from cosh g_r = cosh(2 beta) coth(2 beta)
    - cos(pi r / L), g_0 = 2 beta + log tanh beta (negative above the critical temperature),
    Z = (2 sinh 2 beta)^(L^2/2) / 2 times the sum of prod 2cosh(L g_r / 2) and prod 2sinh(L g_r / 2)
    over odd r and over even r, 0 <= r < 2 L.
    """
    r = torch.arange(1, 2 * side, dtype=torch.float64)
    level = torch.cosh(2 * beta) / torch.tanh(2 * beta) - torch.cos(math.pi * r / side)
    y = side * torch.acosh(level) / 2
    zero = side * (2 * beta + torch.log(torch.tanh(beta))) / 2
    log_cosh, log_sinh = y + torch.log1p(torch.exp(-2 * y)), y + torch.log(-torch.expm1(-2 * y))
    odd, even = slice(0, None, 2), slice(1, None, 2)  # r starts at 1
    logs = torch.stack(
        [
            log_cosh[odd].sum(),
            log_sinh[odd].sum(),
            log_cosh[even].sum() + torch.logaddexp(zero, -zero),
            log_sinh[even].sum(),
        ]
    )
    signs = torch.stack([torch.ones_like(beta)] * 3 + [2 * torch.sinh(zero)])
    top = logs.max().detach()
    total = top + torch.log((signs * torch.exp(logs - top)).sum())
    return side * side / 2 * torch.log(2 * torch.sinh(2 * beta)) + total - math.log(2)


def log_Z_and_slope(side: int, beta: float) -> tuple[float, float]:
    """(log Z, d log Z / d beta); the slope is the mean of sum over bonds of s_i s_j."""
    with torch.enable_grad():
        b = torch.tensor(beta, dtype=torch.float64, requires_grad=True)
        value = log_partition(side, b)
        (slope,) = torch.autograd.grad(value, b)
    return float(value.detach()), float(slope)


class RowTransfer(NamedTuple):
    """The transfer matrix of rows, T(s, s') = exp(beta (h(s)/2 + s . s' + h(s')/2)), h the bonds in
    a row, and its powers: exact for any beta.  2^L states; float64 on the CPU."""

    beta: float
    spins: Float[Tensor, "s l"]
    powers: Float[Tensor, "l1 s s"]  # T^0 .. T^L, each up to a factor

    def sample(self, n: int, generator: Generator) -> Float[Tensor, "n l l"]:
        """i.i.d. spins: the first row from the diagonal of T^L, each further row given the one
        before and the first."""
        device, side = generator.device, self.spins.shape[1]
        powers = self.powers.to(device)

        def pick(weight: Tensor) -> Tensor:
            return torch.multinomial(weight, 1, generator=generator)[:, 0]

        diagonal = powers[side].diagonal()
        first = torch.multinomial(diagonal, n, replacement=True, generator=generator)
        rows = [first]
        for k in range(1, side):
            rows.append(pick(powers[1][rows[-1]] * powers[side - k][first]))
        return self.spins.to(device)[torch.stack(rows, 1)]

    def two_point(self) -> Float[Tensor, "l l"]:
        """E s_(0,0) s_(i,j)."""
        side = self.spins.shape[1]
        table = []
        for i in range(side):
            joint = self.powers[i] * self.powers[side - i]
            table.append(self.spins[:, 0] @ (joint / joint.sum()) @ self.spins)
        return torch.stack(table)

    def magnetisation(self) -> Float[Tensor, " n1"]:
        """P(sum of spins = 2 k - N), k = 0..N, from its Fourier transform.

        Z(a) = E exp(i a sum s) = Tr T_a^L / Tr T^L at a = pi j / (N + 1), T_a = F T F with
        F = exp(i a sum s / 2) on a row.  Rows that differ by a rotation have equal diagonal
        entries, and T_a is symmetric, so that row r of T_a^(L/2) suffices.
        """
        side = self.spins.shape[1]
        sites = side * side
        angle = math.pi * torch.arange(sites // 2 + 1, dtype=torch.float64) / (sites + 1)
        start, count = _necklaces(self.spins)
        half = torch.exp(self.beta / 2 * (self.spins * self.spins.roll(1, 1)).sum(1))
        phase = torch.exp(0.5j * angle[:, None] * self.spins.sum(1))
        weight = (half * phase)[:, None]
        v = torch.eye(len(self.spins), dtype=torch.complex128)[start].expand(len(angle), -1, -1)
        seen = [v]
        for _ in range((side + 1) // 2):
            v = weight * _couple(weight * v, side, self.beta)
            v = v / v.abs().max()
            seen.append(v)
        trace = ((seen[side // 2] * seen[-1]).sum(-1).real * count).sum(-1)
        law = trace / trace[0]
        total = 2 * torch.arange(sites + 1, dtype=torch.float64) - sites
        wave = torch.cos(total[:, None] * angle) * torch.where(angle > 0, 2.0, 1.0)
        return ((wave @ law) / (sites + 1)).clamp(min=0)


def _couple(v: Tensor, side: int, beta: float) -> Tensor:
    """sum_s' exp(beta s . s') v(s') as L factors of 2 x 2, instead of one matrix of 4^L."""
    shape = v.shape
    for i in range(side):
        v = v.reshape(-1, 2, 2**i)
        a, b = v[:, :1], v[:, 1:]
        same, other = math.exp(beta), math.exp(-beta)
        v = torch.cat([same * a + other * b, other * a + same * b], 1)
    return v.reshape(shape)


def _necklaces(spins: Tensor) -> tuple[Tensor, Tensor]:
    """One index of each class of rows under rotation, and the sizes of the classes."""
    side = spins.shape[1]
    bit = 2 ** torch.arange(side)
    codes = torch.stack([((spins.roll(k, 1) > 0) * bit).sum(1) for k in range(side)])
    return torch.unique(codes.amin(0), return_counts=True)


@lru_cache(maxsize=8)
def row_transfer(side: int, beta: float) -> RowTransfer:
    state = torch.arange(2**side)[:, None] >> torch.arange(side) & 1
    spins = 2.0 * state.double() - 1
    inside = (spins * spins.roll(1, 1)).sum(1)
    log_t = beta * (spins @ spins.T + (inside[:, None] + inside) / 2)
    t = torch.exp(log_t - log_t.max())
    powers = [torch.eye(len(spins), dtype=torch.float64), t]
    while len(powers) <= side:
        power = powers[-1] @ t
        powers.append(power / power.max())
    return RowTransfer(beta, spins, torch.stack(powers))


def swendsen_wang(
    side: int, beta: float, n: int, generator: Generator, sweeps: int = 50
) -> Float[Tensor, "n l l"]:
    """n spin fields, each the end of a chain of `sweeps` of its own, from random spins.

    Swendsen and Wang, PRL 58, 86 (1987): clusters of equal spins, bonds kept with probability
    1 - exp(-2 beta), each cluster given a fresh spin.
    The slowest mode at the critical point decays within about L^0.25 sweeps, about 5 at L = 24."""
    device, sites = generator.device, side * side

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device=device)

    s = torch.where(uniform(n, side, side) < 0.5, 1.0, -1.0).double()
    chance = -math.expm1(-2 * beta)
    sites_by_number = torch.arange(sites, device=device).reshape(side, side).expand(n, -1, -1)
    for _ in range(sweeps):
        bonds = [(s == s.roll(-1, d)) & (uniform(n, side, side) < chance) for d in (1, 2)]
        label = sites_by_number
        while True:
            new = label
            for d, bond in zip((1, 2), bonds, strict=True):
                new = torch.where(bond, torch.minimum(new, new.roll(-1, d)), new)
                back = bond.roll(1, d)
                new = torch.where(back, torch.minimum(new, new.roll(1, d)), new)
            new = new.flatten(1)
            new = new.gather(1, new).reshape(label.shape)  # jump to the label's own label
            if torch.equal(new, label):
                break
            label = new
        side_of = torch.where(uniform(n, sites) < 0.5, 1.0, -1.0).double()
        s = side_of.gather(1, label.flatten(1)).reshape(s.shape)
    return s
