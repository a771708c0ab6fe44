"""What msgspec finds wrong in a file, as a sentence: table, key, value, and what it must be."""

from __future__ import annotations

import re
from typing import Any, get_args, get_type_hints

from msgspec import Struct

from tiltbench.plan.suite import nearest

WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "array": "a list",
    "object": "a table such as { key = 1 }",
}


def sentence(message: str, data: Any, shape: type[Struct]) -> str:
    """ "Expected `int` >= 1 - at `$.suite.budget`" -> " [suite] budget is 0; it must be a whole
    number >= 1".

    `data` is what was read, `shape` what it is to be: a Struct whose fields are tables, or lists of
    tables ([[target]])."""
    message, _, path = message.partition(" - at `$.")
    steps = re.findall(r"\w+|\[\d+\]", path.rstrip("`"))
    row, table = _table(steps[0], shape) if steps else (shape, "")
    keys = [step for step in steps[1:] if step[0] != "["]
    if match := re.search(r"unknown field `(.*)`", message):
        if match[1] == "budget" and "calls" in row.__struct_fields__:  # its former name
            return f"{table} has no key 'budget'; it is called 'calls'"
        return f"{table} has no key {match[1]!r}{nearest(match[1], sorted(row.__struct_fields__))}"
    if match := re.search(r"missing required field `(.*)`", message):
        return f"{table} must state {match[1]}"
    if not keys:
        return f"{table} must be a table, written {table.strip()} on a line of its own"
    value = data
    for step in steps[: steps.index(keys[0]) + 1]:
        value = value[int(step[1:-1])] if step[0] == "[" else value[step]
    kinds = re.findall(r"\w+", message.split("`")[1])
    words = " or ".join(WORDS.get(kind, kind) for kind in kinds if kind != "null")
    bounds = message.split("`")[2].partition(", got")[0]
    return f"{table} {keys[0]} is {value!r}; it must be {words}{bounds}"


def _table(name: str, shape: type[Struct]) -> tuple[type[Struct], str]:
    """The Struct of a table, and how the table is written."""
    kind = get_type_hints(shape)[name]
    return (get_args(kind)[0], f" [[{name}]]") if get_args(kind) else (kind, f" [{name}]")
