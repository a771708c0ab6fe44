"""Functions of points must not change the points: a target that does corrupts draws silently."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
Function = Callable[[Tensor], T]


class Impure(ValueError):
    """A function that changes its argument in place; the message names it and the remedy."""


def pure(f: Function[T], what: str, plain: Function[Any] | None = None) -> Function[T]:
    """f, raising Impure where it changes its argument x in place; `what` names f in the message.
    `plain` is what f is made of, where f takes derivatives of it.

    PyTorch counts the changes of a tensor, which costs nothing to read.  What goes past that count
    (`x.data`, `x.detach().numpy()`) is seen by its values, at calls 1, 2, 4, 8, ... only, and not
    while a CUDA graph is recorded, when there are no values."""
    calls, next_look = 0, 1

    def watched(x: Tensor) -> T:
        nonlocal calls, next_look
        calls += 1
        points = bare(x)
        before, copy = version(points), None
        if calls >= next_look and not recording(points):
            next_look = 2 * calls
            copy = points.clone()
        try:
            y = f(x)
        except RuntimeError as error:  # PyTorch refuses some changes itself, in words of its own
            refused = any(word in str(error) for word in ("in-place", "inplace", ".item()"))
            if refused and changes(plain or f, points):
                raise Impure(sentence(what)) from error
            raise
        if version(points) != before or (copy is not None and differs(points, copy)):
            raise Impure(sentence(what))
        return y

    return watched


def sentence(what: str, argument: str = "x") -> str:
    return (
        f"{what} changes its argument {argument} in place; "
        f"begin it with `{argument} = {argument}.clone()`"
    )


def changes(f: Function[T], x: Tensor) -> bool:
    """Whether f changes a copy of the points x."""
    copy = x.clone()
    try:
        with torch.no_grad():
            f(copy)
    except Exception:  # what it did until then counts as well
        pass
    return differs(copy, x)


def bare(x: Tensor) -> Tensor:
    """The tensor itself, without graph and without the wrappers of `torch.func`."""
    while torch._C._functorch.is_functorch_wrapped_tensor(x):
        x = torch._C._functorch.get_unwrapped(x)
    return x.detach()  # shares storage and count with x


def recording(x: Tensor) -> bool:
    """Whether what is done to x is recorded as a CUDA graph, and not done."""
    return x.is_cuda and torch.cuda.is_current_stream_capturing()


def version(x: Tensor) -> int:
    """How often x has been changed in place; 0 where PyTorch does not count (inference mode)."""
    return 0 if x.is_inference() else x._version


def differs(x: Tensor, copy: Tensor) -> bool:
    """Whether any value is another; NaN equals NaN."""
    return not bool(((x == copy) | (x.isnan() & copy.isnan())).all())


@contextmanager
def unchanged(what: str, arguments: Mapping[str, Tensor]) -> Iterator[None]:
    """Raises Impure where what happens inside changes one of the tensors in place."""
    before = {name: version(x) for name, x in arguments.items()}
    yield
    for name, x in arguments.items():
        if version(x) != before[name]:
            raise Impure(sentence(what, name))
