"""What to run: a suite is a TOML file, its cells the product of targets, samplers and seeds.

    [suite]     description, budget, draws, seeds (a number or a list), threads, curve (draws at
                each of 8 points), time_limit (s) and memory_limit (MB) of a cell, checkpoint
                (s from one saved state of a cell to the next)
    [[target]]  name = "gmm9" or "gmm_weighted[dim=16]"; params; label
    [[sampler]] the same; parts as "Brownian[steps=32]" or { name = "Brownian", steps = 32 };
                budget, where the sampler is to have a smaller one and yet stand beside the others
                (the label is "NAME at BUDGET" where none is given)
    [[override]] target, sampler (labels or names, each one or a list; every one where left out);
                params of the sampler for those cells
    [[search]]  sampler (as above); params = { lr = [1e-4, 1e-2, "log"], leaps = [1, 20, "linear"],
                acceptance = [0.6, 0.8] }: what `tiltbench tune` varies in the place of what the
                method declares; a list without "log" or "linear" holds the values themselves
    [[tuned]]   target (list of labels), sampler (label), trials, params: what `tune` has chosen

Reading a suite imports no torch; `Suite.cells` (product.py) builds what it names.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tiltbench.plan.cell import SAVED_EVERY, Cell, Limits
from tiltbench.plan.errors import BadSpec
from tiltbench.plan.spec import build_sampler, build_target, parse
from tiltbench.plan.suite import Choice, Override, Searched, Suite, Tuned, nearest, overlaid, typed
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


def load_suite(name: str) -> Suite:
    """A suite by its name or by the path of its TOML file.

    Raises UnknownName or BadSpec (what is wrong in the file)."""
    path = suite_path(name)
    data = _read(path)
    _known(data, {"suite", "target", "sampler", "override", "search", "tuned"}, path.name)
    head = data["suite"]
    defaults = {"name": path.stem, "description": "", "seeds": 3, "curve": 0}
    limits = {"threads": 1, "time_limit": 600, "memory_limit": 8192, "checkpoint": SAVED_EVERY}
    _known(head, {*defaults, *limits, "budget", "draws"}, f"{path.name} [suite]")
    for key in ("budget", "draws"):
        if key not in head:
            raise BadSpec(f"{path.name} [suite] must state {key}")
    head = {**defaults, **limits, **head}
    _sound(head, f"{path.name} [suite]")
    seeds = head["seeds"]
    seeds = list(range(seeds)) if _whole(seeds) else seeds
    sound = isinstance(seeds, list) and all(_whole(s) and s >= 0 for s in seeds)
    if not sound or not seeds or len(set(seeds)) < len(seeds):
        raise BadSpec(f"{path.name} [suite] seeds must be a number above 0 or a list of seeds")
    return Suite(
        head["name"],
        head["description"],
        head["budget"],
        head["draws"],
        tuple(seeds),
        tuple(_choices(data, "target", path.name)),
        tuple(_choices(data, "sampler", path.name)),
        tuple(_overrides(data, path.name)),
        Limits(
            float(head["time_limit"]),
            head["memory_limit"],
            head["threads"],
            float(head["checkpoint"]),
        ),
        head["curve"],
        tuple(_searches(data, path.name)),
        tuple(_tuned(data, path.name)),
    )


def _sound(head: Mapping[str, Any], where: str) -> None:
    """Raises BadSpec for what in the [suite] table is not what it must be."""
    for key in ("budget", "draws", "threads", "memory_limit", "curve"):
        if not _whole(head[key]) or head[key] < (key != "curve"):
            raise BadSpec(f"{where} {key} is {head[key]!r}; it must be whole and positive")
    for key, least in (("time_limit", "above 0"), ("checkpoint", "from 0 on")):
        limit = head[key]
        sound = (_whole(limit) or isinstance(limit, float)) and 0 <= limit < float("inf")
        if not sound or (limit == 0 and least == "above 0"):
            raise BadSpec(f"{where} {key} is {limit!r}; it must be a number of seconds {least}")
    name = head["name"]
    if not isinstance(name, str) or not name.strip(". ") or set(name) & set("/\\\0"):
        raise BadSpec(f"{where} name is {name!r}; it names a folder, so it must be one word or two")
    if not isinstance(head["description"], str):
        raise BadSpec(f"{where} description is {head['description']!r}; it must be text")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _params(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The params of a table, parts read.  Raises BadSpec where they are no table."""
    params = row.get("params", {})
    if not isinstance(params, dict):
        raise BadSpec(f"{where} params is {params!r}; it must be a table such as {{ key = 1 }}")
    return {key: _parts(value) for key, value in params.items()}


def _words(row: Any, keys: tuple[str, ...], where: str) -> None:
    """Raises BadSpec where `row` is no table, or one of its `keys` no text."""
    if not isinstance(row, dict):
        raise BadSpec(f"{where} must be a table, written [[...]] on a line of its own")
    for key in keys:
        if key in row and not isinstance(row[key], str):
            raise BadSpec(f"{where} {key} is {row[key]!r}; it must be text")


def _read(path: Path) -> dict[str, Any]:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadSpec(f"{path} is not valid TOML: {error}") from error
    if not isinstance(data.get("suite"), dict):
        raise BadSpec(f"{path} has no [suite] table; it must state budget and draws")
    return data


def _choices(data: dict[str, Any], kind: str, where: str) -> Iterable[Choice]:
    tables = data.get(kind, [])
    if not isinstance(tables, list) or not tables:
        raise BadSpec(f"{where} names no {kind}: add a [[{kind}]] table with its name")
    for row in tables:
        _words(row, ("name", "label"), f"{where} [[{kind}]]")
        keys = {"name", "label", "params"} | ({"budget"} if kind == "sampler" else set())
        _known(row, keys, f"{where} [[{kind}]]")
        if not isinstance(row.get("name"), str):
            raise BadSpec(f"{where}: a [[{kind}]] table has no name")
        chosen = Choice.of(row["name"])
        given = _params(row, f"{where} [[{kind}]]")
        full = overlaid(chosen.spec, given, build_target if kind == "target" else build_sampler)
        points = _own_budget(row, data["suite"], where)
        named = typed(full) + (f" at {points:,}" if points else "")
        yield Choice(full, row.get("label") or named, points)


def _own_budget(row: Mapping[str, Any], head: Mapping[str, Any], where: str) -> int | None:
    """Raises BadSpec unless it is a part of the suite's: a row may not outspend its table."""
    points = row.get("budget")
    if points is None:
        return None
    if not _whole(points) or not 0 < points < head["budget"]:
        raise BadSpec(
            f"{where} [[sampler]] budget is {points!r}; it must be whole, positive and below the "
            f"suite's, {head['budget']}"
        )
    return int(points)


def _overrides(data: dict[str, Any], where: str) -> Iterable[Override]:
    for row in _rows(data, "override", ("target", "sampler", "params"), where):
        if not row.get("params"):
            raise BadSpec(f"{where}: an [[override]] has no params, so it changes nothing")
        targets, samplers = (_chosen(row, kind, data, where) for kind in ("target", "sampler"))
        yield Override(targets, samplers, _params(row, f"{where} [[override]]"))


def _searches(data: dict[str, Any], where: str) -> Iterable[Searched]:
    for row in _rows(data, "search", ("sampler", "params"), where):
        laws = dict(_laws(row.get("params", {}), f"{where} [[search]]"))
        if not laws:
            raise BadSpec(f"{where}: a [[search]] has no params, so it searches nothing")
        yield Searched(_chosen(row, "sampler", data, where, "search"), laws)


def _laws(params: Any, where: str, before: str = "") -> Iterable[tuple[str, Law]]:
    if not isinstance(params, dict):
        raise BadSpec(f"{where} params is {params!r}; it must be a table of ranges")
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
    return _whole(value) or isinstance(value, float)


def _tuned(data: dict[str, Any], where: str) -> Iterable[Tuned]:
    for row in _rows(data, "tuned", ("target", "sampler", "trials", "params"), where):
        names = {"target": row.get("target"), "sampler": [row.get("sampler")]}
        for kind, labels in names.items():
            known = [choice.label for choice in _choices(data, kind, where)]
            if not isinstance(labels, list) or not labels or any(n not in known for n in labels):
                raise BadSpec(
                    f"{where} [[tuned]] {kind} is {row.get(kind)!r}; it must be of the "
                    f"suite's labels, of targets a list: {', '.join(map(repr, known))}"
                )
        trials: Any = row.get("trials")
        if not _whole(trials) or trials < 1:
            raise BadSpec(f"{where} [[tuned]] trials is {trials!r}; it must be whole and positive")
        params = _params(row, f"{where} [[tuned]]")
        yield Tuned(tuple(row["target"]), row["sampler"], trials, params)


def _rows(
    data: dict[str, Any], kind: str, keys: tuple[str, ...], where: str
) -> Iterable[Mapping[str, Any]]:
    rows = data.get(kind, [])
    for row in rows if isinstance(rows, list) else [rows]:
        _words(row, (), f"{where} [[{kind}]]")
        _known(row, set(keys), f"{where} [[{kind}]]")
        yield row


def _chosen(
    row: Mapping[str, Any], kind: str, data: dict[str, Any], where: str, table: str = "override"
) -> tuple[str, ...]:
    """The targets or samplers that a row of `table` names.  Raises BadSpec for any that the suite
    does not have."""
    names = row.get(kind, "")
    names = [names] if names and isinstance(names, str) else names
    if names == "":
        return ()
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise BadSpec(
            f"{where} [[{table}]] {kind} is {names!r}; it must be text or a list of texts, or be "
            f"left out for every {kind}"
        )
    choices = list(_choices(data, kind, where))
    for name in names:
        if not any(c.answers_to(name) for c in choices):
            near = nearest(name, [c.label for c in choices])
            raise BadSpec(f"{where}: [[{table}]] is for {kind} {name!r}, not in the suite{near}")
    return tuple(names)


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


def _known(table: dict[str, Any], keys: set[str], where: str) -> None:
    for key in table:
        if key not in keys:
            raise BadSpec(f"{where} has no key {key!r}{nearest(key, sorted(keys))}")
