"""Whether what was evaluated is finite: told at once, or for many evaluations in one read."""

from __future__ import annotations

import math
import threading
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
            value = self.y[bad][0].item()
            raise Diverged(
                f"{self.what} is {value} at {int(bad.sum())} of {self.y.numel()} points, "
                f"first at x = {self._first(bad)}{self._remedy(bad)}"
            )
        if self.g is None:
            return
        bad = ~self.g.isfinite().all(-1) & (self.y > -torch.inf)
        if bad.any():
            raise Diverged(
                f"the gradient of {self.what} is not finite at {int(bad.sum())} of "
                f"{bad.numel()} points, first at x = {self._first(bad)}"
            )

    def _remedy(self, bad: Bool[Tensor, " *b"]) -> str:
        """Where a function of finite points is NaN it has overflowed, far out as a rule."""
        x = self.x.expand(*self.y.shape, self.x.shape[-1])[bad][0]
        overflowed = bool(self.y[bad][0].isnan()) and bool(x.isfinite().all())
        return "; return -inf, not nan, where the density is 0" if overflowed else ""

    def _first(self, bad: Bool[Tensor, " *b"]) -> str:
        first = self.x.expand(*self.y.shape, self.x.shape[-1])[bad][0]
        shown = ", ".join(f"{v:.4g}" for v in first[:6].tolist())
        return f"({shown}{', ...' if len(first) > 6 else ''})"


class Condition(NamedTuple):
    """A number of the device, when it is wrong, and what to raise where it is."""

    number: Tensor
    wrong: Callable[[float], bool]
    error: Callable[[], Exception]

    def raise_where_wrong(self) -> None:
        if self.wrong(float(self.number)):
            raise self.error()


class Checks(threading.local):
    """What a problem has still to be asked, by each thread for itself.  Reading a flag from a GPU
    stops the host until all that was launched before is done, so inside `together` nothing is read
    before its end.  What waits must not be changed in place by whoever gets it as well."""

    def __init__(self) -> None:
        self._waiting: list[Evaluated | Condition] = []  # in the order in which they were made
        self._also: list[tuple[Tensor, list[int]]] = []
        self._depth = 0

    def __reduce__(self) -> tuple[type[Checks], tuple[()]]:
        return Checks, ()  # a copy has nothing to ask

    def values(self, what: str, x: Tensor, y: Tensor, g: Tensor | None = None) -> None:
        """y (and g) of `what` at x must be finite, but for y = -inf: raises Diverged."""
        self._expect(Evaluated(what, x, y, g))

    def never(self, wrong: Bool[Tensor, ""], error: Callable[[], Exception]) -> None:
        """Raises error() where `wrong` is true."""
        self._expect(Condition(wrong, bool, error))

    def finite(self, number: Float[Tensor, ""], error: Callable[[], Exception]) -> None:
        """Raises error() where the number is not finite."""
        self._expect(Condition(number.detach(), lambda v: not math.isfinite(v), error))

    def also(self, numbers: Tensor) -> list[int]:
        """Whole numbers (n,) of the device, read with the next flags: the list is filled then."""
        numbers_read: list[int] = []
        self._also.append((numbers, numbers_read))
        if not self._depth:
            self._read()
        return numbers_read

    def _expect(self, one: Evaluated | Condition) -> None:
        self._waiting.append(one)
        if not self._depth:
            self._read()

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
        waiting, also = self._waiting, self._also
        self._forget()
        conditions = [one for one in waiting if isinstance(one, Condition)]
        flags = _total([one for one in waiting if isinstance(one, Evaluated)])
        numbers = [*flags, *(one.number for one in conditions), *(some for some, _ in also)]
        if not numbers:
            return
        read = torch.cat([some.reshape(-1) for some in numbers]).tolist()
        wrong = bool(flags) and not math.isfinite(read.pop(0))
        wrong |= any([one.wrong(read.pop(0)) for one in conditions])
        if wrong:  # the first is told
            for one in waiting:
                one.raise_where_wrong()
        for some, numbers_read in also:
            numbers_read += [int(read.pop(0)) for _ in range(some.numel())]

    def _forget(self) -> None:
        self._waiting, self._also = [], []


def _total(evaluated: list[Evaluated]) -> list[Float[Tensor, ""]]:
    """A number that is finite only where nothing is wrong; none where there is nothing.

    A sum is finite only where every term is, and 0 g is 0 only where g is finite.  A sum that
    overflows is looked at term by term, like one that is wrong."""
    parts = []
    for seen in _joined(evaluated):
        total = seen.y if seen.g is None else seen.y + (0 * seen.g).sum(-1)
        parts.append(total.masked_fill(seen.y == -torch.inf, 0.0).sum())
    return [torch.stack(parts).sum()] if len(parts) > 1 else parts


def _joined(evaluated: list[Evaluated]) -> Iterator[Evaluated]:
    """Those with gradients as one, and those without."""
    for with_g in (True, False):
        some = [seen for seen in evaluated if (seen.g is not None) == with_g]
        if not some:
            continue
        y = torch.cat([seen.y.reshape(-1) for seen in some])
        gs = [seen.g.reshape(-1, seen.g.shape[-1]) for seen in some if seen.g is not None]
        yield Evaluated("", y, y, torch.cat(gs) if gs else None)
