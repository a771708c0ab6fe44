"""Targets, losses, samplers and metrics from outside the package: of one file, or of a session.

Entry points of installed packages need none of this: the registries find them by themselves.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from tiltbench.metric import Metric
from tiltbench.plan.errors import BadSpec
from tiltbench.plan.spec import METRICS
from tiltbench.samplers.diffusion import Preset
from tiltbench.samplers.loss import Loss
from tiltbench.samplers.registry import SAMPLERS
from tiltbench.samplers.sampler import Sampler
from tiltbench.targets.registry import TARGETS, Entry, Registry, entries_of_file
from tiltbench.targets.target import Target

SESSION = "tiltbench_session"  # the module that holds what a session offers
REGISTRIES = (TARGETS, SAMPLERS, METRICS)


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
    `path/to/file.py:name` is; "" for the package's own, and for files that are gone.

    What a session offers has no file: its digits are its own, and new when it is offered anew."""
    stem, suffix, _ = name.partition(".py")
    if suffix:
        return _digest([Path(stem + suffix)])
    if in_session(name):
        return _called(name)[0].path.name.rpartition(" ")[2]
    return _digest([path for entry in _called(name) for path in entry.sources()])


def metric_sources() -> list[Path]:
    """The files outside this package that decide a score."""
    return [path for entry in METRICS.entries.values() for path in entry.sources()]


def _digest(files: list[Path]) -> str:
    there = [path for path in files if path.is_file()]
    total = hashlib.sha256(b"".join(path.read_bytes() for path in there))
    return total.hexdigest()[:16] if there else ""
