"""The gradient that a target states beside its value, against autograd of the value alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tiltbench.check.device import devices
from tiltbench.check.findings import Finding, Snapshot, expect, until_broken
from tiltbench.check.function import LIKE_X, points
from tiltbench.check.symmetries import Function
from tiltbench.check.truth import gradient
from tiltbench.targets.target import Density, Target, Tilt

Both = Callable[[Tensor], Any]
ROUNDING = 1e-8  # of the largest entry at a point, in float64


def stated_gradient(target: Target, f: Function, called: str) -> Iterator[Finding]:
    """Nothing where the target leaves its gradient to autograd."""
    name = f"{called}_and_grad"
    default = getattr(Density if isinstance(target, Density) else Tilt, name)
    if getattr(type(target), name) is default:
        return
    both: Both = getattr(target, name)
    yield from until_broken(
        [
            (name, partial(_pair, target, both, name)),
            (name, partial(_as_autograd, target, f, both, called, name)),
            (name, partial(devices, target, lambda x: both(x)[1], name)),
        ]
    )


def _pair(target: Target, both: Both, name: str) -> Iterator[Finding]:
    """Two tensors without a graph, of the right shapes and dtypes; x stays as it is."""
    remedy = "return (value (*b), gradient (*b, dim)), both tensors"
    for shape in ((5,), (2, 3), ()):
        x = points(target, *shape)
        snapshot = Snapshot(x)
        pair = both(x)
        if not (isinstance(pair, tuple) and [isinstance(t, Tensor) for t in pair] == [True] * 2):
            what = f"{name} returns {type(pair).__name__}, not a value and a gradient"
            yield Finding(False, what, remedy)
        value, grad = pair
        yield expect(
            (value.shape, grad.shape) == (shape, x.shape),
            f"{name} maps {tuple(x.shape)} to {shape} and {tuple(x.shape)}",
            f"{name} at x of shape {tuple(x.shape)} has shapes {tuple(value.shape)} and "
            f"{tuple(grad.shape)}",
            remedy,
        )
        if snapshot.changed:
            what = f"{name} changes x in place, which corrupts the draws"
            yield Finding(False, what, "make new tensors: no +=, and no functions that end in _")
    for dtype in (torch.float32, torch.float64):
        value, grad = both(points(target, 4).to(dtype))
        yield expect(
            value.dtype == grad.dtype == dtype,
            f"{name} keeps {dtype}",
            f"{name} at x of {dtype} is {value.dtype} and {grad.dtype}",
            LIKE_X,
        )
    value, grad = both(points(target, 4).requires_grad_())
    yield expect(
        not (value.requires_grad or grad.requires_grad),
        f"{name} records no graph",
        f"{name} returns tensors with a graph, which keeps all that led to them in memory",
        "begin it with x = x.detach()",
    )


def _as_autograd(
    target: Target, f: Function, both: Both, called: str, name: str
) -> Iterator[Finding]:
    spreads = {0.7: 100, 1.0: 100, 10.0: 100, 0.0: 1}
    x = torch.cat([points(target, n, spread=spread) for spread, n in spreads.items()])
    value, grad = both(x)
    expected, slope = f(x).detach(), gradient(f, x)
    single, alone = x.float(), f(x.float()).detach()
    fine = alone.isfinite() & gradient(f, single).isfinite().all(-1)
    finite = [part.isfinite().reshape(len(x), -1).all(-1) for part in both(single)]
    lost = fine & ~(finite[0] & finite[1])
    yield expect(
        not lost.any(),
        f"{name} is finite in float32 wherever {called} and autograd are",
        f"{name} is not finite at {int(lost.sum())} of {len(x)} points in float32, where {called} "
        "and its gradient by autograd are",
        f"avoid exponentials and powers of large numbers, or leave {name} out",
    )
    gap = (value - expected).abs() / expected.abs().clamp(min=1)
    gap = torch.where(value == expected, 0.0, gap)  # -inf is -inf
    yield expect(
        bool((gap < ROUNDING).all()),
        f"the value of {name} is that of {called}",
        f"the value of {name} is off {called} by {float(gap.nan_to_num(torch.inf).max()):.2g} "
        "of itself",
        f"let both share the formula, or leave {name} out",
    )
    inside = expected.isfinite() & slope.isfinite().all(-1)
    g, s = grad[inside], slope[inside]
    size = s.abs().amax(-1).clamp(min=1 / target.scale)

    def off(g: Tensor) -> float:
        apart = (g - s).abs().amax(-1) / size
        return float(apart.nan_to_num(torch.inf).max()) if len(s) else 0.0

    reverse = "minus the gradient" if off(-g) < ROUNDING else "not the gradient"
    yield expect(
        off(g) < ROUNDING,
        f"the gradient of {name} is autograd's",
        f"what {name} states is {reverse} of {called}: off autograd's by {off(g):.2g} of itself",
        f"mend it, or leave {name} out: autograd then takes its place",
    )
