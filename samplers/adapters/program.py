"""A sampler from a program in any language, over its standard input and output:

    mine = from_program("mine", ["python", "mine.py"])

Lines are ASCII and end in a newline; numbers are float64, little-endian, row by row, right after
the line that announces them.  The suite begins with one line,

    tiltbench 1 dim=D budget=B seed=S scale=R [key=value ...]

the version of this protocol, the dimension, how many values and how many gradients there are, a
seed, the rms coordinate of the target, and the sampler's further parameters.  The program writes

    value N        and N D numbers, points; is answered `ok N` and N numbers, log rho at them
    grad N         and N D numbers; is answered `ok N`, N numbers, log rho, and N D, its gradients
    draws N        and N D numbers, independent draws; no answer
    chains C N     and C N D numbers, C chains of N draws, chain by chain; no answer
    weighted N     and N D numbers, draws, and N more, their log_w; no answer
    done           and ends

Draws take the place of those sent before.  A request beyond the budget is answered `over`, without
numbers: nothing was evaluated, and the program sends its draws, or leaves those that it has sent,
and ends.  It writes nothing else to its output; its standard error is free.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Generator

from tiltbench.samplers.adapters.density import LogDensity, Misuse
from tiltbench.samplers.adapters.foreign import Foreign, seed
from tiltbench.samplers.adapters.handed import Handed, handed
from tiltbench.samplers.adapters.pipes import Program
from tiltbench.targets.cost import BudgetExceeded

MOST = 10_000_000  # points in one message
REFUSALS = 100  # requests beyond the budget, after which the program is ended
COUNTS = {"value": 1, "grad": 1, "draws": 1, "chains": 2, "weighted": 1, "done": 0}


def from_program(
    name: str,
    argv: Sequence[str],
    patience: float = 60.0,
    consistent: bool = True,
    parameters: Mapping[str, int | float | str] | None = None,
) -> type[Foreign]:
    """The sampler of the program that the words of `argv` start, in the present folder.

    It is ended where it is silent for `patience` seconds.  `parameters` are those of the sampler,
    with their defaults, and words of the first line.  What identifies the sampler in a record is
    the file that calls this, not the program: give it a parameter that tells its version."""
    defaults = dict(parameters or {})
    for key, value in defaults.items():
        if hasattr(External, key) or not key.isidentifier():
            raise ValueError(f"{key!r} of {name} is no name for a parameter; choose another")
        if not isinstance(value, bool | int | float | str) or " " in str(value):
            raise ValueError(f"{key} of {name} is {value!r}; it must be a number or a word")
    if isinstance(argv, str) or not argv:
        raise ValueError(f"the command of {name} is {argv!r}; give its words as a list")
    body: dict[str, Any] = {
        "__doc__": f"The program {' '.join(argv)}.",
        "__annotations__": {key: type(value) for key, value in defaults.items()},
        "name": name,
        "consistent": consistent,
        "argv": tuple(map(str, argv)),
        "patience": float(patience),
        **defaults,
    }
    return dataclass(frozen=True)(type(name, (External,), body))


@dataclass(frozen=True)
class External(Foreign):
    argv: ClassVar[tuple[str, ...]]
    patience: ClassVar[float]

    def begin(self, density: LogDensity, generator: Generator) -> Iterator[Handed]:
        number = seed(generator)

        def work() -> Iterator[Handed]:
            program = Program(self.name, self.argv, self.patience)
            try:
                given = [f"{field.name}={getattr(self, field.name)}" for field in fields(self)]
                facts = [f"dim={density.dim}", f"budget={density.budget}", f"seed={number}"]
                program.say(" ".join(["tiltbench 1", *facts, f"scale={density.scale!r}", *given]))
                yield from _served(program, density)
            finally:
                program.close()

        return work()


def _served(program: Program, density: LogDensity) -> Iterator[Handed]:
    """Answers until the program is done.  Once it is over budget only its last draws are handed on:
    training ends with the step in which a call was refused."""
    refused, last = 0, None
    while refused < REFUSALS:
        try:
            word, counts = _request(program)
        except EOFError:
            break
        except Misuse:
            if refused:  # it was told to end, and how it does is its own affair
                break
            raise
        if word == "done":
            break
        if word in ("value", "grad"):
            x = torch.tensor(program.numbers(counts[0], density.dim)).to(density.device)
            try:
                program.say(f"ok {counts[0]}", *_answer(word, x, density))
            except BudgetExceeded:
                refused += 1
                program.say("over")
            continue
        draws = program.numbers(*counts, density.dim)
        given = (draws, program.numbers(*counts)) if word == "weighted" else draws
        last = handed(given, program.name, density.dim, density.device)
        if not refused:
            yield last
            last = None
    if last is not None:
        yield last


def _answer(word: str, x: torch.Tensor, density: LogDensity) -> list[np.ndarray]:
    with torch.no_grad():
        parts = (density.value(x),) if word == "value" else density.both(x)
    return [part.cpu().numpy() for part in parts]


def _request(program: Program) -> tuple[str, list[int]]:
    line = program.read_line()
    word, *rest = line.split() or [""]
    if COUNTS.get(word) != len(rest) or not all(part.isdecimal() for part in rest):
        raise program.garbage(line[:40])
    counts = [int(part) for part in rest]
    if counts and not 0 < np.prod(counts, dtype=float) <= MOST:
        raise Misuse(f"{program.name} wrote {line!r}; a message holds from 1 to {MOST:,} points")
    return word, counts
