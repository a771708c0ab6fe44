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

Reading a suite imports no torch; `Suite.cells` builds every target and sampler, so that a wrong
parameter, or more draws than a stored reference holds, stops the run before anything has run.
"""

from __future__ import annotations

import difflib
import itertools
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiltbench.spec import BadSpec, Spec, build_sampler, build_target, parse, shorten, spec
from tiltbench.targets.registry import UnknownName

if TYPE_CHECKING:
    from tiltbench.budget import Budget

SUITES = Path(__file__).parent / "suites"
CURVE_POINTS = 8
SAVED_EVERY = 600.0  # seconds from one checkpoint of a cell to the next

Builder = Callable[[Spec], Any]  # build_target or build_sampler


@dataclass(frozen=True)
class Limits:
    """What one cell may use of the machine: seconds of wall time, MB of memory, CPU threads; and
    how often it saves itself."""

    seconds: float = 600.0
    megabytes: int = 8192
    threads: int = 1
    checkpoint: float = SAVED_EVERY  # seconds from one saved state to the next


@dataclass(frozen=True)
class Cell:
    """One run: complete specs (every field), so that `id` names its files for good."""

    target: Spec
    target_version: int
    sampler: Spec
    budget: Budget
    seed: int
    device: str  # "cpu" or "cuda"
    draws: int
    curve: int  # draws at each point of the learning curve; 0: no curve
    labels: Mapping[str, str]

    @property
    def spec(self) -> dict[str, Any]:
        """The `spec` of the cell's record; its hash is the cell's identity."""
        budget = self.budget
        return {
            "target": self.target,
            "target_version": self.target_version,
            "sampler": self.sampler,
            "seed": self.seed,
            "device": self.device,
            "draws": self.draws,
            "budget": {
                "train": list(budget.train),
                "draw": list(budget.draw),
                "measure": list(budget.measure),
                "seconds": None if budget.seconds == float("inf") else budget.seconds,
            },
        }

    @property
    def id(self) -> str:
        from tiltbench.record import spec_id

        return spec_id(self.spec)

    @property
    def title(self) -> str:
        return f"{self.labels['target']} · {self.labels['sampler']} · seed {self.seed}"


@dataclass(frozen=True)
class Choice:
    """A target or sampler as a suite names it."""

    spec: Spec
    label: str
    budget: int | None = None  # of a sampler; None: the suite's

    @staticmethod
    def of(text: str) -> Choice:
        """`name[key=value]` (see tiltbench.spec.parse); the label is the text.  Raises BadSpec."""
        chosen = parse(text)
        return Choice(chosen, _text(chosen))

    def answers_to(self, name: str) -> bool:
        return name in (self.label, self.label.partition("[")[0], self.spec["name"])


@dataclass(frozen=True)
class Override:
    """Sampler parameters for the cells of these targets and samplers; none given: of every one."""

    targets: tuple[str, ...]
    samplers: tuple[str, ...]
    params: Mapping[str, Any]

    def hits(self, target: Choice, sampler: Choice) -> bool:
        return all(
            not names or any(choice.answers_to(name) for name in names)
            for names, choice in ((self.targets, target), (self.samplers, sampler))
        )


@dataclass(frozen=True)
class Suite:
    name: str
    description: str
    budget: int
    draws: int
    seeds: tuple[int, ...]
    targets: tuple[Choice, ...]
    samplers: tuple[Choice, ...]
    overrides: tuple[Override, ...] = ()
    limits: Limits = field(default_factory=Limits)
    curve: int = 0

    def cells(self, device: str) -> list[Cell]:
        """Every cell, targets outermost and seeds innermost.

        Raises BadSpec or UnknownName, naming the part that cannot be built or the reference that
        holds too few draws."""
        cells = []
        for target, sampler in itertools.product(self.targets, self.samplers):
            made, chosen = build_target(target.spec), sampler.spec
            _holds(made, self.draws)
            for override in self.overrides:
                if override.hits(target, sampler):
                    chosen = _merged(chosen, override.params, build_sampler)
            target_spec, sampler_spec = spec(made), spec(build_sampler(chosen))
            budget = self._allowance(sampler.budget or self.budget)
            labels = {"target": target.label, "sampler": sampler.label}
            if sampler.budget and sampler.budget < self.budget:  # --budget may have lowered that
                labels["budget"] = str(self.budget)
            cells += [
                Cell(
                    target_spec,
                    made.version,
                    sampler_spec,
                    budget,
                    seed,
                    device,
                    self.draws,
                    self.curve,
                    labels,
                )
                for seed in self.seeds
            ]
        _distinct(cells)
        return cells

    def _allowance(self, points: int) -> Budget:
        """Measuring: 200 a draw for reverse paths, 200 a draw for the learning curve, and for the
        probes as much as training or drawing cost.  None of it reaches the sampler."""
        from tiltbench.budget import Budget
        from tiltbench.targets.cost import Cost

        extra = 200 * self.curve * CURVE_POINTS + max(points, 200 * self.draws)
        return Budget.of(points, self.draws, Cost(extra, extra))

    def only(self, targets: Iterable[str] = (), samplers: Iterable[str] = ()) -> Suite:
        """The part of the suite that these names or labels pick; none given: all."""
        return replace(
            self,
            targets=_pick(self.targets, list(targets), "target", self.name),
            samplers=_pick(self.samplers, list(samplers), "sampler", self.name),
        )

    def spanned(self, settings: Iterable[tuple[str, str, list[Any]]]) -> Suite:
        """The grid of `--set owner.key=a,b`: one target or sampler more for every value."""
        suite = self
        for owner, key, values in settings:
            choices = (*suite.targets, *suite.samplers)
            if not any(choice.answers_to(owner) for choice in choices):
                near = _near(owner, [choice.label for choice in choices])
                raise UnknownName(f"--set {owner}.{key}: nothing here is called {owner!r}{near}")
            suite = replace(
                suite,
                targets=tuple(_span(suite.targets, build_target, owner, key, values)),
                samplers=tuple(_span(suite.samplers, build_sampler, owner, key, values)),
            )
        return suite


def _span(
    choices: Iterable[Choice], build: Builder, owner: str, key: str, values: list[Any]
) -> Iterable[Choice]:
    for choice in choices:
        if not choice.answers_to(owner):
            yield choice
            continue
        for value in values:
            nested: Any = value
            for part in reversed(key.split(".")):
                nested = {part: nested}
            head, bracket, tail = choice.label.partition("[")
            inside = f"{tail.removesuffix(']')}," if bracket else ""
            label = f"{head}[{inside}{_text({'name': '', 'params': {key: value}})[1:]}"
            yield replace(choice, spec=_merged(choice.spec, nested, build), label=label)


def _text(given: Spec) -> str:
    """A spec as it would be typed."""
    return shorten(given, {"name": "", "params": {}})


def _merged(old: Spec, params: Mapping[str, Any], build: Builder) -> Spec:
    """`old` with `params` laid over its own; a table without a name varies the present part."""
    merged = dict(old["params"])
    for key, value in params.items():
        if isinstance(value, dict) and "name" not in value:
            part = merged.get(key) or spec(build(old))["params"].get(key)
            if not isinstance(part, dict):
                raise BadSpec(
                    f"{old['name']}.{key} is not a part, so it has no {next(iter(value))!r}"
                )
            merged[key] = {"name": part["name"], "params": {**part["params"], **value}}
        else:
            merged[key] = value
    return {"name": old["name"], "params": merged}


def _pick(
    choices: tuple[Choice, ...], names: list[str], kind: str, suite: str
) -> tuple[Choice, ...]:
    for name in names:
        if not any(choice.answers_to(name) for choice in choices):
            near = _near(name, [choice.label for choice in choices])
            raise UnknownName(f"suite {suite!r} has no {kind} {name!r}{near}")
    return tuple(c for c in choices if not names or any(c.answers_to(name) for name in names))


def _holds(target: Any, draws: int) -> None:
    """Raises BadSpec where `draws` exact ones cannot be had of a stored reference."""
    import torch

    from tiltbench.targets.reference import Referenced

    if not isinstance(target, Referenced):
        return
    try:
        truth = target.truth()
        if truth.sample is not None:
            truth.sample(draws, torch.Generator().manual_seed(0))
    except ValueError as error:
        raise BadSpec(str(error)) from error


def _distinct(cells: list[Cell]) -> None:
    seen: dict[str, Cell] = {}
    for cell in cells:
        if cell.id in seen:
            raise BadSpec(
                f"two cells are the same run: {seen[cell.id].title} and {cell.title}; remove one"
            )
        seen[cell.id] = cell
    titles: dict[str, str] = {}
    for cell in cells:
        if titles.setdefault(cell.title, cell.id) != cell.id:
            raise BadSpec(f"two different cells are called {cell.title}: give them labels")


def suite_names() -> dict[str, str]:
    """Name -> one-line description of every suite that ships."""
    return {
        path.stem: _read(path)["suite"].get("description", "")
        for path in sorted(SUITES.glob("*.toml"))
    }


def load_suite(name: str) -> Suite:
    """A suite by its name or by the path of its TOML file.

    Raises UnknownName (nearest match) or BadSpec (what is wrong in the file)."""
    path = Path(name) if name.endswith(".toml") else SUITES / f"{name}.toml"
    if not path.is_file():
        known = sorted(p.stem for p in SUITES.glob("*.toml"))
        raise UnknownName(
            f"no suite is called {name!r}{_near(name, known)} The suites are: {', '.join(known)}"
            if not name.endswith(".toml")
            else f"there is no file {path}; check the path of the suite"
        )
    data = _read(path)
    _known(data, {"suite", "target", "sampler", "override"}, path.name)
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
        full = _merged(chosen.spec, given, build_target if kind == "target" else build_sampler)
        points = _own_budget(row, data["suite"], where)
        named = _text(full) + (f" at {points:,}" if points else "")
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
    rows = data.get("override", [])
    for row in rows if isinstance(rows, list) else [rows]:
        _words(row, (), f"{where} [[override]]")
        _known(row, {"target", "sampler", "params"}, f"{where} [[override]]")
        if not row.get("params"):
            raise BadSpec(f"{where}: an [[override]] has no params, so it changes nothing")
        targets, samplers = (_chosen(row, kind, data, where) for kind in ("target", "sampler"))
        yield Override(targets, samplers, _params(row, f"{where} [[override]]"))


def _chosen(row: Mapping[str, Any], kind: str, data: dict[str, Any], where: str) -> tuple[str, ...]:
    """The targets or samplers that an [[override]] names.  Raises BadSpec for any that the suite
    does not have."""
    names = row.get(kind, "")
    names = [names] if names and isinstance(names, str) else names
    if names == "":
        return ()
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise BadSpec(
            f"{where} [[override]] {kind} is {names!r}; it must be text or a list of texts, or be "
            f"left out for every {kind}"
        )
    choices = list(_choices(data, kind, where))
    for name in names:
        if not any(c.answers_to(name) for c in choices):
            near = _near(name, [c.label for c in choices])
            raise BadSpec(
                f"{where}: an [[override]] is for {kind} {name!r}, not in the suite{near}"
            )
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
            raise BadSpec(f"{where} has no key {key!r}{_near(key, sorted(keys))}")


def _near(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else "."
