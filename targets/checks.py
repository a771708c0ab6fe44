"""Whether what was evaluated is finite: told at once, or for many evaluations in one read."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class Diverged(ArithmeticError):
    """A number that must be finite is not; the message says which, where, and how many."""


class Evaluated(NamedTuple):
    """A function's values at points, and its gradients where they were taken."""

    what: str
    x: Float[Tensor, "*b d"]
    y: Float[Tensor, " *b"]
    g: Float[Tensor, "*b d"] | None

    def raise_where_wrong(self) -> None:
        """Raises Diverged at NaN and +inf, and at a gradient that is not finite where y is; -inf is
        zero density and passes."""
        bad = ~(self.y < torch.inf)
        if bad.any():
            found = self.y[bad][0].item()
            raise Diverged(
                f"{self.what} is {found} at {int(bad.sum())} of {self.y.numel()} points, "
                f"first at x = {self._first(bad)}"
            )
        if self.g is None:
            return
        bad = ~self.g.isfinite().all(-1) & (self.y > -torch.inf)
        if bad.any():
            raise Diverged(
                f"the gradient of {self.what} is not finite at {int(bad.sum())} of "
                f"{bad.numel()} points, first at x = {self._first(bad)}"
            )

    def _first(self, bad: Bool[Tensor, " *b"]) -> str:
        first = self.x.expand(*self.y.shape, self.x.shape[-1])[bad][0]
        shown = ", ".join(f"{v:.4g}" for v in first[:6].tolist())
        return f"({shown}{', ...' if len(first) > 6 else ''})"


class Condition(NamedTuple):
    """A number of the device, when it is wrong, and what to raise where it is."""

    number: Tensor
    wrong: Callable[[float], bool]
    error: Callable[[], Exception]


class Checks:
    """What a problem has still to be asked.  Reading a flag from a GPU stops the host until all
    that was launched before is done, so inside `together` nothing is read before its end."""

    def __init__(self) -> None:
        self._evaluated: list[Evaluated] = []
        self._conditions: list[Condition] = []
        self._also: list[tuple[Tensor, list[int]]] = []
        self._depth = 0

    def values(self, what: str, x: Tensor, y: Tensor, g: Tensor | None = None) -> None:
        """y (and g) of `what` at x must be finite, but for y = -inf: raises Diverged."""
        self._evaluated.append(Evaluated(what, x, y, g))
        if not self._depth:
            self._read()

    def never(self, wrong: Bool[Tensor, ""], error: Callable[[], Exception]) -> None:
        """Raises error() where `wrong` is true."""
        self._expect(Condition(wrong, bool, error))

    def finite(self, number: Float[Tensor, ""], error: Callable[[], Exception]) -> None:
        """Raises error() where the number is not finite."""
        self._expect(Condition(number.detach(), lambda v: not math.isfinite(v), error))

    def _expect(self, condition: Condition) -> None:
        self._conditions.append(condition)
        if not self._depth:
            self._read()

    def also(self, numbers: Tensor) -> list[int]:
        """Whole numbers (n,) of the device, read with the next flags: the list is filled then."""
        found: list[int] = []
        self._also.append((numbers, found))
        if not self._depth:
            self._read()
        return found

    @contextmanager
    def together(self) -> Iterator[None]:
        """All that is checked inside is read at the end, once; what else was raised meanwhile gives
        way to what the checks have to say, which was there before it."""
        self._depth += 1
        try:
            yield
        except Exception:
            self._depth -= 1
            if not self._depth:
                self._read()
            raise
        except BaseException:
            self._depth -= 1
            self._forget()
            raise
        self._depth -= 1
        if not self._depth:
            self._read()

    def _read(self) -> None:
        evaluated, conditions, also = self._evaluated, self._conditions, self._also
        self._forget()
        flags = [
            part.detach().reshape(-1)
            for seen in evaluated
            for part in (seen.y, seen.g)
            if part is not None
        ]
        # a sum is finite only where every term is; one that overflows is looked at term by term
        totals = [torch.cat(flags).sum()] if flags else []
        totals += [condition.number for condition in conditions]
        totals += [numbers for numbers, _ in also]
        if not totals:
            return
        read = torch.cat([total.reshape(-1) for total in totals]).tolist()
        if flags and not math.isfinite(read.pop(0)):
            for seen in evaluated:
                seen.raise_where_wrong()
        for condition in conditions:
            if condition.wrong(read.pop(0)):
                raise condition.error()
        for numbers, found in also:
            found += [int(read.pop(0)) for _ in range(numbers.numel())]

    def _forget(self) -> None:
        self._evaluated, self._conditions, self._also = [], [], []
