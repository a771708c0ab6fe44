"""The symmetries that a target states, tried on its log rho or reward."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.check.findings import Finding, expect
from tiltbench.targets.target import Target

Function = Callable[[Tensor], Tensor]


def symmetries(
    target: Target, f: Function, called: str, x: Float[Tensor, "n d"]
) -> Iterator[Finding]:
    """f at x against f at x moved by all that `particles`, `alike`, `chiral` and `lattice` state of
    the target."""
    if target.particles is not None:
        for what, y in _particles_moved(x, target, target.particles):
            yield _same(f, x, y, called, what)
    if target.lattice is not None:
        for what, y in _field_moved(x, target.lattice):
            yield _same(f, x, y, called, what)


def _particles_moved(
    x: Float[Tensor, "n d"], target: Target, particles: tuple[int, int]
) -> Iterator[tuple[str, Tensor]]:
    n, d = particles
    g = Generator().manual_seed(19)
    each = x.unflatten(-1, particles)
    turn = torch.linalg.qr(torch.randn(d, d, generator=g, dtype=x.dtype)).Q
    turn[:, 0] *= torch.linalg.det(turn)  # a rotation
    yield "rotations", (each @ turn).flatten(-2)
    mirror = torch.ones(d, dtype=x.dtype)
    mirror[0] = -1.0
    if not target.chiral:
        yield "reflections", (each * mirror).flatten(-2)
    order = torch.arange(n).repeat(len(x), 1)
    for group in target.alike:
        places = torch.tensor(group)  # an order of its own for each point
        order[:, places] = places[torch.rand(len(x), len(group), generator=g).argsort(-1)]
    permuted = each.gather(1, order[..., None].expand(each.shape))
    yield "permutations of the particles", permuted.flatten(-2)
    shift = target.scale * torch.randn(d, generator=g, dtype=x.dtype)
    yield "translations", (each + shift).flatten(-2)


def _field_moved(x: Float[Tensor, "n d"], lattice: tuple[int, ...]) -> Iterator[tuple[str, Tensor]]:
    field = x.unflatten(-1, lattice)
    for axis in range(len(lattice)):
        yield f"translations along axis {axis} of the lattice", field.roll(1, axis + 1).flatten(1)
    yield "x -> -x", -x


def _same(f: Function, x: Tensor, y: Tensor, called: str, what: str) -> Finding:
    there, here = f(y), f(x)
    return expect(
        torch.allclose(there, here, rtol=1e-6, atol=1e-6),
        f"{called} is the same under {what}",
        f"{called} changes under {what}, at most by {float((there - here).abs().max()):.3g}",
        "state `particles`, `alike` or `lattice` only for laws with that symmetry, and `chiral` "
        "where mirror images differ",
    )
