"""How a command declares its options beside its work: help, name in that help, and reader.

    budget: Annotated[int | None, option("training points", "N", whole)] = None

A reader turns the text that was typed into the value: `whole("4e4", "--budget") == 40_000`.  It
raises Refused with one sentence where it cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated, Any, Literal

from cyclopts import Parameter, Token

from tiltbench.cli.arguments import listed

Reader = Callable[[str, str], Any]  # of (what was typed, which option it was typed for)


def option(
    help: str,
    metavar: str | None = None,
    read: Reader | None = None,
    name: str | Sequence[str] | None = None,
) -> Parameter:
    """An option or argument; one given twice takes the last value."""
    return Parameter(
        name=name, help=help, metavar=metavar, negative=(), allow_repeating=True, **_reading(read)
    )


def repeated(
    help: str, metavar: str, read: Reader | None = None, name: str | None = None
) -> Parameter:
    """An option that may be given several times; its value is a tuple of all of them."""
    return Parameter(
        name=name,
        help=f"{help}; may be repeated",
        metavar=metavar,
        negative=(),
        **_reading(read, every=True),
    )


def _reading(read: Reader | None, every: bool = False) -> dict[str, Any]:
    if read is None:
        return {}

    def convert(kind: Any, tokens: Sequence[Token]) -> Any:
        values = [read(token.value, token.keyword or "") for token in tokens]
        return tuple(values) if every else values[-1]

    return {"converter": convert, "n_tokens": 1, "accepts_keys": False}


FLAT = Parameter(name="*")  # the fields of a dataclass are options of the command
Device = Annotated[
    Literal["auto", "cpu", "cuda"], option("where to compute (default auto: a GPU if there is one)")
]
Tf32 = Annotated[
    bool,
    option(
        "let a GPU round factors of float32 to TF32, which is faster; such runs have a name of "
        "their own (default: never)"
    ),
]
Out = Annotated[str | None, option("results folder (default results/SUITE)", "DIR")]
Plugins = Annotated[
    tuple[str, ...],
    repeated(
        "use what this file names (metrics, losses, targets, samplers) by its own name", "FILE.py"
    ),
]
Typed = Annotated[Sequence[str], Parameter(parse=False)]  # the command line itself, for records
Names = tuple[str, ...]


def names(help: str, metavar: str = "A,B") -> Parameter:
    """An option that holds a list of names, some perhaps with parameters in brackets."""
    return option(help, metavar, listed)


def plugged(files: Sequence[str]) -> AbstractContextManager[None]:
    """As `plan.plugins.plugged`; where there are no files nothing is imported."""
    if not files:
        return nullcontext()
    from tiltbench.plan.plugins import plugged

    return plugged(files)
