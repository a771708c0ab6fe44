"""What to run: a suite is a TOML file, its cells the product of targets, samplers and seeds.

    [suite]     description; calls (of the target), flops (floating-point operations) and seconds
                of training, one or more of them: the first that is spent ends it; draws, seeds (a
                number or a list), threads, curve (draws at each of 8 points), ode (draws of the
                method's flow), time_limit (s) and memory_limit (MB) of a cell, checkpoint (s from
                one saved state of a cell to the next)
    [[target]]  name = "gmm9" or "gmm_weighted[dim=16]"; params; label; calls, flops, seconds where
                the target is to have limits of its own
    [[sampler]] name, params, label; parts as "Brownian[steps=32]" or { name = "Brownian",
                steps = 32 }; calls, where the sampler is to have fewer (the label is "NAME at
                CALLS" where none is given); targets, the labels or names of those it runs on, one
                or a list (every one where left out)
    [[override]] target, sampler (labels or names, each one or a list; every one where left out);
                params of the sampler for those cells
    [[search]]  sampler (as above); params = { lr = [1e-4, 1e-2, "log"], leaps = [1, 20, "linear"],
                acceptance = [0.6, 0.8] }: what `tiltbench tune` varies in the place of what the
                method declares; a list without "log" or "linear" holds the values themselves
    [[tuned]]   target (list of labels), sampler (label), trials, params: what `tune` has chosen

Reading a suite imports no torch; `Suite.cells` (suite.py) builds what it names.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from tiltbench.plan.budget import UNLIMITED
from tiltbench.plan.cell import SAVED_EVERY, Cell, Limits
from tiltbench.plan.errors import BadSpec
from tiltbench.plan.spec import Spec, build_sampler, build_target, parse
from tiltbench.plan.suite import (
    Builder,
    Choice,
    Override,
    Searched,
    Suite,
    Tuned,
    nearest,
    nearest_or_all,
    overlaid,
    typed,
)
from tiltbench.plan.validation import sentence
from tiltbench.samplers.search import Among, Law, LogUniform, Uniform
from tiltbench.targets.registry import UnknownName

__all__ = [
    "SUITES",
    "Cell",
    "Choice",
    "Limits",
    "Override",
    "Suite",
    "load_suite",
    "suite_names",
    "suite_path",
]

SUITES = Path(__file__).parents[1] / "suites"


def suite_names() -> dict[str, str]:
    """Name -> one-line description of every suite that ships."""
    return {
        path.stem: _read(path)["suite"].get("description", "")
        for path in sorted(SUITES.glob("*.toml"))
    }


def suite_path(name: str) -> Path:
    """The file of a suite's name, or of a path.  Raises UnknownName (nearest match)."""
    path = Path(name) if name.endswith(".toml") else SUITES / f"{name}.toml"
    if not path.is_file():
        known = sorted(p.stem for p in SUITES.glob("*.toml"))
        raise UnknownName(
            f"no suite is called {name!r}{nearest(name, known)} The suites are: {', '.join(known)}"
            if not name.endswith(".toml")
            else f"there is no file {path}; check the path of the suite"
        )
    return path


# What a file may hold; the fields' types are checked, and unknown keys are refused.

Positive = Annotated[int, Meta(ge=1)]
Count = Annotated[int, Meta(ge=0)]
Calls = Annotated[int, Meta(ge=1, lt=UNLIMITED)]
Operations = Annotated[float, Meta(ge=1, le=1e24)]
Limit = Annotated[float, Meta(gt=0, le=1e12)]  # seconds
Pause = Annotated[float, Meta(ge=0, le=1e12)]
Labels = str | list[str]


class Head(Struct, forbid_unknown_fields=True):
    draws: Positive
    calls: Calls | None = None
    flops: Operations | None = None
    seconds: Limit | None = None
    name: str = ""
    description: str = ""
    seeds: Positive | list[Count] = 3
    curve: Count = 0
    ode: Count = 0
    threads: Positive = 1
    time_limit: Limit = 600.0
    memory_limit: Positive = 8192
    checkpoint: Pause = SAVED_EVERY


class NamedTable(Struct, forbid_unknown_fields=True):
    name: str
    label: str = ""
    params: dict[str, Any] = {}
    calls: Calls | None = None


class SamplerTable(NamedTable, forbid_unknown_fields=True):
    targets: Labels = ""


class TargetTable(NamedTable, forbid_unknown_fields=True):
    flops: Operations | None = None
    seconds: Limit | None = None


class OverrideRow(Struct, forbid_unknown_fields=True):
    params: dict[str, Any] = {}
    target: Labels = ""
    sampler: Labels = ""


class SearchRow(Struct, forbid_unknown_fields=True):
    params: dict[str, Any] = {}
    sampler: Labels = ""


class TunedRow(Struct, forbid_unknown_fields=True):
    target: list[str]
    sampler: str
    trials: Positive
    params: dict[str, Any] = {}


class File(Struct, forbid_unknown_fields=True):
    suite: Head
    target: list[TargetTable] = []
    sampler: list[SamplerTable] = []
    override: list[OverrideRow] = []
    search: list[SearchRow] = []
    tuned: list[TunedRow] = []


def load_suite(name: str) -> Suite:
    """A suite by its name or by the path of its TOML file.

    Raises UnknownName or BadSpec (what is wrong in the file)."""
    path = suite_path(name)
    file = _checked(_read(path), path.name)
    head, where = file.suite, path.name
    seeds = list(range(head.seeds)) if isinstance(head.seeds, int) else head.seeds
    if set(head.name) & set("/\\\0") or (head.name and not head.name.strip(". ")):
        raise BadSpec(f"{where} [suite] name is {head.name!r}; it names a folder, so it is no path")
    if not seeds or len(set(seeds)) < len(seeds):
        raise BadSpec(f"{where} [suite] seeds must be a number above 0 or a list of seeds")
    if head.calls is None and head.flops is None and head.seconds is None:
        raise BadSpec(
            f"{where} [suite] must state calls, flops or seconds: what a cell may spend on training"
        )
    calls = UNLIMITED if head.calls is None else head.calls
    targets = tuple(_targets(file.target, where))
    samplers = tuple(_samplers(file.sampler, targets, calls, where))
    named = {"target": targets, "sampler": samplers}
    return Suite(
        head.name or path.stem,
        head.description,
        calls,
        head.draws,
        tuple(seeds),
        targets,
        samplers,
        tuple(_overrides(file.override, named, where)),
        Limits(head.time_limit, head.memory_limit, head.threads, head.checkpoint),
        head.curve,
        tuple(_searches(file.search, samplers, where)),
        tuple(_tuned(file.tuned, named, where)),
        head.flops or math.inf,
        head.seconds or math.inf,
        head.ode,
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadSpec(f"{path} is not valid TOML: {error}") from error
    if not isinstance(data.get("suite"), dict):
        raise BadSpec(f"{path} has no [suite] table; it must state calls and draws")
    return data


def _checked(data: dict[str, Any], where: str) -> File:
    """Raises BadSpec: one sentence on the first thing that is not as `File` says."""
    try:
        return msgspec.convert(data, File)
    except msgspec.ValidationError as error:
        raise BadSpec(where + sentence(str(error), data, File)) from error


def _targets(rows: Sequence[TargetTable], where: str) -> Iterable[Choice]:
    if not rows:
        raise BadSpec(f"{where} names no target: add a [[target]] table with its name")
    for row in rows:
        full = _full(row, build_target)
        yield Choice(full, row.label or typed(full), row.calls, row.flops, row.seconds)


def _samplers(
    rows: Sequence[SamplerTable], targets: Sequence[Choice], most: int, where: str
) -> Iterable[Choice]:
    if not rows:
        raise BadSpec(f"{where} names no sampler: add a [[sampler]] table with its name")
    for row in rows:
        full = _full(row, build_sampler)
        if row.calls is not None and row.calls >= most:
            raise BadSpec(
                f"{where} [[sampler]] calls is {row.calls}; it must be whole, positive and below "
                f"the suite's, {most}"
            )
        named = typed(full) + (f" at {row.calls:,}" if row.calls else "")
        here = _chosen(row.targets, "target", targets, f"{where} [[sampler]]", "targets")
        yield Choice(full, row.label or named, row.calls, targets=here)


def _full(row: NamedTable, build: Builder) -> Spec:
    given = {key: _parts(value) for key, value in row.params.items()}
    return overlaid(Choice.of(row.name).spec, given, build)


Named = dict[str, tuple[Choice, ...]]  # "target", "sampler": those of the suite


def _overrides(rows: Iterable[OverrideRow], named: Named, where: str) -> Iterable[Override]:
    for row in rows:
        if not row.params:
            raise BadSpec(f"{where}: an [[override]] has no params, so it changes nothing")
        params = {key: _parts(value) for key, value in row.params.items()}
        targets = _chosen(row.target, "target", named["target"], f"{where} [[override]]")
        samplers = _chosen(row.sampler, "sampler", named["sampler"], f"{where} [[override]]")
        yield Override(targets, samplers, params)


def _searches(
    rows: Iterable[SearchRow], samplers: Sequence[Choice], where: str
) -> Iterable[Searched]:
    for row in rows:
        laws = dict(_laws(row.params, f"{where} [[search]]"))
        if not laws:
            raise BadSpec(f"{where}: a [[search]] has no params, so it searches nothing")
        yield Searched(_chosen(row.sampler, "sampler", samplers, f"{where} [[search]]"), laws)


def _laws(params: dict[str, Any], where: str, before: str = "") -> Iterable[tuple[str, Law]]:
    for key, value in params.items():
        if isinstance(value, dict):  # { reference = { steps = [...] } } or reference.steps = [...]
            yield from _laws(value, where, f"{before}{key}.")
            continue
        try:
            yield before + key, _law(value)
        except ValueError as error:
            raise BadSpec(f"{where} {before}{key}: {error}") from error


def _law(value: Any) -> Law:
    """Raises ValueError for what is no law."""
    match value:
        case [low, high, "log"] if _number(low) and _number(high):
            return LogUniform(low, high)
        case [low, high, "linear"] if _number(low) and _number(high):
            return Uniform(low, high)
        case [_, _, *_] if not any(isinstance(part, dict) for part in value):
            return Among(tuple(_parts(part) for part in value))
    raise ValueError(
        f'{value!r} is no law; write [low, high, "log"], [low, high, "linear"] or a list of values'
    )


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _tuned(rows: Iterable[TunedRow], named: Named, where: str) -> Iterable[Tuned]:
    for row in rows:
        for kind, labels in {"target": row.target, "sampler": [row.sampler]}.items():
            known = [choice.label for choice in named[kind]]
            if not labels or any(label not in known for label in labels):
                raise BadSpec(
                    f"{where} [[tuned]] {kind} is {getattr(row, kind)!r}; it must be of the "
                    f"suite's labels: {', '.join(map(repr, known))}"
                )
        params = {key: _parts(value) for key, value in row.params.items()}
        yield Tuned(tuple(row.target), row.sampler, row.trials, params)


def _chosen(
    names: Labels, kind: str, choices: Sequence[Choice], where: str, key: str = ""
) -> tuple[str, ...]:
    """The targets or samplers that a row names under `key` (left out: the kind itself); () stands
    for every one.  Raises BadSpec for any that the suite does not have."""
    if names == "":
        return ()
    listed = [names] if isinstance(names, str) else names
    if not listed:
        raise BadSpec(
            f"{where} {key or kind} is []; it must name one, or be left out for every {kind}"
        )
    for name in listed:
        if not any(choice.answers_to(name) for choice in choices):
            near = nearest_or_all(name, [choice.label for choice in choices])
            raise BadSpec(f"{where} is for {kind} {name!r}, not in the suite{near}")
    return tuple(listed)


def _parts(value: Any) -> Any:
    """The spec of a part: "Brownian[steps=32]" or { name = "Brownian", steps = 32 }."""
    if isinstance(value, str) and value[:1].isupper():
        return parse(value)
    if isinstance(value, dict) and "name" in value and "params" not in value:
        params = {key: _parts(item) for key, item in value.items() if key != "name"}
        return {"name": value["name"], "params": params}
    if isinstance(value, dict) and "name" in value:
        inner = {key: _parts(item) for key, item in value["params"].items()}
        return {"name": value["name"], "params": inner}
    return value
