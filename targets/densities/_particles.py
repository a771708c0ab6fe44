"""Particles that interact in pairs: values and analytic gradients in one pass, and symmetries."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from tiltbench.targets.densities._analytic import Analytic, blocks

CACHE = 2**16  # pairs at once on the CPU, whose planes then stay in its cache; found by timing
LARGEST = 2**24  # pairs at once elsewhere: about 0.7 GB in single precision


class Particles(Analytic):
    """log rho = -sum_{i<j} phi(|x_i - x_j|^2) - (trap / 2) sum_i |x_i - c|^2, n particles in R^d.

    c is the centre of mass: translations, rotations, reflections and permutations leave rho as it
    is.  log rho is -inf, with the gradient 0, where a pair is nearer than `core` and where the
    energy overflows the dtype; elsewhere both are finite.  NaN gives NaN.

    Gradients are analytic and come from the same pass as the values; so are Hessian-vector
    products, whose autograd gives all higher derivatives.  There is no forward mode.
    """

    particles: ClassVar[tuple[int, int]]  # type: ignore[misc]  # a constant for a property
    trap: ClassVar[float] = 0.0
    core: ClassVar[float] = 0.0  # a hard one, part of the definition
    ceiling: ClassVar[float] = torch.inf  # below all energies with a pair in the core
    unit: ClassVar[float] = 1.0  # of `pair`'s forces: a factor saved on every pair

    @abstractmethod
    def pair(self, s: Tensor, energy: Tensor) -> Tensor:
        """2 phi'(s) / unit, elementwise; adds phi(s) to `energy` in place.  May overwrite s.

        The force is a multiple of x_i - x_j: at s = 0 anything finite does."""

    @abstractmethod
    def bend(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """(2 phi'(s), 4 s phi''(s)) at s > 0, elementwise and differentiable."""

    def fill(
        self,
        x: Float[Tensor, "b D"],
        value: Float[Tensor, " b"],
        slope: Float[Tensor, "b D"] | None,
    ) -> None:
        _fill(x, self, value, slope)

    def bent(
        self, x: Float[Tensor, "*b D"], v: Float[Tensor, "*b D"], alive: Tensor
    ) -> Float[Tensor, "*b D"]:
        return _bent(x, v, alive, self)

    def block(self, x: Tensor) -> int:
        return max(1, _room(x) // self.particles[0])


def distances(x: Float[Tensor, "*b D"], n: int, d: int) -> Float[Tensor, "*b pairs"]:
    """|x_i - x_j|, i < j."""
    i, j = torch.triu_indices(n, n, 1, device=x.device)
    y = x.unflatten(-1, (n, d))
    return torch.linalg.vector_norm(y[..., i, :] - y[..., j, :], dim=-1)


def _room(x: Tensor) -> int:
    return CACHE if x.device.type == "cpu" else LARGEST


def _fill(
    x: Float[Tensor, "b D"],
    law: Particles,
    value: Float[Tensor, " b"],
    slope: Float[Tensor, "b D"] | None,
) -> None:
    """log rho into `value` and its gradient into `slope`, of one block.

    The batch is innermost, so that all arithmetic runs on long rows."""
    n, d = law.particles
    half = n // 2
    y = x.reshape(len(x), n, d).permute(2, 1, 0).contiguous()
    rows = max(1, min(half, _room(x) // max(y[0].numel(), 1)))
    energy = y.new_zeros(rows, *y[0].shape)
    pull = y.new_zeros(d, n + half, len(x))  # on every particle, those written twice apart
    near = pull[:, :n]
    for k, delta, s in _pairs(y, rows):
        force = law.pair(s, energy[: len(s)])
        if 2 * (k + len(s) - 1) == n:  # comes first and has every pair twice
            energy[len(s) - 1] *= 0.5
            force[-1] *= 0.5
        if slope is not None:
            for j, (part, row) in enumerate(zip(delta.unbind(1), force, strict=True), k):
                near.addcmul_(part, row)
                pull[:, j : j + n].addcmul_(part, row, value=-1)
    total = energy.sum((0, 1))
    if law.trap:
        z = y - y.mean(1, keepdim=True)
        total += law.trap / 2 * z.square().sum((0, 1))
        near.sub_(z, alpha=law.trap / law.unit)
    void = ~(total < law.ceiling)
    torch.neg(total, out=value)
    if slope is not None:
        near[:, :half] += pull[:, n:]
        torch.mul(near.permute(2, 1, 0), law.unit, out=slope.view(len(x), n, d))
    if x.device.type != "cpu" or void.any():  # to ask a GPU costs more than to do it for nothing
        _empty(x, y, law, void, rows, value, slope)


def _pairs(
    y: Float[Tensor, "d n b"], rows: int
) -> Iterator[tuple[int, Float[Tensor, "d m n b"], Float[Tensor, "m n b"]]]:
    """(k, x_j - x_i, its square) where j = i + k, ..., i + k + m - 1 modulo n; over all yields the
    shifts are n // 2, ..., 1.

    The x_j are windows on the particles written out one and a half times: a view, no index.  Every
    pair comes once, but twice at the shift n / 2."""
    d, n, b = y.shape
    half = n // 2
    ring = torch.cat([y, y[:, :half]], 1)
    for top in range(half, 0, -rows):
        m = min(rows, top)
        k = top - m + 1
        window = ring.as_strided((d, m, n, b), (ring.stride(0), b, b, 1), k * b)
        delta = window - y[:, None]
        first, *others = delta.unbind()
        s = first.square()
        for part in others:
            s.addcmul_(part, part)
        yield k, delta, s


def _empty(
    x: Float[Tensor, "b D"],
    y: Float[Tensor, "d n b"],
    law: Particles,
    void: Tensor,
    rows: int,
    value: Float[Tensor, " b"],
    slope: Float[Tensor, "b D"] | None,
) -> None:
    """Zero density at the points of `void` that have a pair in the core or no finite energy; y are
    the points x with the batch innermost."""
    nearest = torch.stack([s.amin((0, 1)) for _, _, s in _pairs(y, rows)]).amin(0)
    inside = void & ((nearest < law.core**2) | ~value.isfinite())
    broken = x.isnan().any(-1)
    value.masked_fill_(inside, -torch.inf).masked_fill_(inside & broken, torch.nan)
    if slope is not None:
        slope.masked_fill_(inside[:, None], 0)


def _bent(x: Tensor, v: Tensor, alive: Tensor, law: Particles) -> Float[Tensor, "*b D"]:
    """The Hessian of log rho at x applied to v, 0 where not `alive`; differentiable.

    Written for vmap: no values decide, and v may have hidden dimensions that x has not."""
    n, d = law.particles
    flat, along, live = x.reshape(-1, n * d), v.reshape(-1, n * d), alive.reshape(-1)
    parts = []
    for block in blocks(flat, max(1, _room(flat) // n**2)):
        keep = live[block][:, None]
        # a dead configuration could turn to NaN by inf * 0: one without close pairs in its place
        line = torch.arange(n * d, dtype=x.dtype, device=x.device)
        y, w = (
            t.unflatten(-1, (n, d)).transpose(-1, -2)
            for t in (torch.where(keep, flat[block], line), along[block])
        )
        delta, turn = (t[..., None] - t[..., None, :] for t in (y, w))  # (b, d, n, n)
        s = delta.square().sum(-3, keepdim=True)
        apart = s > 0
        s = torch.where(apart, s, 1.0)
        first, second = law.bend(s)
        unit = delta * s.rsqrt()
        pairs = first * turn + second * (unit * turn).sum(-3, keepdim=True) * unit
        bent = torch.where(apart, pairs, 0.0).sum(-1)
        if law.trap:
            bent = bent + law.trap * (w - w.mean(-1, keepdim=True))
        parts.append(torch.where(keep, -bent.transpose(-1, -2).flatten(-2), 0.0))
    return torch.cat(parts).reshape(x.shape)
