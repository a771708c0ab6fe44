"""The console command `tiltbench`: joins the commands, and says what is wrong in one sentence.

A command is a file of this folder whose first line reads "`tiltbench NAME`: what it does."; its
function has the name of the file.  A command is imported when it is called, and nothing here
imports torch, so that `--help` and `list` answer at once.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from cyclopts import (
    App,
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    RepeatArgumentError,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)

from tiltbench.cli.help import Columns

FIRST_LINE = re.compile(r'"""`tiltbench ([\w-]+)`: (.*?)(?:"""|\n\n)', re.S)


def commands() -> Iterator[tuple[str, str, str]]:
    """(name, module, what it does) of every command; the files are read as text."""
    for path in sorted(Path(__file__).parent.glob("*.py")):
        match = FIRST_LINE.match(path.read_text(encoding="utf-8"))
        if match:
            yield match[1], path.stem, " ".join(match[2].split())


def app(asked: str = "") -> App:
    """Every command; the one that is asked for says in `--help` what its function's docstring says,
    the others are not imported."""
    application = App(
        name="tiltbench",
        help="Benchmark samplers of tilted densities at equal, enforced cost.",
        help_format="plaintext",
        help_formatter=Columns(),
        group_parameters="Options",
        version_flags=[],
        suppress_keyboard_interrupt=False,
    )
    for name, module, what in commands():
        short = {} if name == asked else {"help": what.rstrip(".")}
        application.command(f"tiltbench.cli.{module}:{module}", name=name, **short)
    return application


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 success, 1 a failed cell or check, 2 a wrong argument, 130 Ctrl-C."""
    typed = list(sys.argv[1:] if arguments is None else arguments)
    out = None
    try:
        function, given, rest = app("".join(typed[:1])).parse_args(
            typed, print_error=False, exit_on_error=False
        )
        out = given.arguments.get("out")
        if "typed" in rest:
            given.arguments["typed"] = typed
        return function(*given.args, **given.kwargs) or 0
    except KeyboardInterrupt:
        print("tiltbench: stopped; everything recorded is kept.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `tiltbench list targets | head`
        sys.stderr.close()
        return 0
    except Exception as error:
        message = _sentence(error, out)
        if message is None:
            raise
        print(f"tiltbench: {message}", file=sys.stderr)
        return 2


def _sentence(error: Exception, out: str | None) -> str | None:
    """What is wrong with the request and how to mend it; None where the fault is not of it."""
    from tiltbench.plan.errors import BadSpec, Refused
    from tiltbench.targets.registry import UnknownName

    if isinstance(error, CycloptsError):
        cause = error.__cause__
        return str(cause) if isinstance(cause, BadSpec) else _misread(error)
    if isinstance(error, BadSpec | UnknownName | Refused):
        return str(error)
    if isinstance(error, OSError) and _concerns(error, out):
        return f"{error.filename} cannot be used ({error.strerror}); name another folder with --out"
    return None


def _misread(error: CycloptsError) -> str:
    """Of a command line that does not fit the command."""
    from tiltbench.plan.suite import nearest

    chain = " ".join(error.command_chain or ())
    see = f"`{' '.join(filter(None, ['tiltbench', chain]))} --help` shows what there is"
    match error:
        case UnknownOptionError():
            typed = (error.token.keyword or error.token.value).partition("=")[0]
            known = [name for a in error.argument_collection for name in a.names]
            return f"there is no option {typed}{nearest(typed, known)} {see}"
        case UnknownCommandError():
            (typed, *_) = error.unused_tokens or ("",)
            known = [name for name, _, _ in commands()]
            return f"there is no command {typed!r}{nearest(typed, known)} {see}"
        case UnusedCliTokensError():
            typed = (error.unused_tokens or [""])[0]
            meant = "--suite" if typed.endswith(".toml") else "--targets"
            ask = f"write {meant} {typed}" if chain == "run" else see
            return f"nothing is expected in the place of {typed!r}; {ask}"
        case RepeatArgumentError():
            return f"{error.token.keyword} is given twice; give it once"
        case MissingArgumentError():
            name = _named(error.argument)
            if error.keyword or (error.argument is not None and error.argument.tokens):
                return f"{error.keyword or name} has no value behind it; {see}"
            return f"{name} is missing; {see}"
        case CoercionError() if get_args(error.target_type) and error.token is not None:
            name, typed = error.token.keyword or _named(error.argument), error.token.value
            known = [str(choice) for choice in get_args(error.target_type)]
            return f"{name} cannot be {typed!r}{nearest(typed, known)} Write {' or '.join(known)}."
        case _:
            error.verbose = False
            return " ".join(str(error).split())


def _named(argument: Any) -> str:
    """An argument as it stands in the help."""
    if argument is None:
        return "an argument"
    if argument.name.startswith("-"):
        return str(argument.name)
    return str(argument.name).upper()


def _concerns(error: OSError, out: str | None) -> bool:
    """Whether it is of the folder `out`, of what lies in it, or of what it lies in."""
    if not out or not error.filename:
        return False
    folder, place = Path(out), Path(error.filename)
    return folder in (place, *place.parents) or place in folder.parents


if __name__ == "__main__":
    sys.exit(main())
