"""Where a record's plug-in lies now: it can be loaded from wherever a command is called from."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from tiltbench.plan.plugins import REGISTRIES
from tiltbench.plan.source import file_hash
from tiltbench.plan.spec import Spec
from tiltbench.records.record import Record, brings_code
from tiltbench.targets.files import Reference, split


def hints(names: Iterable[str], runs: Path) -> dict[str, str]:
    """The paths of the plug-in files among `names`, as seen from the results folder around `runs`:
    they hold while both are moved together, and say nothing of the machine.  Kept in the record's
    `code["files"]`."""
    home, paths = runs.resolve().parent, {}
    for name in names:
        file = split(name)
        if file is not None:
            try:
                paths[name] = Path(os.path.relpath(file.path.resolve(), home)).as_posix()
            except ValueError:  # another drive
                continue
    return paths


def located(record: Record, runs: Path, part: str = "target") -> Spec:
    """The spec that builds the record's target here, or its other `part`, the sampler: its own,
    with the path of a plug-in file where that lies now.

    It is looked for at the record's hint (from the results folder), at its name (from the working
    folder), and among the files of --plugin.  The file of the recorded content wins; else one of
    --plugin, the hint, the name, in that order: an edited file.  None inside the results folder."""
    stated: Spec = record.spec[part]
    name = str(stated["name"])
    file = split(name)
    if file is None:
        return stated
    places = [*_lent(file), *_hinted(record, name, runs), file.path]
    there = [path for path in places if path.is_file() and not brings_code(str(path), runs)]
    if not there:
        return stated
    recorded = record.code.get("plugins", {}).get(name)
    same = [path for path in there if file_hash(path) == recorded]
    chosen = os.path.relpath((same or there)[0])
    return {**stated, "name": f"{chosen}:{file.name}" if file.name else chosen}


def _hinted(record: Record, name: str, runs: Path) -> list[Path]:
    files = record.code.get("files")
    hint = files.get(name) if isinstance(files, dict) else None
    return [runs.resolve().parent / hint] if isinstance(hint, str) else []


def _lent(file: Reference) -> list[Path]:
    entries = [registry.entries.get(file.name) for registry in REGISTRIES]
    return [entry.path for entry in entries if entry is not None and entry.module is None]
