"""Floating-point operations, counted where torch runs them, so that nobody has to state them.

A matrix product or convolution costs what `torch.utils.flop_counter` says, 2 m n k; any other
operation costs one an element of its largest tensor, be it an argument or the result; a view costs
nothing.  Forward and backward passes, networks and targets are counted alike.  The count depends on
shapes alone, so it is the same on every machine.  What does not go through torch (NumPy, another
thread or process, the replay of a captured graph) is not seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from tiltbench.run.meter import BudgetExceeded

Price = Callable[[Sequence[Any], Mapping[str, Any], Any], float]  # (args, kwargs, result)


class ComputeExceeded(BudgetExceeded):
    """More floating-point operations than are allowed."""


class Operations(TorchDispatchMode):
    """Counts the operations run within it; raises ComputeExceeded at the first beyond `left`."""

    def __init__(self, left: float = math.inf) -> None:
        super().__init__()
        self.left, self.flops = left, 0.0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """False: nothing here is compiled, and torch would import its compiler, 1.4 CPU-seconds, to
        make sure of it, and pass every call through it."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if composed(func):  # of others, which torch takes apart itself but in inference mode
            with self:
                decomposed = func.decompose(*args, **named)
            if decomposed is not NotImplemented:
                return decomposed
        out = func(*args, **named)
        self.flops += price(func)(args, named, out)
        if self.flops > self.left:
            raise ComputeExceeded(
                f"{self.flops:.3g} floating-point operations, where {self.left:.3g} are left"
            )
        return out


@cache
def composed(func: Any) -> bool:
    """Whether an operation consists of others only, without a kernel of its own."""
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    if not isinstance(func, torch._ops.OpOverload) or not has(func.name(), COMPOSED):
        return False
    return not any(has(func.name(), key) for key in OWN)


COMPOSED, OWN = "CompositeImplicitAutograd", ("CPU", "CUDA", "CompositeExplicitAutograd")


@cache
def price(func: Any) -> Price:
    """How an operation of torch is priced."""
    if getattr(func, "is_view", False) or func in FREE:
        return _nothing
    packet = getattr(func, "overloadpacket", func)
    name = str(packet).removeprefix("aten.").removesuffix("_")  # in place: as its functional twin
    plain = getattr(torch.ops.aten, name, packet) if str(packet).startswith("aten.") else packet
    if name in PRICES:
        return PRICES[name]
    if plain in flop_registry:
        formula = flop_registry[plain]
        return lambda args, named, out: float(formula(*args, **named, out_val=out))
    return _linalg if "linalg" in name or name in SOLVERS else _elements


def _nothing(args: Sequence[Any], named: Mapping[str, Any], out: Any) -> float:
    return 0.0


def _elements(args: Sequence[Any], named: Mapping[str, Any], out: Any) -> float:
    most = out.numel() if isinstance(out, Tensor) else _size(out)
    for x in args:
        n = x.numel() if isinstance(x, Tensor) else _size(x)
        if n > most:
            most = n
    return float(max(most, *map(_size, named.values())) if named else most)


def _size(x: Any) -> int:
    if isinstance(x, Tensor):
        return x.numel()
    return sum(map(_size, x)) if isinstance(x, list | tuple) else 0


def _product(args: Sequence[Any], named: Mapping[str, Any], out: Any) -> float:
    """(*, m, k) by (*, k, n)."""
    return 2.0 * args[0].numel() * args[1].shape[-1]


def _added_product(args: Sequence[Any], named: Mapping[str, Any], out: Any) -> float:
    return 2.0 * args[1].numel() * args[2].shape[-1]


def _twice(args: Sequence[Any], named: Mapping[str, Any], out: Any) -> float:
    """A product of a matrix with a vector, or of two vectors."""
    return 2 * _elements(args, named, out)


def _pairs(args: Sequence[Any], named: Mapping[str, Any], out: Any) -> float:
    """Distances between all pairs: a difference, a square and a sum a coordinate."""
    return 3.0 * _size(out) * args[0].shape[-1]


def _pairs_back(args: Sequence[Any], named: Mapping[str, Any], out: Any) -> float:
    return 3.0 * _size(args[0]) * args[1].shape[-1]


def _linalg(args: Sequence[Any], named: Mapping[str, Any], out: Any) -> float:
    """Decompositions and solvers: n^3 for a square matrix, within a small factor."""
    matrices = [x for x in args if isinstance(x, Tensor) and x.dim() > 1]
    return float(max((x.numel() * min(x.shape[-2:]) for x in matrices), default=0))


def _transform(args: Sequence[Any], named: Mapping[str, Any], out: Any) -> float:
    """A Fourier transform: 5 n log2 n."""
    n = _size(args[0])
    return 5.0 * n * math.log2(max(n, 2))


PRICES: dict[str, Price] = {
    "mm": _product,
    "bmm": _product,
    "addmm": _added_product,
    "baddbmm": _added_product,
    "mv": _twice,
    "addmv": _twice,
    "dot": _twice,
    "vdot": _twice,
    "addr": _twice,
    "_cdist_forward": _pairs,
    "_cdist_backward": _pairs_back,
    "_euclidean_dist": _pairs,
    "addbmm": _added_product,
    "_addmm_activation": _added_product,
    "_fft_r2c": _transform,
    "_fft_c2r": _transform,
    "_fft_c2c": _transform,
}
SOLVERS = frozenset(
    {"cholesky_solve", "cholesky_inverse", "triangular_solve", "lu_unpack", "ormqr", "geqrf"}
)
FREE = frozenset(
    {
        torch.ops.aten.empty.memory_format,
        torch.ops.aten.empty_like.default,
        torch.ops.aten.empty_strided.default,
        torch.ops.aten.new_empty.default,
        torch.ops.aten._local_scalar_dense.default,
        torch.ops.aten.lift_fresh.default,
    }
)
