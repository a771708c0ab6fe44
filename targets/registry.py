"""Plug-ins are found by folder: one file is enough, and no list of names is kept anywhere.

A file offers what it *names*: a top-level class with `name = "..."` in its body, or a top-level
assignment `thing = Call("thing", ...)` whose first argument repeats the variable's name.  Files are
read as text (`ast`), so that listing imports nothing; a plug-in is imported when it is asked for.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import importlib
import importlib.util
import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


class UnknownName(LookupError):
    """A name that no plug-in carries; the message holds the nearest matches."""


class BrokenFile(UnknownName):
    """A plug-in file that cannot be imported; the message holds what it raised."""


@dataclass(frozen=True)
class Entry:
    """Where a named thing lives: module `module` (or the file `path`), attribute `attribute`."""

    name: str
    attribute: str
    summary: str
    path: Path
    module: str | None

    def load(self) -> Any:
        module = importlib.import_module(self.module) if self.module else _import_file(self.path)
        return getattr(module, self.attribute)


def scan(path: Path, module: str | None = None) -> Iterator[Entry]:
    """The named things of one file, in the order written, without importing it."""
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    head = (ast.get_docstring(tree) or "").partition("\n")[0]
    for node, after in itertools.zip_longest(tree.body, tree.body[1:]):
        if isinstance(node, ast.ClassDef):
            name = _class_name(node)
            summary = (ast.get_docstring(node) or head).partition("\n")[0]
            if name:
                yield Entry(name, node.name, summary, path, module)
        elif isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Call):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            first = node.value.args[0] if node.value.args else None
            if (
                isinstance(target, ast.Name)
                and isinstance(first, ast.Constant)
                and first.value == target.id
            ):
                yield Entry(target.id, target.id, _attribute_doc(after) or head, path, module)


def _class_name(node: ast.ClassDef) -> str | None:
    for item in node.body:
        if isinstance(item, ast.Assign | ast.AnnAssign):
            target = item.targets[0] if isinstance(item, ast.Assign) else item.target
            if isinstance(target, ast.Name) and target.id == "name":
                value = item.value
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    return value.value
    return None


def _attribute_doc(node: ast.stmt | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        if isinstance(node.value.value, str):
            return node.value.value.strip().partition("\n")[0]
    return ""


def _import_file(path: Path) -> Any:
    """A plug-in outside the package, imported once per place and content, under its own name.

    Raises BrokenFile for whatever its import raises, SystemExit included."""
    path = path.resolve()
    digest = hashlib.sha256(str(path).encode() + path.read_bytes()).hexdigest()
    name = f"tiltbench_plugin_{digest[:16]}_{path.stem}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            del sys.modules[name]
            said = " ".join(str(error).split())
            raise BrokenFile(
                f"importing {path} raises {type(error).__name__}: {said}; "
                f"make `python {path.name}` run without an error"
            ) from error
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


@dataclass(frozen=True)
class Registry:
    """Names of one kind.  `places` are (folder or file, module prefix) pairs, searched in order."""

    kind: str
    places: tuple[tuple[Path, str], ...]

    @cached_property
    def entries(self) -> dict[str, Entry]:
        """Name -> entry.  Raises ValueError where two files claim one name."""
        found: dict[str, Entry] = {}
        for place, prefix in self.places:
            files = sorted(place.glob("*.py")) if place.is_dir() else [place]
            for file in files:
                if file.stem.startswith("_"):
                    continue
                module = f"{prefix}.{file.stem}" if place.is_dir() else prefix
                for entry in scan(file, module):
                    if entry.name in found:
                        raise ValueError(
                            f"two {self.kind}s are called {entry.name!r}: "
                            f"{found[entry.name].path} and {entry.path}; rename one of them"
                        )
                    found[entry.name] = entry
        return found

    def find(self, name: str) -> Entry:
        """The entry of a registered name, or of `path/to/file.py` (`path/to/file.py:name`).

        Raises UnknownName with the nearest match."""
        stem, _, inside = name.partition(".py:")
        if inside or name.endswith(".py"):
            return _entry_of_file(Path(f"{stem}.py" if inside else name), inside)
        if name in self.entries:
            return self.entries[name]
        near = difflib.get_close_matches(name, self.entries, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise UnknownName(
            f"no {self.kind} is called {name!r}{hint} The names are: "
            + ", ".join(sorted(self.entries))
        )

    def load(self, name: str) -> Any:
        return self.find(name).load()


def _entry_of_file(path: Path, inside: str) -> Entry:
    if not path.is_file():
        raise UnknownName(f"there is no file {path}; check the path of the plug-in")
    try:
        entries = list(scan(path))
    except (SyntaxError, ValueError) as error:  # ValueError: not UTF-8, or NUL bytes
        raise UnknownName(f"{path} is not valid Python: {error}") from error
    except OSError as error:
        raise UnknownName(f"{path} cannot be read: {error.strerror}") from error
    chosen = [e for e in entries if e.name == inside] if inside else entries
    if len(chosen) == 1:
        return chosen[0]
    names = ", ".join(e.name for e in entries)
    if not entries:
        raise UnknownName(
            f'{path} names no plug-in: give its class a line `name = "..."`, '
            'or write `thing = Loss("thing", ...)`'
        )
    raise UnknownName(f"{path} holds {names}; choose one as {path}:NAME")


TARGETS = Registry(
    "target",
    (
        (HERE / "densities", "tiltbench.targets.densities"),
        (HERE / "tilts", "tiltbench.targets.tilts"),
    ),
)
REFERENCES = Registry(
    "reference process", ((HERE / "references.py", "tiltbench.targets.references"),)
)
SCHEDULES = Registry("schedule", ((HERE / "schedules.py", "tiltbench.targets.schedules"),))
STEPPINGS = Registry("stepping", ((HERE / "interpolant.py", "tiltbench.targets.interpolant"),))
