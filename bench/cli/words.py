"""The words of a command line: how each is read, and what is said of one that cannot be."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tiltbench.plan.errors import Refused
from tiltbench.plan.text import items as split
from tiltbench.plan.text import literal, parse

RESULTS = Path("results")  # where what is made goes, unless --out says otherwise

# .key or .part.key of an owner, with its brackets; then =values
_KEY = r"(?P<brackets>\[.*?\])?\.(?P<key>[\w.]+)=(?P<values>.+)"
# a plain owner, a quoted one, or where the path of a plug-in may end
_OWNERS = (r"[^.\[\]=]+", r"\"(?:[^\"]|\"\")*\"|'(?:[^']|'')*'")
_PATH_END = re.compile(r"\.py(?::[\w-]+)?(?=[\[.])")


def listed(text: str | None, what: str) -> list[str]:
    """`A,B[x=1,y=2]` -> its two parts; none of None.  Raises Refused where a text has none."""
    found = split(text or "")
    if text is not None and not found:
        raise Refused(f"{what} {text!r} names nothing; leave it out, or write A,B")
    return found


def whole(text: str, what: str) -> int:
    """`40000`, `40_000` or `4e4`.  Raises Refused for what is not a whole number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not (1 <= number < 1e18) or number != int(number):
        raise Refused(
            f"{what} {_shown(text)} is not a whole number above 0; write one, such as 4 or 1e6"
        )
    return int(number)


def _shown(text: str) -> str:
    return text if text.strip() else repr(text)


def seeds(text: str) -> tuple[int, ...]:
    """`0:5` is 0 to 4; `0,3` is a list."""
    try:
        if ":" in text:
            first, last = (int(part) for part in text.split(":"))
            chosen = tuple(range(first, last))
        else:
            chosen = tuple(int(part) for part in text.split(","))
    except ValueError:
        chosen = ()
    if not chosen or min(chosen) < 0 or len(set(chosen)) < len(chosen):
        raise Refused(
            f"--seeds {_shown(text)} names no seeds; write a range such as 0:5 or a list such as "
            "0,3"
        )
    return chosen


def setting(text: str) -> tuple[str, str, list[Any]]:
    """`log_variance.lr=1e-3,3e-4` -> ("log_variance", "lr", [0.001, 0.0003])."""
    owner, key, right = _parted(text.strip())
    values = split(right)
    if not values:
        raise Refused(f"--set {text} is not readable; write NAME.KEY=VALUE or NAME.KEY=A,B")
    return owner, key, [parse(v) if v[0].isupper() else literal(v) for v in values]


def _parted(text: str) -> tuple[str, str, str]:
    """(owner, key, values) of a setting; empty where it is none."""
    for path in _PATH_END.finditer(text):
        found = re.fullmatch(_KEY, text[path.end() :], re.DOTALL)
        if found is not None and text[0] not in "\"'":
            owner = text[: path.end()] + (found["brackets"] or "")
            return owner, found["key"], found["values"]
    for owner in _OWNERS:
        found = re.fullmatch(f"(?P<owner>{owner}){_KEY}", text, re.DOTALL)
        if found is not None:
            return found["owner"] + (found["brackets"] or ""), found["key"], found["values"]
    return "", "", ""


def chosen_device(name: str) -> str:
    """auto, cpu or cuda -> cpu or cuda.  Raises Refused where there is no GPU to choose."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise Refused("torch finds no CUDA device here; use --device cpu or auto")
    return name
