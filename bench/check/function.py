"""Log rho or a reward as a function: what it answers, to which points, and its gradient.

Each mistake gets the sentence that names it, so that the order matters: a function that is NaN, or
random, also differs between a batch and its points.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor
from torch.overrides import TorchFunctionMode

from tiltbench.check.findings import Finding, Snapshot, expect
from tiltbench.check.symmetries import Function
from tiltbench.check.truth import gradient
from tiltbench.targets.target import Target, test_point

LIKE_X = "make constants with the dtype and device of x (x.new_tensor, .to(x))"
IN_PYTORCH = (
    "write it in PyTorch, or wrap the NumPy function: from_numpy of tiltbench.targets.functions"
)
IN_PLACE = "make new tensors: no +=, no x[...] = and no functions that end in _"
ONE_A_POINT = "return one number a point: sum over the last dimension, without keepdim"
ANY_BATCH = "let it map (*b, dim) to (*b): x[..., 0], unbind(-1), sum(-1)"
# What PyTorch says of a mistake, what the mistake is, and what to do about it.
MISTAKES = (
    (("numpy()", "numpy.ndarray", "np.ndarray"), "computes in NumPy", IN_PYTORCH),
    (("in-place operation",), "changes x in place, which corrupts the draws", IN_PLACE),
    (
        ("Boolean value of Tensor",),
        "decides by the truth of a tensor of many points",
        "write torch.where(condition, a, b) for `a if condition else b`",
    ),
    (
        ("converted to Scalar", "only one element tensors", "converted to Python scalars"),
        "turns tensors into Python numbers",
        "use torch's functions on whole tensors: torch.exp, not math.exp; no float(), no .item()",
    ),
    (
        ("same dtype", "expected scalar type", "but found Double", "but found Float"),
        "has constants of a dtype of their own",
        LIKE_X,
    ),
    (("NVIDIA", "CUDA", "cuda", "on device"), "names a device of its own", LIKE_X),
)


def points(target: Target, *shape: int, spread: float = 1.0) -> Tensor:
    g = Generator().manual_seed(7)
    x = torch.randn(*shape, target.dim, generator=g, dtype=torch.float64)
    return spread * target.scale * x


def answers(target: Target, f: Function, called: str) -> Iterator[Finding]:
    """A tensor for a batch of points, which it leaves as they are."""
    x = points(target, 5)
    snapshot = Snapshot(x)
    try:
        y: Any = f(x)
        if not snapshot.changed:
            f(points(target, 5).requires_grad_())
    except Exception as error:
        yield _explained(target, f, called, error)
        return
    yield expect(
        not snapshot.changed,
        f"{called} leaves x as it is",
        f"{called} changes x in place, which corrupts the draws",
        IN_PLACE,
    )
    if isinstance(y, np.ndarray | np.generic):
        yield Finding(False, f"{called} computes in NumPy", IN_PYTORCH)
    if not isinstance(y, Tensor):
        kind = type(y).__name__
        forgotten = " (is a `return` missing?)" if y is None else ""
        what = f"{called} returns {kind}{forgotten}, not a tensor with one number a point"
        yield Finding(False, what, ONE_A_POINT)


def _explained(target: Target, f: Function, called: str, error: Exception) -> Finding:
    """What an exception of f at five points says about f."""
    if known := _known(called, error):
        return known
    message = f"{type(error).__name__}: {' '.join(str(error).split())}"
    if _shape_of(f, points(target)) == ():
        return Finding(
            False, f"{called} takes one point and no batch of them: {message}", ANY_BATCH
        )
    some = torch.ones(5, 2 * target.dim + 1, dtype=torch.float64)
    fitting = [d for d in range(1, some.shape[1] + 1) if _shape_of(f, some[:, :d]) == (5,)]
    if len(fitting) == 1:
        what = f"{called} takes points of {fitting[0]} coordinates, and dim is {target.dim}"
        return Finding(False, what, "let dim be the number of coordinates that it reads")
    what, remedy = f"{called} raises {message}", "mend what the message names"
    return Finding(False, what, f"write `def {called}(self, x):`" if _arity(message) else remedy)


def _arity(message: str) -> bool:
    return "takes 1 positional argument but 2 were given" in message


def _known(called: str, error: Exception) -> Finding | None:
    """The mistake behind an exception, by what PyTorch says, or by the file that raised it."""
    message = " ".join(str(error).split())
    where = {frame.filename for frame in traceback.extract_tb(error.__traceback__)}
    if any("numpy" in name.replace("\\", "/").split("/") for name in where):
        return Finding(False, f"{called} computes in NumPy: {message}", IN_PYTORCH)
    for pieces, mistake, remedy in MISTAKES:
        if any(piece in message for piece in pieces):
            return Finding(False, f"{called} {mistake}: {message}", remedy)
    return None


def _shape_of(f: Function, x: Tensor) -> tuple[int, ...] | None:
    """None where f does not take x."""
    try:
        y = f(x)
    except Exception:
        return None
    return tuple(y.shape) if isinstance(y, Tensor) else None


def shapes(target: Target, f: Function, called: str) -> Iterator[Finding]:
    d = target.dim
    for shape in ((5,), (2, 3), ()):
        x = points(target, *shape)
        try:
            returned = tuple(f(x).shape)
        except Exception as error:
            message = f"{type(error).__name__}: {' '.join(str(error).split())}"
            what = f"{called} fails at x of shape {tuple(x.shape)}: {message}"
            yield _known(called, error) or Finding(False, what, ANY_BATCH)
            return
        remedy = ONE_A_POINT
        what = f"{called} at x of shape {(*shape, d)} has shape {returned}, not {shape}"
        if shape and returned == ():
            what = f"{called} sums over the batch: at x of shape {(*shape, d)} it is one number"
        elif returned != (*shape, 1) and returned != (*shape, d):
            remedy = ANY_BATCH
        yield expect(returned == shape, f"{called} maps {(*shape, d)} to {shape}", what, remedy)
    for dtype in (torch.float32, torch.float64):
        x = points(target, 4).to(dtype)
        try:
            y = f(x)
        except Exception as error:
            finding = _explained(target, f, called, error)
            yield finding._replace(what=f"{finding.what} at x of {dtype}")
            return
        yield expect(
            y.dtype == dtype,
            f"{called} keeps {dtype}",
            f"{called} at x of {dtype} is {y.dtype}",
            LIKE_X,
        )


def values(target: Target, f: Function, called: str) -> Iterator[Finding]:
    x = torch.cat([points(target, 500), points(target, 500, spread=10), points(target, 1) * 0])
    for some in (x, x.float()):
        y = f(some)
        bad = ~(y < math.inf)
        where = ", ".join(f"{v:.4g}" for v in some[bad][0][:6].tolist()) if bad.any() else ""
        whole = bool((y[bad] == math.inf).all()) and not (y == -math.inf).any()
        kind = "+inf" if whole else "NaN" if not (y == math.inf).any() else "NaN or +inf"
        yield expect(
            not bad.any(),
            f"{called} is finite or -inf up to 10 scales out, in {some.dtype}",
            f"{called} is {kind} at {int(bad.sum())} of {len(y)} points, "
            f"first at x = ({where}), in {some.dtype}",
            (
                "it looks like an energy: return its negative, which is -inf where the density is 0"
                if whole and bad.sum() > 1
                else "write it in logarithms (logsumexp, logaddexp, softplus); zero density is -inf"
            ),
        )
    y = f(x)
    empty = float((y == -math.inf).double().mean())
    if empty:
        yield Finding(True, f"{called} is -inf at {empty:.0%} of the points tried")
    yield expect(
        torch.equal(y, f(x)),
        f"{called} is the same function twice",
        f"{called} gives other values the second time",
        "leave randomness and state out of it",
    )
    few = points(target, 6)
    one = torch.stack([f(row) for row in few])
    yield expect(
        torch.allclose(f(few), one, rtol=1e-6, atol=1e-6),
        f"{called} of a batch is that of its points",
        f"{called} of a batch differs from {called} of its points one by one",
        "let no point see the others: reduce over the last dimension only",
    )


def test_value(target: Target, f: Function, called: str) -> Iterator[Finding]:
    if target.test_value is None:
        return
    value = float(f(test_point(target)))
    by_default = target == type(target)()
    yield expect(
        not by_default or abs(value - target.test_value) < 1e-9 * max(1, abs(value)),
        "has its test_value at the test point",
        f"{called} at the test point is {value:.12g}, test_value says {target.test_value:.12g}",
        "if a constant was meant to change, raise `version` and state the new value",
    )


def gradients(target: Target, f: Function, called: str) -> Iterator[Finding]:
    """By autograd against central differences; a function without a graph must be piecewise
    constant, as a law that is uniform on a box is."""
    x, v = points(target, 40, spread=0.7), points(target, 40).flip(0)
    v, h = v / v.norm(dim=-1, keepdim=True), 1e-5 * target.scale
    ahead, behind = f(x + h * v), f(x - h * v)
    inside = (ahead.isfinite() & behind.isfinite() & f(x).isfinite()).detach()
    if not inside.any():
        yield Finding(True, f"the gradient of {called} was not checked: no point tried has density")
        return
    g = gradient(f, x)[inside]
    yield expect(
        bool(g.isfinite().all()),
        f"the gradient of {called} is finite",
        f"the gradient of {called} is not finite at {int((~g.isfinite().all(-1)).sum())} points "
        "of finite value",
        "avoid sqrt, norm or log at zero, and where() around an infinite branch",
    )
    slope = ((ahead - behind) / (2 * h))[inside]
    along = (g * v[inside]).sum(-1)
    worst = float(((along - slope).abs() / slope.abs().clamp(min=1 / target.scale)).max())
    if worst < 1e-3:
        yield Finding(True, f"the gradient of {called} is that of finite differences")
        return
    off = f"the gradient of {called} is off finite differences by {worst:.2g} of itself"
    exits = _exits(f, x)
    if {"numpy", "__array__"} & set(exits):
        yield Finding(False, f"{called} computes in NumPy, so that {off}", IN_PYTORCH)
    named = f", after a call of {', '.join(exits)} inside" if exits else ""
    yield Finding(
        False, off + named, "let autograd see all of it: no detach, no .data, no rounding, no numpy"
    )


class _Watch(TorchFunctionMode):
    """Notes the calls by which a computation leaves autograd's sight."""

    NAMES = ("numpy", "__array__", "detach", "data", "item", "tolist", "tensor", "as_tensor")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name == "__get__":  # a property, such as x.data
            name = getattr(getattr(func, "__self__", None), "__name__", "")
        off = "set_grad_enabled" in name and not args[0]
        called = "no_grad" if off else name if name in self.NAMES else ""
        if called and called not in self.seen:
            self.seen.append(called)
        return func(*args, **(kwargs or {}))


def _exits(f: Callable[[Tensor], Tensor], x: Tensor) -> list[str]:
    x = x.detach().requires_grad_()
    with _Watch() as watch:
        f(x)
    return watch.seen
