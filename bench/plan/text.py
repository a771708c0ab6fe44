"""Specs and lists of them as text: `name[key=value,key=Part[key=value]]`.

Where a name is the path of a plug-in file, the path may hold any sign: it is read up to its `.py`
(`.py:name`), behind which nothing or brackets may follow.  Quotes settle every doubt:
`"my, dir/t.py:name"[key=value]`; a quotation mark within them is written twice.  What is written
here reads back.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tiltbench.plan.errors import BadSpec
from tiltbench.targets.files import split

Spec = dict[str, Any]  # {"name": str, "params": {str: literal | Spec}}
Tokens = list[tuple[str, str]]

_QUOTED = r""""(?:[^"]|"")*"|'(?:[^']|'')*'"""
_PLAIN_SIGN = r"""[^\[\],=\s"']"""
_TOKEN = re.compile(
    rf"\s*(?:(?P<text>{_QUOTED})|(?P<word>{_PLAIN_SIGN}+)|(?P<mark>[\[\],=]))", re.DOTALL
)
_QUOTED_NAME = re.compile(rf"(?P<text>{_QUOTED})(?P<inside>:{_PLAIN_SIGN}+)?", re.DOTALL)
_PATH_END = re.compile(r"""\.py(?::[^\[\],=\s"'/\\]+)?(?=\[|,|\s*$)""")
_CONSTANTS = {"true": True, "false": False, "none": None}


def parse(text: str) -> Spec:
    """`name[key=value,...]` -> spec.  Values: numbers, true, false, none, words, "text", [lists],
    parts with a capital (`Brownian`, `Mlp[width=64]`).  Raises BadSpec."""
    head, rest = parted(text)
    if head:
        return {"name": unquoted(head), "params": _parse_params(_tokens(rest, text), text)}
    tokens = _tokens(text, text)
    if not tokens:
        raise BadSpec(f"cannot read {text!r}: write name[key=value,key=value]")
    result, after = _parse_spec(tokens, text)
    if after:
        raise BadSpec(
            f"cannot read {text!r}: nothing may follow the closing bracket{_advice(text)}"
        )
    return result


def parted(text: str) -> tuple[str, str]:
    """(name, what follows it) of a spec whose name is quoted or the path of a plug-in, as written;
    ("", text) where it is a plain name."""
    text = text.strip()
    for end in _name_ends(text):
        if not text[end:].strip() or _are_brackets(text[end:]):
            return text[:end], text[end:]
    return "", text


def head(text: str) -> str:
    """The name of a spec or label without its brackets, as written."""
    return parted(text)[0] or text.partition("[")[0]


def _name_ends(text: str) -> Iterator[int]:
    """Where a quoted name, or else a path, may end."""
    quoted_name = _QUOTED_NAME.match(text)
    if quoted_name is not None:
        yield quoted_name.end()
        return
    yield from (match.end() for match in _PATH_END.finditer(text) if split(text[: match.end()]))


def _are_brackets(text: str) -> bool:
    try:
        _parse_params(_tokens(text, text), text)
    except BadSpec:
        return False
    return True


def unquoted(name: str) -> str:
    """The name that a quoted one stands for; `"dir/t.py":name` too.  Others as they are."""
    match = _QUOTED_NAME.fullmatch(name)
    return name if match is None else _inner(match["text"]) + (match["inside"] or "")


def _inner(text: str) -> str:
    mark = text[0]
    return text[1:-1].replace(mark * 2, mark)


def quoted(text: str) -> str:
    """In quotation marks, such that it reads back."""
    mark = "'" if '"' in text and "'" not in text else '"'
    return mark + text.replace(mark, mark * 2) + mark


def written_name(name: str) -> str:
    """A name as it has to be written, in quotes where it holds signs with a meaning."""
    return name if not name or re.fullmatch(f"{_PLAIN_SIGN}+", name) else quoted(name)


def items(text: str) -> list[str]:
    """The parts between commas: `a,b[x=1,y=2]` has two.  Commas inside brackets or quotes, and in
    the path of a plug-in that exists, part nothing."""
    parts, rest = [], text
    while rest.strip():
        end = _item_end(rest)
        parts.append(rest[:end].strip())
        rest = rest[end + 1 :]
    return [item for item in parts if item]


def _item_end(text: str) -> int:
    """Where the first comma lies that ends an item."""
    start = len(text) - len(text.lstrip())
    depth = 0
    at = start + next((end for end in _name_ends(text[start:]) if _there(text[start:], end)), 0)
    while at < len(text):
        quote = _QUOTED_NAME.match(text, at) if text[:at].rstrip()[-1:] in "=[," else None
        if quote is not None:
            at = quote.end()
            continue
        depth += (text[at] == "[") - (text[at] == "]")
        if text[at] == "," and depth == 0:
            return at
        at += 1
    return len(text)


def _there(text: str, end: int) -> bool:
    """Whether the name that ends at `end` is quoted, or a file."""
    file = split(text[:end])
    try:
        return text[0] in "\"'" or (file is not None and Path(file.path).is_file())
    except OSError:  # too long for a path
        return False


def _tokens(part: str, text: str) -> Tokens:
    tokens = list(_TOKEN.finditer(part))
    if "".join(m.group(0) for m in tokens).strip() != part.strip():
        raise BadSpec(f"cannot read {text!r}: write name[key=value,key=value]{_advice(text)}")
    return [(m.lastgroup or "", m.group(m.lastgroup or 0)) for m in tokens]


def _advice(text: str) -> str:
    """How a path is written whose end is ambiguous."""
    if ".py" not in text:
        return ""
    return '; a path with such signs goes in quotes: "my, dir/t.py:name"[key=value]'


def _parse_spec(tokens: Tokens, text: str) -> tuple[Spec, Tokens]:
    kind, name = tokens[0]
    if kind != "word":
        raise BadSpec(f"cannot read {text!r}: a name must come before {name!r}{_advice(text)}")
    rest = tokens[1:]
    if not rest or rest[0][1] != "[":
        return {"name": name, "params": {}}, rest
    params, rest = _parse_brackets(rest, text)
    return {"name": name, "params": params}, rest


def _parse_params(tokens: Tokens, text: str) -> dict[str, Any]:
    """The brackets behind a name, or none."""
    if not tokens:
        return {}
    if tokens[0] != ("mark", "["):
        raise BadSpec(f"cannot read {text!r}: only brackets may follow the name{_advice(text)}")
    params, rest = _parse_brackets(tokens, text)
    if rest:
        raise BadSpec(f"cannot read {text!r}: nothing may follow the closing bracket")
    return params


def _parse_brackets(tokens: Tokens, text: str) -> tuple[dict[str, Any], Tokens]:
    params: dict[str, Any] = {}
    rest = tokens[1:]
    while rest and rest[0] != ("mark", "]"):
        if len(rest) < 3 or rest[0][0] != "word" or rest[1] != ("mark", "="):
            raise BadSpec(f"cannot read {text!r}: inside brackets write key=value{_advice(text)}")
        key = rest[0][1]
        if key in params:
            raise BadSpec(f"{key} is given twice in {text!r}")
        params[key], rest = _parse_value(rest[2:], text)
        rest = _after_comma(rest, text)
    if not rest:
        raise BadSpec(f"cannot read {text!r}: a closing bracket is missing{_advice(text)}")
    return params, rest[1:]


def _after_comma(rest: Tokens, text: str) -> Tokens:
    """What follows a comma, or the closing bracket that may stand in its place."""
    if rest and rest[0] == ("mark", ","):
        return rest[1:]
    if rest and rest[0] != ("mark", "]"):
        raise BadSpec(f"cannot read {text!r}: a comma is missing before {rest[0][1]!r}")
    return rest


def _parse_value(tokens: Tokens, text: str) -> tuple[Any, Tokens]:
    kind, word = tokens[0]
    if (kind, word) == ("mark", "["):
        values, rest = [], tokens[1:]
        while rest and rest[0] != ("mark", "]"):
            value, rest = _parse_value(rest, text)
            values.append(value)
            rest = _after_comma(rest, text)
        if not rest:
            raise BadSpec(f"cannot read {text!r}: a closing bracket is missing{_advice(text)}")
        return values, rest[1:]
    if kind == "text":
        return _inner(word), tokens[1:]
    if kind == "word" and word[0].isupper() and word.lower() not in _CONSTANTS:
        return _parse_spec(tokens, text)
    if kind == "mark":
        raise BadSpec(f"cannot read {text!r}: a value is missing before {word!r}")
    return literal(word), tokens[1:]


def literal(word: str) -> int | float | bool | str | None:
    """The number, truth value or none that a word spells, otherwise the word."""
    if word.lower() in _CONSTANTS:
        return _CONSTANTS[word.lower()]
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            pass
    return word
