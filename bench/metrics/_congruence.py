"""Least squared distances between configurations of particles over every relabelling and rigid
motion g that leaves their law as it is: min over g of |x - g y|^2."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import permutations, product

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tiltbench.targets.target import Groups, Target

Least = Callable[[Tensor, Tensor], Tensor]  # (n, k, d), (m, k, d), centred -> (n, m)

FEW = 5  # particles in the plane whose permutations are all tried
MANY = 20  # particles in space that are still aligned
STARTS = 12  # alignments of each pair that are followed to their end
ROUNDS = 20  # of assignment and rotation: they end by themselves after about five
TRIED = 24  # permutations within groups that are all tried
FITTED = 200  # configurations a side of particles that differ
PAIRS = 2**14  # held at once


def aligner(target: Target) -> tuple[Least, int] | None:
    """How to find the least squared distances between configurations of a target's particles, and
    for how many a side that takes seconds; None where it has none, or it takes too long."""
    if target.particles is None:
        return None
    n, space = target.particles
    if target.alike == (tuple(range(n)),) and not target.chiral:
        return least(n, space)
    return partial(in_order, target.alike, target.chiral), FITTED


def least(particles: int, space: int) -> tuple[Least, int] | None:
    """The same of like particles, whose mirror images are equal."""
    if space == 1:
        return on_the_line, 2000
    if space == 2 and particles <= FEW:
        return in_the_plane, 2000
    if space == 3 and particles <= MANY:
        return in_space, 100
    return None


def on_the_line(x: Float[Tensor, "n k 1"], y: Float[Tensor, "m k 1"]) -> Float[Tensor, "n m"]:
    """Exact: sorted positions are matched in order, as they are or reflected."""
    x = x[..., 0].sort(-1).values
    both = (torch.cdist(x, (sign * y[..., 0]).sort(-1).values) for sign in (1, -1))
    return torch.minimum(*both).square()


def in_the_plane(x: Float[Tensor, "n k 2"], y: Float[Tensor, "m k 2"]) -> Float[Tensor, "n m"]:
    """Exact: every permutation, the best rotation and reflection of each in closed form.

    With positions as complex numbers the best rotation gains |sum conj(x_i) y_i|, the best
    reflection |sum x_i y_i|, and the least distance is |x|^2 + |y|^2 - 2 max of both."""
    parts = []
    for order in permutations(range(y.shape[1])):
        a, b = y[:, list(order), 0], y[:, list(order), 1]
        parts.append([torch.cat(pair, 1).T for pair in ((a, b), (b, -a), (a, -b), (b, a))])
    rows = []
    for block in x.split(max(PAIRS // len(y), 1)):
        flat = block.transpose(1, 2).flatten(1)
        gain = flat.new_zeros(len(flat), len(y))
        for p, q, r, s in parts:
            rotated = (flat @ p).square_().add_((flat @ q).square_())
            reflected = (flat @ r).square_().add_((flat @ s).square_())
            gain = torch.maximum(gain, torch.maximum(rotated, reflected))
        rows.append(gain.sqrt_())
    return (_norms(x)[:, None] + _norms(y) - 2 * torch.cat(rows)).clamp(min=0)


def in_space(x: Float[Tensor, "n k 3"], y: Float[Tensor, "m k 3"]) -> Float[Tensor, "n m"]:
    """An upper bound: the least that alternating assignments and rotations end at.

    The principal axes of both are laid on each other in all 48 ways.  The STARTS ways whose nearest
    neighbours are nearest are followed: the best assignment (Hungarian method), then the best
    rotation or reflection (Kabsch 1976), until the assignment stays.  Two congruent configurations
    whose moments of inertia differ are found to be so."""
    x, y = _upright(x), _upright(y)
    rows = [_aligned(block, y) for block in x.split(max(PAIRS // len(y), 1))]
    return (_norms(x)[:, None] + _norms(y) - 2 * torch.cat(rows)).clamp(min=0)


def in_order(
    alike: Groups, chiral: bool, x: Float[Tensor, "n k d"], y: Float[Tensor, "m k d"]
) -> Float[Tensor, "n m"]:
    """Of particles that differ, but for those of the groups `alike`.

    Up to TRIED permutations: each, with its best rotation (Kabsch 1976), which is exact.  More: the
    best rotation of the particles in no group, then in turns the best assignment within each group
    and the best rotation of all, an upper bound."""
    rows = [
        _matched(alike, chiral, block, y).reshape(len(block), len(y))
        for block in x.split(max(PAIRS // len(y), 1))
    ]
    return (_norms(x)[:, None] + _norms(y) - 2 * torch.cat(rows)).clamp(min=0)


def _matched(alike: Groups, chiral: bool, x: Tensor, y: Tensor) -> Float[Tensor, " pairs"]:
    """The largest sum_i x_i . R y_p(i) that is found, for every pair."""
    from scipy.optimize import linear_sum_assignment

    n, m, (k, d) = len(x), len(y), x.shape[1:]
    left = x[:, None].expand(n, m, k, d).reshape(n * m, k, d)
    right = y[None].expand(n, m, k, d).reshape(n * m, k, d).clone()
    if math.prod(math.factorial(len(group)) for group in alike) <= TRIED:
        every = [_kabsch(left, right[:, order], chiral)[1] for order in _orders(k, alike)]
        return torch.stack(every).amax(0)
    named = {one for group in alike for one in group}
    fixed = [one for one in range(k) if one not in named] or list(range(k))
    right = right @ _kabsch(left[:, fixed], right[:, fixed], chiral)[0]
    best = x.new_zeros(n * m)
    for _ in range(ROUNDS):
        for group in map(list, alike):
            gain = (left[:, group] @ right[:, group].mT).numpy()
            order = np.stack([linear_sum_assignment(g, maximize=True)[1] for g in gain])
            chosen = torch.from_numpy(order)[..., None].expand(-1, -1, d)
            right[:, group] = right[:, group].gather(1, chosen)
        turn, total = _kabsch(left, right, chiral)
        right = right @ turn
        better = bool((total > best + 1e-9).any())
        best = torch.maximum(best, total)
        if not better:
            break
    return best


def _orders(k: int, alike: Groups) -> Iterator[list[int]]:
    """All permutations of k particles within the groups."""
    for choice in product(*(permutations(group) for group in alike)):
        order = list(range(k))
        for group, places in zip(alike, choice, strict=True):
            for here, there in zip(group, places, strict=True):
                order[here] = there
        yield order


def _kabsch(x: Tensor, y: Tensor, chiral: bool) -> tuple[Float[Tensor, "p d d"], Tensor]:
    """(R, sum_i x_i . y_i R) of the best rotation R of each pair, or reflection unless chiral."""
    u, s, v = torch.linalg.svd(y.mT @ x)
    if chiral:
        sign = torch.linalg.det(u @ v).sign()
        u, s = u.clone(), s.clone()
        u[..., -1] *= sign[:, None]
        s[..., -1] *= sign
    return u @ v, s.sum(-1)


def _norms(x: Tensor) -> Tensor:
    return x.square().sum((1, 2))


def _upright(x: Float[Tensor, "n k 3"]) -> Float[Tensor, "n k 3"]:
    """Each configuration along its principal axes."""
    return x @ torch.linalg.eigh(x.mT @ x).eigenvectors


def _aligned(x: Float[Tensor, "n k 3"], y: Float[Tensor, "m k 3"]) -> Float[Tensor, "n m"]:
    """The largest sum_i x_i . R y_p(i) that is found, for every pair."""
    n, m, k = len(x), len(y), x.shape[1]
    turns = _signed_permutations(x)
    pairs = (x[:, None].expand(n, m, k, 3), y[None].expand(n, m, k, 3))
    left, right = (z.reshape(n * m, k, 3) for z in pairs)
    loose = torch.stack([_loose(left, right @ turn) for turn in turns], 1)
    chosen = loose.topk(min(STARTS, len(turns)), 1).indices
    best = x.new_zeros(n * m)
    for turn in chosen.unbind(1):
        best = torch.maximum(best, _followed(left, right @ turns[turn]))
    return best.reshape(n, m)


def _signed_permutations(like: Tensor) -> Float[Tensor, "48 3 3"]:
    eye = torch.eye(3, dtype=like.dtype, device=like.device)
    signs = [
        torch.tensor(s, dtype=like.dtype, device=like.device) for s in product((1, -1), repeat=3)
    ]
    return torch.stack([sign * eye[list(p)] for p in permutations(range(3)) for sign in signs])


def _loose(x: Float[Tensor, "p k 3"], y: Float[Tensor, "p k 3"]) -> Float[Tensor, " p"]:
    """Minus the squared distances of all particles to their nearest in the other configuration."""
    squared = torch.cdist(x, y).square()
    return -squared.amin(1).sum(-1) - squared.amin(2).sum(-1)


def _followed(x: Float[Tensor, "p k 3"], y: Float[Tensor, "p k 3"]) -> Float[Tensor, " p"]:
    """sum_i x_i . R y_p(i) where assignment and rotation have come to rest."""
    from scipy.optimize import linear_sum_assignment

    value = torch.zeros(len(x), dtype=x.dtype)
    going = torch.arange(len(x))
    for _ in range(ROUNDS):
        gain = (x[going] @ y[going].mT).numpy()
        order = torch.from_numpy(
            np.stack([linear_sum_assignment(g, maximize=True)[1] for g in gain])
        )
        matched = y[going].gather(1, order[..., None].expand(-1, -1, 3))
        u, s, v = torch.linalg.svd(matched.mT @ x[going])
        total = s.sum(-1)
        better = total > value[going] + 1e-9
        value[going] = torch.maximum(total, value[going])
        y = y.index_copy(0, going, y[going] @ (u @ v))
        going = going[better]
        if not len(going):
            break
    return value
