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
from tiltbench.plan.text import Spec, literal, quoted, written_name
from tiltbench.plan.text import parse as parse  # read and written by one name
from tiltbench.samplers.registry import (
    ANNEALINGS,
    EXPLORATIONS,
    NETWORKS,
    RECIPES,
    REPLAYS,
    SAMPLERS,
    SEARCHES,
)
from tiltbench.targets.files import PREFIX
from tiltbench.targets.registry import (
    REFERENCES,
    SCHEDULES,
    STEPPINGS,
    TARGETS,
    Registry,
    UnknownName,
    scan,
)

BENCH = Path(__file__).parents[1]
PARTS = (
    REFERENCES,
    NETWORKS,
    RECIPES,
    ANNEALINGS,
    EXPLORATIONS,
    REPLAYS,
    SEARCHES,
    SCHEDULES,
    STEPPINGS,
)
METRICS = Registry("metric", ((BENCH / "metrics", "tiltbench.metrics"),), "tiltbench.metrics")
STUDIES = Registry(
    "study",
    tuple(
        (path, f"tiltbench.studies.{path.parent.name}.study")
        for path in sorted((BENCH / "studies").glob("*/study.py"))
    ),
)


def build_target(given: Spec) -> Any:
    return _construct(TARGETS.load(given["name"]), given)


def build_sampler(given: Spec) -> Any:
    """A loss becomes a Diffusion that trains with it, a preset a variation of its sampler."""
    from tiltbench.samplers.diffusion import Diffusion, Preset
    from tiltbench.samplers.loss import Loss

    loaded = SAMPLERS.load(given["name"])
    if isinstance(loaded, Loss):
        return _construct(Diffusion, given, loss=loaded)
    if isinstance(loaded, Preset):
        preset = _fields(loaded.sampler)
        rest, preset["loss"] = _varied(loaded.sampler.loss, given)
        return _construct(type(loaded.sampler), rest, **preset)
    return _construct(loaded, given)


def _varied(loss: Any, given: Spec) -> tuple[Spec, Any]:
    """(what the spec says of the sampler, the loss with what it says of the loss's options)."""
    from tiltbench.samplers.loss import build_loss

    if loss.options is None:
        return given, loss
    options = _fields(loss.options)
    params = given.get("params", {})
    loss_spec = {"name": given["name"], "params": {k: v for k, v in params.items() if k in options}}
    rest = {"name": given["name"], "params": {k: v for k, v in params.items() if k not in options}}
    return rest, build_loss(_construct(type(loss.options), loss_spec, **options))


def _fields(x: Any) -> dict[str, Any]:
    return {field.name: getattr(x, field.name) for field in dataclasses.fields(x)}


def _construct(cls: Any, given: Spec, **preset: Any) -> Any:
    """cls(**params) with nested specs built, integers widened and unknown names refused."""
    if not dataclasses.is_dataclass(cls):
        raise BadSpec(f"{given['name']} must be a frozen dataclass to be built from a spec")
    known = {field.name: field for field in dataclasses.fields(cls)}
    values = dict(preset)
    for key, value in given.get("params", {}).items():
        if key not in known or (key in preset and key == "loss"):
            names = [k for k in known if k != "loss"]
            options = getattr(preset.get("loss"), "options", None)
            names += _fields(options) if options is not None else []
            near = difflib.get_close_matches(key, names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            has = (
                f"It has: {', '.join(names)}; `tiltbench list {given['name']}` says what they mean"
                if names
                else "It takes none; write it plainly"
            )
            raise BadSpec(f"{given['name']} has no parameter {key!r}{hint} {has}")
        standard = preset.get(key, known[key].default)
        values[key] = _convert(value, standard, f"{given['name']}.{key}")
    try:
        instance: Any = cls(**values)  # type: ignore[operator]
        return instance
    except (TypeError, ValueError) as error:
        raise BadSpec(f"{given['name']}: {error}") from error


def _convert(value: Any, standard: Any, where: str) -> Any:
    """`value` in the type of the parameter's default; nested specs built."""
    if isinstance(value, dict):
        name = value.get("name", "")
        for registry in PARTS:
            if name in registry.entries:
                part = _construct(registry.load(name), value)
                if same_kind(part, standard):
                    return part
        near = [n for r in PARTS for n in r.entries if same_kind(r.load(n), type(standard))]
        raise BadSpec(f"{where} cannot be {name!r}; the parts are: {', '.join(near)}")
    if isinstance(value, list):
        return tuple(_convert(v, None, where) for v in value)
    if isinstance(standard, bool) or isinstance(value, bool):
        if isinstance(standard, bool) != isinstance(value, bool) and standard is not None:
            raise BadSpec(f"{where} is {value!r}; it takes {type(standard).__name__}")
        return value
    if isinstance(standard, int) and isinstance(value, float):
        if not value.is_integer():
            raise BadSpec(f"{where} is {value!r}; it takes a whole number")
        return int(value)
    if isinstance(standard, float) and isinstance(value, int):
        return float(value)
    if isinstance(standard, int | float) and not isinstance(value, int | float):
        raise BadSpec(f"{where} is {value!r}; it takes a number")
    if dataclasses.is_dataclass(standard) and value is not None:
        raise BadSpec(f"{where} is {value!r}; it takes a part such as {type(standard).__name__}")
    return value


def same_kind(value: Any, standard: Any) -> bool:
    """Whether both extend one abstract part (Linear, Network, Schedule, ...)."""
    classes, others = (x if isinstance(x, type) else type(x) for x in (value, standard))
    shared = set(classes.__mro__) & set(others.__mro__)
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
        if entry is not None and entry.module is not None and _stands_for(entry.load(), thing):
            return entry.name
    holding = [
        Path(str(module.__file__))
        for module_name, module in list(sys.modules.items())
        if module_name.startswith(PREFIX)
        and any(_stands_for(value, thing) for value in list(vars(module).values()))
    ]
    # the file that names it rather than one that imports it from beside
    naming = [path for path in holding if _names(path, thing.name)] or holding
    return f"{os.path.relpath(naming[0])}:{thing.name}" if naming else None


def _stands_for(value: Any, thing: Any) -> bool:
    """Whether it is the thing, or a preset of that loss, be it with other options."""
    from tiltbench.samplers.diffusion import Preset

    if value is thing or not isinstance(value, Preset):
        return value is thing
    loss, options = value.sampler.loss, getattr(thing, "options", None)
    varied = options is not None and type(options) is type(loss.options)
    return loss is thing or (varied and value.name == thing.name)


def _names(file: Path, name: str) -> bool:
    try:
        return any(entry.name == name for entry in scan(file))
    except (OSError, SyntaxError, ValueError):  # it is gone, or has been edited since
        return False


def label(thing: Any, full: Spec | None = None) -> str:
    """The short form: the name and the parameters that differ from the defaults."""
    full = full or spec(thing)
    plain = build_sampler if "loss" in {f.name for f in dataclasses.fields(thing)} else None
    name = full["name"]
    if plain:
        return shorten(full, spec(plain({"name": name, "params": {}})))
    standard = {f.name: f.default for f in dataclasses.fields(thing)}
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
    return written_name(full["name"]) + (f"[{','.join(parts)}]" if parts else "")


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
        return value if plain else quoted(value)
    return str(value)


def _default_part(name: str) -> Spec:
    for registry in PARTS:
        if name in registry.entries:
            return spec(registry.load(name)())
    known = ", ".join(sorted(part for registry in PARTS for part in registry.entries))
    raise UnknownName(f"no part is called {name!r}; the parts are: {known}")


def spec_id(given: Mapping[str, Any]) -> str:
    """The name of a run's files: a hash of its spec."""
    text = json.dumps(given, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
