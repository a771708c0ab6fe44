"""Part i of n of a suite, for arrays of jobs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tiltbench.plan.cell import Cell
from tiltbench.plan.errors import Refused


class Shard(NamedTuple):
    """Part `which` of `parts` parts of a suite, counted from 1.

    A cell's part follows from its id alone, a hash of its spec: every machine agrees without a word
    from the others, whatever is recorded already, and no cell moves when a seed or a target is
    added.  The parts are of equal size on average only."""

    which: int
    parts: int

    def of(self, cells: Sequence[Cell]) -> list[Cell]:
        return [cell for cell in cells if int(cell.id, 16) % self.parts == self.which - 1]

    def __str__(self) -> str:
        return f"{self.which}/{self.parts}"


WHOLE = Shard(1, 1)


def shard(text: str, what: str = "--shard") -> Shard:
    """`3/8` is the third of eight.  Raises Refused for anything else."""
    index, slash, number = text.partition("/")
    digits = all(part.isascii() and part.isdecimal() for part in (index, number))
    if not (slash and digits and 1 <= int(index) <= int(number)):
        raise Refused(
            f"{what} {text or repr(text)} is no part of a suite; write I/N, from 1/8 to 8/8 for "
            "eight machines"
        )
    return Shard(int(index), int(number))
