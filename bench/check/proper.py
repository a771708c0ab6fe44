"""Whether exp(log rho) has a finite integral, judged by how log rho behaves far out.

Two conditions hold for every density on R^d.  In polar coordinates r^d rho(r u) has a finite
integral over log r for almost every direction u; and by Fubini's theorem r rho(x + r u) has one for
any fixed u and almost every x.  A law that keeps either product up to 10^8 scales out, at
points drawn at random, is taken for improper.  Energies in the place of their negatives, densities
in the place of their logarithms and forgotten priors all fail here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from tiltbench.check.findings import Finding
from tiltbench.check.symmetries import Function
from tiltbench.check.truth import gradient, log_integrand
from tiltbench.targets.target import Density, Target

RADII = 10.0 ** torch.arange(2, 9, dtype=torch.float64)  # scales
SLOWEST = 0.01  # the power of r by which the products must fall
RAYS, PLACES, AXES = 32, 4, 16
MOST = 300  # dimensions up to which flat directions are looked for by the gradients


class Far(NamedTuple):
    """log f along rays x + r u: its values at RADII, and whether it falls fast enough."""

    values: Tensor  # (n, radii)
    falls: Tensor  # (n,)


def proper(target: Target, f: Function, called: str) -> Iterator[Finding]:
    log_f = log_integrand(target)
    if log_f is None:
        yield Finding(True, "whether Z is finite was not tried: the base has no density")
        return
    g = Generator().manual_seed(31)
    x, u = (_inside(target, torch.randn(RAYS, target.dim, generator=g, dtype=torch.float64)),) * 2
    u = u / u.norm(dim=-1, keepdim=True)
    rays = _far(log_f, target, 0 * u, u, target.rank)
    x = target.scale * x
    with torch.no_grad():
        near = log_f(x)
    lines = None
    if isinstance(target, Density):
        if _rises(near, rays):
            what = f"{called} grows without bound away from the origin: it looks like an energy"
            yield Finding(False, what, f"return its negative: {called} = -E, up to a constant")
            return
        if _is_density(log_f, target, u, near, rays):
            what = f"{called} is never negative and goes to 0 far out: it looks like the density"
            yield Finding(False, what, "return its logarithm; zero density is -inf")
            return
    remedy = (
        "add what bounds it there (a prior, a wall); if it is blind to translations by design, "
        "state `particles`"
        if isinstance(target, Density)
        else "let the reward grow more slowly than the density of the base falls"
    )
    whole = f"exp({called})" if isinstance(target, Density) else f"the base times exp({called})"
    if (~rays.falls).sum() > 1:
        along = u[int((~rays.falls).nonzero()[0])]
        what = f"{whole} has no finite integral: it does not fall fast enough along {_named(along)}"
        yield Finding(False, what, remedy)
        return
    for direction in _directions(target, log_f):
        start = x[:PLACES]
        for way in (direction, -direction):
            lines = _far(log_f, target, start, way.expand_as(start), 1)
            if (~lines.falls).sum() < PLACES / 2:
                continue
            with torch.no_grad():
                level = bool((lines.values == log_f(start)[:, None]).all())
            how = "does not change" if level else "does not fall"
            what = f"{whole} has no finite integral: {called} {how} along {_named(way)}"
            yield Finding(False, what, remedy)
            return
    yield Finding(True, f"{whole} falls fast enough along all rays tried")


def _inside(target: Target, x: Tensor) -> Tensor:
    return target.project(x)


@torch.no_grad()
def _far(log_f: Function, target: Target, x: Tensor, u: Tensor, power: int) -> Far:
    """Along x + r u, where r^power exp(log_f) must fall.  NaN, of an overflow, ends a ray."""
    r = target.scale * RADII
    values = log_f(x[:, None] + r[:, None] * u[:, None])
    sound = (~values.isnan()).cumprod(-1).sum(-1)  # radii before the first NaN
    last = (sound - 1).clamp(min=1)[:, None]
    here, before = values.gather(1, last)[:, 0], values.gather(1, last - 1)[:, 0]
    rise = (here - before) / math.log(10) + power
    falls = (here == -math.inf) | (rise < -SLOWEST) | (sound < 2)
    return Far(values, falls)


def _rises(near: Tensor, rays: Far) -> bool:
    """Nearly all rays end far above the values near the origin."""
    end = rays.values.nan_to_num(-math.inf).amax(-1)
    inside = near[near.isfinite()]
    if not len(inside):
        return False
    above = (end > float(inside.max()) + 10) & ~rays.falls
    return bool(above.double().mean() > 0.9)


def _is_density(log_f: Function, target: Target, u: Tensor, near: Tensor, rays: Far) -> bool:
    far = rays.values[:, -1]
    if not bool((near >= 0).all() and (near > 0).any() and (rays.values >= 0).all()):
        return False
    below = bool(far.max() <= 1e-3 * near.max())
    return below and bool(_far(lambda x: log_f(x).log(), target, 0 * u, u, target.rank).falls.all())


def _directions(target: Target, log_f: Function) -> list[Tensor]:
    """Along the axes, where they are few, and where the gradient never changes."""
    d, directions = target.dim, []
    if d <= AXES and target.rank == d:
        directions += list(torch.eye(d, dtype=torch.float64))
    if d > MOST:
        return directions
    g = Generator().manual_seed(37)
    x = torch.randn(2 * d + 8, d, generator=g, dtype=torch.float64)
    slopes = target.project(gradient(log_f, target.scale * target.project(x)))
    slopes = slopes[slopes.isfinite().all(-1)]
    if len(slopes) < d + 2:
        return directions
    left = torch.linalg.svd(slopes - slopes.mean(0), full_matrices=True)
    size = left.S
    for i in range(d):
        if size[i] <= 1e-9 * max(float(size[0]), 1e-300):
            v = target.project(left.Vh[i])
            if v.norm() > 0.5 and len(directions) < 2 * AXES:
                directions.append(v / v.norm())
    return directions


def _named(u: Tensor) -> str:
    """A direction in words: `coordinate 2`, or its first components."""
    big = int(u.abs().argmax())
    if float(u.abs()[big]) > 1 - 1e-9:
        return f"coordinate {big}, towards {'+' if float(u[big]) > 0 else '-'}infinity"
    shown = ", ".join(f"{v:.2g}" for v in u[:6].tolist())
    return f"({shown}{', ...' if len(u) > 6 else ''})"
