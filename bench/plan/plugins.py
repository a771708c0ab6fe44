"""Targets, losses, samplers and metrics from outside the package: of one file, or of a session.

Entry points of installed packages need none of this: the registries find them by themselves.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from tiltbench.metric import Metric
from tiltbench.plan.errors import BadSpec
from tiltbench.plan.source import digest, file_hash, files_hash
from tiltbench.plan.spec import METRICS, PARTS
from tiltbench.samplers.diffusion import Preset
from tiltbench.samplers.loss import Loss
from tiltbench.samplers.registry import SAMPLERS
from tiltbench.samplers.sampler import Sampler
from tiltbench.targets.files import split
from tiltbench.targets.registry import TARGETS, Entry, Registry, UnknownName, entries_of_file
from tiltbench.targets.target import Target

SESSION = "tiltbench_session"  # the module that holds what a session offers
REGISTRIES = (TARGETS, SAMPLERS, METRICS)
DIFFUSION = "samplers.diffusion"  # trains with whatever loss is named


@contextmanager
def plugged(files: Iterable[str | Path]) -> Iterator[None]:
    """Every named thing of these files goes by its own name in this process, while this lasts.

    Raises UnknownName or BadSpec for a file that cannot be used, or a name that is taken."""
    added: list[tuple[Registry, Entry]] = []
    try:
        added.extend(plug(files))
        yield
    finally:
        for registry, entry in added:
            registry.remove(entry)


def plug(files: Iterable[str | Path]) -> Iterator[tuple[Registry, Entry]]:
    """The same for good, one thing after the other as they are asked for."""
    for file in files:
        for entry in entries_of_file(Path(file)):
            registry = registry_of(entry.load(), f"{file}:{entry.name}")
            registry.add(entry)
            yield registry, entry


def offer(*things: Any) -> None:
    """Targets, losses, samplers and metrics of this session by their `name`, until it ends: a class
    or Loss written in a notebook cell.  One offered before under the same name is replaced.

    Raises BadSpec for other things, UnknownName where a plug-in or the package has the name."""
    module = sys.modules.setdefault(SESSION, ModuleType(SESSION))
    for thing in things:
        name = str(getattr(thing, "name", ""))
        registry = registry_of(thing, name or repr(thing))
        former = registry.entries.get(name)
        if former is not None and former.module == SESSION:
            if getattr(module, name) is thing:
                continue
            registry.remove(former)
        place = Path(f"this session {os.urandom(8).hex()}")
        registry.add(Entry(name, name, "of this session", place, SESSION))
        setattr(module, name, thing)


def registry_of(thing: Any, called: str) -> Registry:
    """Where a thing of its kind is registered.  Raises BadSpec where it is of no kind."""
    if isinstance(thing, type) and issubclass(thing, Target):
        return TARGETS
    if isinstance(thing, Loss | Preset) or (isinstance(thing, type) and issubclass(thing, Sampler)):
        return SAMPLERS
    if isinstance(thing, Metric):
        return METRICS
    raise BadSpec(
        f"{called} is neither a target nor a loss, sampler or metric; extend Density, Tilt or "
        "Sampler, or write `thing = Loss(...)` or `thing = Metric(...)`"
    )


def plugged_files() -> list[Path]:
    """The files that `plugged` holds at present: another process has to plug them in as well."""
    entries = [entry for registry in REGISTRIES for entry in registry.entries.values()]
    return list(dict.fromkeys(entry.path for entry in entries if entry.module is None))


def in_session(name: str) -> bool:
    """Whether the name stands for something that other processes cannot see."""
    return any(entry.module == SESSION for entry in _called(name))


def _called(name: str) -> list[Entry]:
    return [r.entries[name] for r in REGISTRIES if name in r.entries]


def plugin_hash(name: str) -> str:
    """16 hex digits over the files outside this package that decide what a registered name or
    `path/to/file.py:name` is, those that a plug-in imports from its own folder included; "" for the
    package's own, and for files that are gone.

    What a session offers has no file: its digits are its own, and new when it is offered anew."""
    file = split(name)
    if file is not None:
        return file_hash(file.path)
    if in_session(name):
        return _called(name)[0].path.name.rpartition(" ")[2]
    return digest(entry_digest for entry in _called(name) if (entry_digest := entry_hash(entry)))


def truth_hash(name: str) -> str:
    """`plugin_hash` of a target and, where a certified reference lies beside its file, a hash of
    that: with it the target has another truth, and other floors."""
    code = plugin_hash(name)
    try:
        entry = TARGETS.find(name)
    except UnknownName:  # or a file that is gone
        return code
    if entry.module is not None and entry.module != SESSION:
        return code
    folder = Path() if entry.module == SESSION else entry.path.parent
    about = folder / f"{entry.name}_reference.json"
    if not about.is_file():
        return code
    return f"{code} reference {hashlib.sha256(about.read_bytes()).hexdigest()[:16]}"


def entry_hash(entry: Entry) -> str:
    """The same of one entry."""
    if entry.package:
        return files_hash([path for path in entry.sources() if path.is_file()], entry.path.parent)
    return file_hash(entry.path) if entry.module is None else ""


def deciding(named: Mapping[str, Any], registry: Registry) -> tuple[set[str], set[Path]]:
    """(the modules of this package, the files outside it) that make the target or sampler of a spec
    what it is, its parts included: `Sources.hash` follows what they import.

    Nothing for a name that is not known here, such as that of draws from elsewhere."""
    try:
        entries = [registry.find(named["name"])]
    except UnknownName:
        return set(), set()
    modules = {DIFFUSION} if registry is SAMPLERS and not entries[0].is_class else set()
    entries += [part for value in named["params"].values() for part in _parts(value)]
    files = {path for entry in entries for path in entry.sources()}
    plugin_modules = {e.module for e in entries if e.module is not None and not e.package}
    return modules | {module.removeprefix("tiltbench.") for module in plugin_modules}, files


def _parts(value: Any) -> Iterator[Entry]:
    """The entries of the parts that a parameter's value names."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from _parts(item)
    elif isinstance(value, Mapping) and "name" in value:
        yield from (r.entries[value["name"]] for r in PARTS if value["name"] in r.entries)
        for item in value.get("params", {}).values():
            yield from _parts(item)


def metric_hash() -> str:
    """16 hex digits over the files outside this package that decide a score; "" without any."""
    return digest(
        f"{name} {entry_digest}"
        for name, e in METRICS.entries.items()
        if (entry_digest := entry_hash(e))
    )


def metric_modules() -> tuple[set[str], set[Path]]:
    """As `deciding`, of every registered metric."""
    entries = METRICS.entries.values()
    plugged_in = {
        e.module.removeprefix("tiltbench.") for e in entries if e.module and not e.package
    }
    return plugged_in, {path for entry in entries for path in entry.sources()}
