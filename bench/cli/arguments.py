"""The arguments of a command line: how each is read, and the error of one that cannot be read."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tiltbench.plan.errors import Refused
from tiltbench.plan.text import items as split
from tiltbench.plan.text import literal, parse

MOST_SEEDS = 10_000
RESULTS = Path("results")  # where results go, unless --out says otherwise

# .key or .part.key of an owner, with its brackets; then =values
_KEY = r"(?P<brackets>\[.*?\])?\.(?P<key>[\w.]+)=(?P<values>.*)"
# a plain owner, a quoted one, or where the path of a plug-in may end
_OWNERS = (r"[^.\[\]=]+", r"\"(?:[^\"]|\"\")*\"|'(?:[^']|'')*'")
_PATH_END = re.compile(r"\.py(?::[\w-]+)?(?=[\[.])")


class Setting(NamedTuple):
    """A parameter of the targets and samplers that `owner` names, a name or a pattern, and the
    values that it is to take."""

    owner: str
    key: str  # of a part: reference.steps
    values: tuple[Any, ...]


def listed(text: str, what: str) -> tuple[str, ...]:
    """`A,B[x=1,y=2]` -> its two parts.  Raises Refused where there is none."""
    parts = split(text)
    if not parts:
        raise Refused(f"{what} {text!r} names nothing; leave it out, or write A,B")
    return tuple(parts)


def whole(text: str, what: str, least: int = 1) -> int:
    """`40000`, `40_000` or `4e4`.  Raises Refused for what is no whole number from `least` on."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not (least <= number < 1e18) or number != int(number):
        which = (
            "above 0; write one, such as 4 or 1e6" if least else "from 0 on; write one, such as 4"
        )
        raise Refused(f"{what} {_shown(text)} is not a whole number {which}")
    return int(number)


def positive(text: str, what: str) -> float:
    """`60` or `2e11`.  Raises Refused for what is no number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise Refused(
            f"{what} {_shown(text)} is not a number above 0; write one, such as 60 or 2e11"
        )
    return number


def natural(text: str, what: str) -> int:
    """The same from 0 on."""
    return whole(text, what, 0)


def sizes(text: str, what: str) -> tuple[int, ...]:
    """`500,1000`, each as above."""
    return tuple(whole(part, what) for part in text.split(","))


def _shown(text: str) -> str:
    return text if text.strip() else repr(text)


def automatic(text: str, what: str) -> int | None:
    """The same from 1 on, or None for `auto`."""
    if text == "auto":
        return None
    try:
        return whole(text, what)
    except Refused as error:
        raise Refused(f"{error}, or auto") from error


def share(text: str, what: str) -> float | None:
    """`0.5` of a GPU, or None for `auto`.  Raises Refused for what is no share from 0.01 to 1."""
    if text == "auto":
        return None
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0.01 <= number <= 1:
        raise Refused(
            f"{what} {_shown(text)} is not a share of a GPU; write 1 for one cell at a time, 0.5 "
            "for two on each, or auto"
        )
    return number


def seeds(text: str, what: str = "--seeds") -> tuple[int, ...]:
    """`3` is three of them, 0 to 2, as in a suite file; `0:5` is a range, `0,3` and `3,` are lists.
    `0` alone can only be the seed of that number.  Raises Refused for anything else."""
    chosen: Sequence[int]
    try:
        if ":" in text:
            first, last = (int(part) for part in text.split(":"))
            chosen = range(first, last)
        elif "," in text:
            chosen = [int(part) for part in text.removesuffix(",").split(",")]
        else:
            chosen = range(int(text)) if int(text) else (0,)
    except ValueError:
        chosen = ()
    if len(chosen) > MOST_SEEDS:
        raise Refused(
            f"{what} {text} names {len(chosen):,} seeds; write {text.split(':')[0]}, for one of "
            f"that number, or up to {MOST_SEEDS:,}"
        )
    if not chosen or min(chosen) < 0 or len(set(chosen)) < len(chosen):
        raise Refused(
            f"{what} {_shown(text)} names no seeds; write how many, such as 3, a range such as "
            "0:5, or a list such as 0,3 (one of them: 3,)"
        )
    return tuple(chosen)


def setting(text: str, what: str = "--set") -> Setting:
    """`log_variance.lr=1e-3,3e-4` -> ("log_variance", "lr", (0.001, 0.0003)).  Raises Refused."""
    owner, key, right = _parted(text.strip())
    if not owner:
        raise Refused(
            f"{what} {_shown(text)} is not readable; write NAME.KEY=VALUE, NAME.KEY=A,B for "
            'several values, or "*.KEY=VALUE" for all that have the parameter'
        )
    values = split(right)
    if not values:
        raise Refused(
            f"{what} {text} has no value behind the equals sign; write one, as in "
            f'"{owner}.{key}=1e-3", or several with commas between; `tiltbench list NAME` shows '
            "what a parameter is by default"
        )
    read = tuple(parse(v) if v[0].isupper() else literal(v) for v in values)
    return Setting(owner, key, read)


def _parted(text: str) -> tuple[str, str, str]:
    """(owner, key, values) of a setting; empty where it is none."""
    for path in _PATH_END.finditer(text):
        match = re.fullmatch(_KEY, text[path.end() :], re.DOTALL)
        if match is not None and text[0] not in "\"'":
            owner = text[: path.end()] + (match["brackets"] or "")
            return owner, match["key"], match["values"]
    for owner in _OWNERS:
        match = re.fullmatch(f"(?P<owner>{owner}){_KEY}", text, re.DOTALL)
        if match is not None:
            return match["owner"] + (match["brackets"] or ""), match["key"], match["values"]
    return "", "", ""


def chosen_device(name: str) -> str:
    """auto, cpu or cuda -> cpu or cuda.  Raises Refused where there is no GPU to choose."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise Refused("torch finds no CUDA device here; use --device cpu or auto")
    return name
