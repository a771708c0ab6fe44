"""Specs: the text and JSON forms of targets and samplers.

A spec is {"name": ..., "params": {...}} of literals and nested specs; on the command line it reads
`name[key=value,key=Part[key=value]]`.  `build(spec(x)) == x`; nothing is evaluated.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import inspect
import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tiltbench.plan.errors import BadSpec
from tiltbench.samplers.registry import ANNEALINGS, NETWORKS, RECIPES, SAMPLERS
from tiltbench.targets.registry import (
    REFERENCES,
    SCHEDULES,
    STEPPINGS,
    TARGETS,
    Registry,
    UnknownName,
)

BENCH = Path(__file__).parents[1]
PARTS = (REFERENCES, NETWORKS, RECIPES, ANNEALINGS, SCHEDULES, STEPPINGS)
METRICS = Registry("metric", ((BENCH / "metrics", "tiltbench.metrics"),), "tiltbench.metrics")
STUDIES = Registry(
    "study",
    tuple(
        (path, f"tiltbench.studies.{path.parent.name}.study")
        for path in sorted((BENCH / "studies").glob("*/study.py"))
    ),
)

Spec = dict[str, Any]  # {"name": str, "params": {str: literal | Spec}}

_TOKEN = re.compile(
    r"""\s*(?:(?P<text>"[^"]*"|'[^']*')|(?P<word>[^\[\],=\s"']+)|(?P<mark>[\[\],=]))"""
)


_PLAIN = {"true": True, "false": False, "none": None}


def parse(text: str) -> Spec:
    """`name[key=value,...]` -> spec.  Values: numbers, true, false, none, words, "text", [lists],
    parts with a capital (`Brownian`, `Mlp[width=64]`).  Raises BadSpec."""
    tokens = [m for m in _TOKEN.finditer(text)]
    if "".join(m.group(0) for m in tokens).strip() != text.strip() or not tokens:
        raise BadSpec(f"cannot read {text!r}: write name[key=value,key=value]")
    spec, rest = _parse_spec([(m.lastgroup or "", m.group(m.lastgroup or 0)) for m in tokens], text)
    if rest:
        raise BadSpec(f"cannot read {text!r}: nothing may follow the closing bracket")
    return spec


Tokens = list[tuple[str, str]]


def _parse_spec(tokens: Tokens, text: str) -> tuple[Spec, Tokens]:
    kind, name = tokens[0]
    if kind != "word":
        raise BadSpec(f"cannot read {text!r}: a name must come before {name!r}")
    params: dict[str, Any] = {}
    rest = tokens[1:]
    if not rest or rest[0][1] != "[":
        return {"name": name, "params": params}, rest
    rest = rest[1:]
    while rest and rest[0] != ("mark", "]"):
        if len(rest) < 3 or rest[0][0] != "word" or rest[1] != ("mark", "="):
            raise BadSpec(f"cannot read {text!r}: inside brackets write key=value")
        key = rest[0][1]
        if key in params:
            raise BadSpec(f"{key} is given twice in {text!r}")
        params[key], rest = _parse_value(rest[2:], text)
        rest = _after_comma(rest, text)
    if not rest:
        raise BadSpec(f"cannot read {text!r}: a closing bracket is missing")
    return {"name": name, "params": params}, rest[1:]


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
            raise BadSpec(f"cannot read {text!r}: a closing bracket is missing")
        return values, rest[1:]
    if kind == "text":
        return word[1:-1], tokens[1:]
    if kind == "word" and word[0].isupper() and word.lower() not in _PLAIN:
        return _parse_spec(tokens, text)
    if kind == "mark":
        raise BadSpec(f"cannot read {text!r}: a value is missing before {word!r}")
    return literal(word), tokens[1:]


def literal(word: str) -> int | float | bool | str | None:
    """The number, truth value or none that a word spells, otherwise the word."""
    if word.lower() in _PLAIN:
        return _PLAIN[word.lower()]
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            pass
    return word


def build_target(spec: Spec) -> Any:
    return _construct(TARGETS.load(spec["name"]), spec)


def build_sampler(spec: Spec) -> Any:
    """A loss becomes a Diffusion that trains with it, a preset a variation of its sampler."""
    from tiltbench.samplers.diffusion import Diffusion, Preset
    from tiltbench.samplers.loss import Loss

    made = SAMPLERS.load(spec["name"])
    if isinstance(made, Loss):
        return _construct(Diffusion, spec, loss=made)
    if isinstance(made, Preset):
        given = _fields(made.sampler)
        spec, given["loss"] = _varied(made.sampler.loss, spec)
        return _construct(type(made.sampler), spec, **given)
    return _construct(made, spec)


def _varied(loss: Any, spec: Spec) -> tuple[Spec, Any]:
    """(what the spec says of the sampler, the loss with what it says of the loss's options)."""
    from tiltbench.samplers.loss import made

    if loss.options is None:
        return spec, loss
    own = _fields(loss.options)
    params = spec.get("params", {})
    mine = {"name": spec["name"], "params": {k: v for k, v in params.items() if k in own}}
    rest = {"name": spec["name"], "params": {k: v for k, v in params.items() if k not in own}}
    return rest, made(_construct(type(loss.options), mine, **own))


def _fields(x: Any) -> dict[str, Any]:
    return {field.name: getattr(x, field.name) for field in dataclasses.fields(x)}


def _construct(cls: Any, spec: Spec, **given: Any) -> Any:
    """cls(**params) with nested specs built, integers widened and unknown names refused."""
    if not dataclasses.is_dataclass(cls):
        raise BadSpec(f"{spec['name']} must be a frozen dataclass to be built from a spec")
    known = {field.name: field for field in dataclasses.fields(cls)}
    values = dict(given)
    for key, value in spec.get("params", {}).items():
        if key not in known or (key in given and key == "loss"):
            names = [k for k in known if k != "loss"]
            options = getattr(given.get("loss"), "options", None)
            names += _fields(options) if options is not None else []
            near = difflib.get_close_matches(key, names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            has = (
                f"It has: {', '.join(names)}; `tiltbench list {spec['name']}` says what they mean"
                if names
                else "It takes none; write it plainly"
            )
            raise BadSpec(f"{spec['name']} has no parameter {key!r}{hint} {has}")
        standard = given.get(key, known[key].default)
        values[key] = _convert(value, standard, f"{spec['name']}.{key}")
    try:
        made: Any = cls(**values)  # type: ignore[operator]
        return made
    except (TypeError, ValueError) as error:
        raise BadSpec(f"{spec['name']}: {error}") from error


def _convert(value: Any, standard: Any, where: str) -> Any:
    """`value` in the type of the parameter's default; nested specs built."""
    if isinstance(value, dict):
        name = value.get("name", "")
        for registry in PARTS:
            if name in registry.entries:
                made = _construct(registry.load(name), value)
                if same_kind(made, standard):
                    return made
        near = [n for r in PARTS for n in r.entries if same_kind(r.load(n), type(standard))]
        raise BadSpec(f"{where} cannot be {name!r}; the parts are: {', '.join(near)}")
    if isinstance(value, list):
        return tuple(_convert(v, None, where) for v in value)
    if isinstance(standard, bool) or isinstance(value, bool):
        if isinstance(standard, bool) != isinstance(value, bool) and standard is not None:
            raise BadSpec(f"{where} is {value!r}; it takes {type(standard).__name__}")
        return value
    if isinstance(standard, int) and isinstance(value, float):
        if value != int(value):
            raise BadSpec(f"{where} is {value!r}; it takes a whole number")
        return int(value)
    if isinstance(standard, float) and isinstance(value, int):
        return float(value)
    if isinstance(standard, int | float) and not isinstance(value, int | float):
        raise BadSpec(f"{where} is {value!r}; it takes a number")
    if dataclasses.is_dataclass(standard) and value is not None:
        raise BadSpec(f"{where} is {value!r}; it takes a part such as {type(standard).__name__}")
    return value


def same_kind(made: Any, standard: Any) -> bool:
    """Whether both extend one abstract part (Linear, Network, Schedule, ...)."""
    mine, other = (x if isinstance(x, type) else type(x) for x in (made, standard))
    shared = set(mine.__mro__) & set(other.__mro__)
    return any(inspect.isabstract(kind) for kind in shared)


def spec(x: Any) -> Spec:
    """The complete spec of a target, sampler or part: every field, defaults included."""
    fields = _fields(x)
    loss = fields.pop("loss", None)
    home = loss if loss is not None else type(x)
    if loss is not None and loss.options is not None:
        fields = {**_fields(loss.options), **fields}
    params = {key: _plain(value) for key, value in fields.items()}
    return {"name": registered_name(home) or str(home.name), "params": params}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return spec(value)
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise BadSpec(f"{value!r} cannot be written in a spec: use numbers, strings, tuples and parts")


def registered_name(thing: Any) -> str | None:
    """The name a class or loss is registered by; `path/to/file.py:name` for a plug-in file; None
    where it is neither."""
    # the package first: a plug-in file also holds what it imports
    for registry in (TARGETS, SAMPLERS, *PARTS):
        entry = registry.entries.get(thing.name)
        if entry is not None and entry.module is not None and entry.load() is thing:
            return entry.name
    for module_name, module in list(sys.modules.items()):
        if module_name.startswith("tiltbench_plugin_"):
            if any(value is thing for value in vars(module).values()):
                path = os.path.relpath(str(module.__file__))
                return f"{path}:{thing.name}"
    return None


def label(made: Any, full: Spec | None = None) -> str:
    """The short form: the name and the parameters that differ from the defaults."""
    full = full or spec(made)
    plain = build_sampler if "loss" in {f.name for f in dataclasses.fields(made)} else None
    name = full["name"]
    if plain:
        return shorten(full, spec(plain({"name": name, "params": {}})))
    standard = {f.name: f.default for f in dataclasses.fields(made)}
    stated = {k: _plain(v) for k, v in standard.items() if v is not dataclasses.MISSING}
    return shorten(full, {"name": name, "params": stated})


def shorten(full: Spec, base: Spec) -> str:
    """`name[key=value,...]` of what in `full` differs from `base`; `parse` reads it back."""
    parts = []
    for key, value in full["params"].items():
        standard = base["params"].get(key)
        if value == standard:
            continue
        parts.append(f"{key}={written(value)}")
    return full["name"] + (f"[{','.join(parts)}]" if parts else "")


def written(value: Any) -> str:
    """The text of one value, such that `parse` reads it back."""
    if isinstance(value, dict):
        # against the part's own defaults, from which `build` starts, not against the field's
        return shorten(value, _default_part(value["name"]))
    if isinstance(value, list | tuple):
        return f"[{','.join(written(item) for item in value)}]"
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    if isinstance(value, str):
        plain = re.fullmatch(r"[a-z_./][\w./:-]*", value) and literal(value) == value
        return value if plain else f'"{value}"'
    return str(value)


def _default_part(name: str) -> Spec:
    for registry in PARTS:
        if name in registry.entries:
            return spec(registry.load(name)())
    known = ", ".join(sorted(part for registry in PARTS for part in registry.entries))
    raise UnknownName(f"no part is called {name!r}; the parts are: {known}")


def spec_id(spec: Mapping[str, Any]) -> str:
    """The name of a run's files: a hash of its spec."""
    text = json.dumps(spec, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
