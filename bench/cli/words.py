"""The words of a command line: how each is read, and what is said of one that cannot be."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tiltbench.plan.errors import Refused
from tiltbench.plan.spec import literal, parse

RESULTS = Path("results")  # where what is made goes, unless --out says otherwise

# name, name[key=value] or path/to/file.py:name; then .key or .part.key; then =values
_SETTING = re.compile(r"((?:.*?\.py(?::\w+)?|[^.\[\]=]+)(?:\[.*?\])?)\.([\w.]+)=(.+)")


def listed(text: str | None, what: str) -> list[str]:
    """`A,B[x=1,y=2]` -> its two parts; none of None.  Raises Refused where a text has none."""
    found = split(text or "")
    if text is not None and not found:
        raise Refused(f"{what} {text!r} names nothing; leave it out, or write A,B")
    return found


def split(text: str) -> list[str]:
    """The parts between commas, those inside brackets aside: `a,b[x=1,y=2]` has two."""
    parts, depth = [""], 0
    for char in text:
        depth += (char == "[") - (char == "]")
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts if part.strip()]


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
    found = _SETTING.fullmatch(text.strip())
    owner, key, right = found.groups() if found else ("", "", "")
    values = split(right)
    if not values:
        raise Refused(f"--set {text} is not readable; write NAME.KEY=VALUE or NAME.KEY=A,B")
    return owner, key, [parse(v) if v[0].isupper() else literal(v) for v in values]


def chosen_device(name: str) -> str:
    """auto, cpu or cuda -> cpu or cuda.  Raises Refused where there is no GPU to choose."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise Refused("torch finds no CUDA device here; use --device cpu or auto")
    return name
