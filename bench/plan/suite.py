"""The cells of a suite: the product of its targets, samplers and seeds, less the pairs that a
sampler's own `targets` leave out.

`Suite.cells` builds every target and sampler, so that a wrong parameter, or more draws than a
stored reference holds, stops the run before anything has run.
"""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

from tiltbench.plan.budget import UNLIMITED, Budget
from tiltbench.plan.cell import CURVE_POINTS, Cell, Limits
from tiltbench.plan.errors import BadSpec
from tiltbench.plan.spec import Spec, build_sampler, build_target, parse, shorten, spec
from tiltbench.plan.text import head, unquoted
from tiltbench.samplers.search import Search
from tiltbench.targets.cost import Cost
from tiltbench.targets.registry import UnknownName

UNTRAINED = "untrained"  # the sampler that draws from the base, which every table shows
Builder = Callable[[Spec], Any]  # build_target or build_sampler


@dataclass(frozen=True)
class Choice:
    """A target or sampler as a suite names it."""

    spec: Spec
    label: str
    calls: int | None = None  # of training; None: the suite's, of this and the next two
    flops: float | None = None
    seconds: float | None = None
    targets: tuple[str, ...] = ()  # of a sampler: those it runs on, labels or names; none: all

    @staticmethod
    def of(text: str) -> Choice:
        """`name[key=value]` (see plan.spec.parse); the label is the text.  Raises BadSpec."""
        chosen = parse(text)
        return Choice(chosen, typed(chosen))

    def answers_to(self, name: str) -> bool:
        mine = (self.label, head(self.label), self.spec["name"])
        return name in mine or unquoted(name) in mine

    def runs_on(self, target: Choice) -> bool:
        """Whether this sampler is to run on the target."""
        return not self.targets or any(target.answers_to(name) for name in self.targets)


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
class Searched:
    """The laws that a suite gives to the parameters of these samplers; none given: of every one."""

    samplers: tuple[str, ...]
    laws: Search

    def hits(self, sampler: Choice) -> bool:
        return not self.samplers or any(sampler.answers_to(name) for name in self.samplers)


@dataclass(frozen=True)
class Tuned:
    """What `tiltbench tune` chose in `trials` trials for one sampler on these targets, all by their
    exact labels; it comes after every override."""

    targets: tuple[str, ...]
    sampler: str
    trials: int
    params: Mapping[str, Any]

    def hits(self, target: Choice, sampler: Choice) -> bool:
        return target.label in self.targets and sampler.label == self.sampler


@dataclass(frozen=True)
class Suite:
    name: str
    description: str
    calls: int  # of training; UNLIMITED where another limit is stated
    draws: int
    seeds: tuple[int, ...]
    targets: tuple[Choice, ...]
    samplers: tuple[Choice, ...]
    overrides: tuple[Override, ...] = ()
    limits: Limits = field(default_factory=Limits)
    curve: int = 0
    searches: tuple[Searched, ...] = ()
    tuned: tuple[Tuned, ...] = ()
    flops: float = math.inf  # floating-point operations of training, networks and target together
    seconds: float = math.inf  # of the training clock: such runs are never the same to the bit
    ode: int = 0

    @property
    def pairs(self) -> list[tuple[Choice, Choice]]:
        """Every target with every sampler that runs on it, targets outermost."""
        both = itertools.product(self.targets, self.samplers)
        return [(target, sampler) for target, sampler in both if sampler.runs_on(target)]

    def varied(self, target: Choice, sampler: Choice) -> Spec:
        """The sampler as it is to run on the target.  Raises BadSpec."""
        chosen = sampler.spec
        if chosen["name"] == UNTRAINED:  # there is nothing in it to vary
            return chosen
        rows: tuple[Override | Tuned, ...] = (*self.overrides, *self.tuned)
        for row in rows:
            if row.hits(target, sampler):
                chosen = overlaid(chosen, row.params, build_sampler)
        return chosen

    def laws(self, sampler: Choice) -> Search:
        """What `tune` may vary: of the last [[search]] for it, else what the method declares."""
        stated = [search.laws for search in self.searches if search.hits(sampler)]
        declared: Search = build_sampler(sampler.spec).search()
        return stated[-1] if stated else declared

    def trials(self, target: Choice, sampler: Choice) -> int:
        """How many trials chose the sampler's parameters on the target; 0: it is untuned."""
        return max((row.trials for row in self.tuned if row.hits(target, sampler)), default=0)

    def cells(self, device: str, tf32: bool = False) -> list[Cell]:
        """Every cell, targets outermost and seeds innermost; all `rounded` where `tf32` says so.

        Raises BadSpec or UnknownName, naming the part that cannot be built, the reference that
        holds too few draws, the sampler that would outspend its table, the target without a limit,
        TF32 on the CPU, or that no sampler runs on any target."""
        if not self.pairs:
            raise BadSpec(_apart(self.targets, self.samplers))
        cells = []
        for target, sampler in self.pairs:
            most = target.calls or self.calls  # --calls may have lowered it
            if sampler.calls and sampler.calls >= most:
                raise BadSpec(
                    f"{sampler.label} has calls of its own, {sampler.calls:,}, which are not "
                    f"below the {most:,} of {target.label}: raise those (--calls), or leave one "
                    "of the two out"
                )
            built = build_target(target.spec)
            _check_reference(built, self.draws)
            target_spec = spec(built)
            sampler_spec = spec(build_sampler(self.varied(target, sampler)))
            budget = self.budget(target, sampler)
            if not budget.limits:
                raise BadSpec(
                    f"nothing limits the training on {target.label}: state calls below "
                    f"{UNLIMITED:,}, flops or seconds"
                )
            labels = {"target": target.label, "sampler": sampler.label}
            if trials := self.trials(target, sampler):
                labels["tuned"] = f"{trials} trials"
            cells += [
                Cell(
                    target_spec,
                    built.version,
                    sampler_spec,
                    budget,
                    seed,
                    device,
                    self.draws,
                    self.curve,
                    labels,
                    self.ode,
                )
                for seed in self.seeds
            ]
        _distinct(cells)
        return [cell.rounded() for cell in cells] if tf32 else cells

    def beside_untrained(self) -> Suite:
        """The same with the untrained base, once for every target that a sampler runs on and every
        budget that one has there, so that it stands in every table; as it is where the suite
        names it."""
        if any(sampler.spec["name"] == UNTRAINED for sampler in self.samplers):
            return self
        base = {"name": UNTRAINED, "params": {}}
        added = []
        for calls in dict.fromkeys([None, *(s.calls for s in self.samplers)]):
            users = [s for s in self.samplers if calls is None or s.calls == calls]
            met = [t.label for t in self.targets if any(s.runs_on(t) for s in users)]
            everywhere = len(met) == len(self.targets)
            label = UNTRAINED + (f" at {calls:,}" if calls else "")
            if met:
                added.append(Choice(base, label, calls, targets=() if everywhere else tuple(met)))
        return replace(self, samplers=(*self.samplers, *added))

    def budget(self, target: Choice, sampler: Choice) -> Budget:
        """Measuring: 200 a draw for reverse paths, 200 a draw for the learning curve, for the flow
        two values a draw, and for the probes as much as training or drawing cost.  None of it
        reaches the sampler."""
        points = sampler.calls or target.calls or self.calls
        extra = 200 * self.curve * CURVE_POINTS + max(points, 200 * self.draws)
        budget = Budget.of(points, self.draws, Cost(extra + 2 * self.ode, extra))
        seconds, flops = target.seconds or self.seconds, target.flops or self.flops
        return replace(budget, seconds=seconds, flops=flops)

    def only(self, targets: Iterable[str] = (), samplers: Iterable[str] = ()) -> Suite:
        """The part of the suite that these names or labels pick; none given: all."""
        return replace(
            self,
            targets=_pick(self.targets, list(targets), "target", self.name),
            samplers=_pick(self.samplers, list(samplers), "sampler", self.name),
        )

    def spanned(self, settings: Iterable[tuple[str, str, Sequence[Any]]]) -> Suite:
        """The grid of `--set owner.key=a,b`: one target or sampler more for every value.

        The owner is a name, or a pattern such as `*`, which stands for those that it fits and that
        have the parameter.  Raises UnknownName where there is none, BadSpec for a wrong key."""
        suite = self
        for owner, key, values in settings:
            targets = [_has_setting(choice, build_target, owner, key) for choice in suite.targets]
            samplers = [
                _has_setting(choice, build_sampler, owner, key) for choice in suite.samplers
            ]
            if not any([*targets, *samplers]):
                raise UnknownName(_nothing(owner, key, (*suite.targets, *suite.samplers)))
            suite = replace(
                suite,
                targets=tuple(_span(suite.targets, targets, build_target, key, values)),
                samplers=tuple(_span(suite.samplers, samplers, build_sampler, key, values)),
            )
        return suite


def _apart(targets: Sequence[Choice], samplers: Sequence[Choice]) -> str:
    """Why there are no cells: every sampler is kept to targets that are not among these."""
    kept = "; ".join(f"{s.label} is for {', '.join(s.targets)}" for s in samplers)
    there = ", ".join(target.label for target in targets)
    return f"no sampler here runs on {there}: {kept}; choose those targets, or other samplers"


def _is_pattern(owner: str) -> bool:
    return "*" in owner or "?" in owner


def _has_setting(choice: Choice, build: Builder, owner: str, key: str) -> bool:
    """Whether a setting is of this target or sampler."""
    if choice.answers_to(owner):
        return True
    names = (choice.label, head(choice.label), choice.spec["name"])
    if not _is_pattern(owner) or not any(fnmatchcase(name, owner) for name in names):
        return False
    level: Any = spec(build(choice.spec))
    for part in key.split("."):
        if not isinstance(level, dict) or part not in level.get("params", {}):
            return False
        level = level["params"][part]
    return True


def _nothing(owner: str, key: str, choices: Sequence[Choice]) -> str:
    if _is_pattern(owner):
        fit = ", ".join(choice.label for choice in choices)
        return (
            f"--set {owner}.{key}: none of {fit} that {owner} stands for has a parameter {key!r}; "
            "`tiltbench list NAME` shows what each has"
        )
    near = nearest(owner, [choice.label for choice in choices])
    return f"--set {owner}.{key}: nothing here is called {owner!r}{near}"


def _span(
    choices: Sequence[Choice],
    chosen: Sequence[bool],
    build: Builder,
    key: str,
    values: Sequence[Any],
) -> Iterable[Choice]:
    for choice, mine in zip(choices, chosen, strict=True):
        if not mine:
            yield choice
            continue
        for value in values:
            nested: Any = value
            for part in reversed(key.split(".")):
                nested = {part: nested}
            name = head(choice.label)
            brackets = choice.label.removeprefix(name)
            inside = f"{brackets[1:].removesuffix(']')}," if brackets else ""
            label = f"{name}[{inside}{typed({'name': '', 'params': {key: value}})[1:]}"
            yield replace(choice, spec=overlaid(choice.spec, nested, build), label=label)


def typed(given: Spec) -> str:
    """A spec as it would be typed."""
    return shorten(given, {"name": "", "params": {}})


def overlaid(old: Spec, params: Mapping[str, Any], build: Builder) -> Spec:
    """`old` with `params` laid over its params; a table without a name varies the present part."""
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
    names = _joined(choices, names)
    for name in names:
        if not any(choice.answers_to(name) for choice in choices):
            near = nearest_or_all(name, [choice.label for choice in choices])
            raise UnknownName(f"suite {suite!r} has no {kind} {name!r}{near}")
    return tuple(c for c in choices if not names or any(c.answers_to(name) for name in names))


def _joined(choices: tuple[Choice, ...], names: list[str]) -> list[str]:
    """The names, where one is unknown with the labels put together again that hold a comma: a list
    was parted at all of them."""
    if all(any(choice.answers_to(name) for choice in choices) for name in names):
        return names
    labels = {_tight(choice.label): choice.label for choice in choices}
    joined, at = [], 0
    while at < len(names):
        ends = range(len(names), at, -1)
        end = next((e for e in ends if _tight(",".join(names[at:e])) in labels), at + 1)
        whole = _tight(",".join(names[at:end]))
        joined.append(labels[whole] if end > at + 1 else names[at])
        at = end
    return joined


def _tight(label: str) -> str:
    return ",".join(part.strip() for part in label.split(","))


def _check_reference(target: Any, draws: int) -> None:
    """Raises BadSpec where `draws` exact ones cannot be had of a stored reference."""
    import torch

    from tiltbench.targets.target import Density
    from tiltbench.targets.truths.certified import reference_of

    if not isinstance(target, Density):
        return
    try:
        if reference_of(target) is None:
            return
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


def nearest(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else "."


def nearest_or_all(name: str, names: list[str]) -> str:
    """The nearest name or, where none is near, all of them."""
    near = nearest(name, names)
    return f"; there are {', '.join(map(repr, names))}" if near == "." else near
