"""Plug-ins are found by folder: one file is enough, and no list of names is kept anywhere.

A file offers what it *names*: a top-level class with `name = "..."` in its body, or a top-level
assignment `thing = Call("thing", ...)` whose first argument repeats the variable's name.  Files are
read as text (`ast`), so that listing imports nothing; a plug-in is imported when it is asked for.
Other installed packages offer things by entry point, `thing = "package.module:thing"` in the groups
`tiltbench.targets`, `tiltbench.samplers` (losses too) and `tiltbench.metrics`.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import itertools
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

from tiltbench.targets.files import load_file, split, with_neighbours

HERE = Path(__file__).parent


class UnknownName(LookupError):
    """A name that no plug-in carries; the message holds the nearest matches."""


class BrokenFile(UnknownName):
    """A plug-in file that cannot be imported; the message holds what it raised."""


class Clash(UnknownName):
    """Two plug-ins that claim one name; the message says where both are."""


@dataclass(frozen=True)
class Entry:
    """Where a named thing lives: attribute `attribute` of module `module`, or of the file `path`
    where that is None.

    `package` is the distribution that offers it by entry point (`path` is then its top-level
    module), "" for this package and for files.  `is_class` is False for `thing = Call(...)`, and
    where that is not known."""

    name: str
    attribute: str
    summary: str
    path: Path
    module: str | None
    package: str = ""
    is_class: bool = False
    dim: str = ""  # of a target: what its class says of it, such as "2" or "side ** 2"

    def load(self) -> Any:
        """The thing itself.  Raises BrokenFile where a plug-in cannot be imported.

        What its import does to this process (seeds, PyTorch's default dtype) is undone."""
        if not self.package and self.module in sys.modules:
            return self._loaded()  # imports nothing
        from tiltbench.targets.settings import preserved  # here: reading names imports no PyTorch

        with preserved():
            return self._loaded()

    def docstrings(self) -> list[str]:
        """What is said of it in its file: the docstring of a class, else that below its name, with
        the file's own where that adds to it."""
        import inspect  # here: listing names is quick

        thing = self.load()
        docstring = inspect.getdoc(thing) if isinstance(thing, type) else ""
        if docstring or not self.module:
            return [docstring or self.summary]
        whole = inspect.getdoc(importlib.import_module(self.module)) or ""
        within = self.summary in " ".join(whole.split())
        return [text for text in ([whole] if within else [self.summary, whole]) if text]

    def _loaded(self) -> Any:
        if self.package:
            return _offered(self)
        module = importlib.import_module(self.module) if self.module else _import_file(self.path)
        return getattr(module, self.attribute)

    def sources(self) -> list[Path]:
        """The files outside this package that decide what the thing is."""
        if self.package and self.path.name == "__init__.py":
            return sorted(self.path.parent.rglob("*.py"))
        if self.package:
            return [self.path]
        return [] if self.module else with_neighbours(self.path)


def scan(path: Path, module: str | None = None) -> Iterator[Entry]:
    """The named things of one file, in the order written, without importing it."""
    tree = ast.parse(path.read_bytes(), filename=str(path))
    head = _paragraph(ast.get_docstring(tree))
    for node, after in itertools.zip_longest(tree.body, tree.body[1:]):
        if isinstance(node, ast.ClassDef):
            name = _class_name(node)
            if name:
                summary = _paragraph(ast.get_docstring(node)) or head
                yield Entry(name, node.name, summary, path, module, is_class=True, dim=_dim(node))
        elif isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Call):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            first = node.value.args[0] if node.value.args else None
            if (
                isinstance(target, ast.Name)
                and isinstance(first, ast.Constant)
                and first.value == target.id
                and ast.unparse(node.value.func).rpartition(".")[2] not in OF_TYPES
            ):
                yield Entry(target.id, target.id, _attribute_doc(after) or head, path, module)


OF_TYPES = {"TypeVar", "ParamSpec", "TypeVarTuple", "NewType", "NamedTuple", "namedtuple"}
# these, too, are called with the name that they are given, and make nothing to be run


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
            return _paragraph(node.value.value)
    return ""


def _paragraph(doc: str | None) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join((doc or "").strip().partition("\n\n")[0].split())


def _dim(node: ast.ClassDef) -> str:
    """What a class says of its `dim`: a number, or the expression that its property returns."""
    for item in node.body:
        value: ast.expr | None = None
        if isinstance(item, ast.Assign | ast.AnnAssign):
            target = item.targets[0] if isinstance(item, ast.Assign) else item.target
            if isinstance(target, ast.Name) and target.id == "dim":
                value = item.value
        elif isinstance(item, ast.FunctionDef) and item.name == "dim":
            last = item.body[-1]
            value = last.value if isinstance(last, ast.Return) else None
        if value is not None:
            return ast.unparse(value).replace("self.", "")
    return ""


def _import_file(path: Path) -> Any:
    """A plug-in outside the package.  Raises BrokenFile for whatever its import raises, SystemExit
    included."""
    try:
        return load_file(path)
    except (Exception, SystemExit) as error:
        message = " ".join(str(error).split())
        raise BrokenFile(
            f"importing {path.resolve()} raises {type(error).__name__}: {message}; "
            f"make `python {path.name}` run without an error"
        ) from error


def _entry_of_point(point: EntryPoint) -> Entry:
    """What an installed package offers, without importing it."""
    package = point.dist.name if point.dist else "?"
    try:
        top = importlib.util.find_spec(point.module.partition(".")[0])
    except ValueError:  # a module that runs as a script
        top = None
    path = Path(top.origin) if top and top.origin else Path(point.module)
    summary = f"from the package {package} {point.dist.version if point.dist else ''}".strip()
    return Entry(point.name, point.attr, summary, path, point.module, package)


def _offered(entry: Entry) -> Any:
    """The thing behind an entry point.  Raises BrokenFile where it is not what the point says."""
    where = f"{entry.module}:{entry.attribute}, which the package {entry.package} offers"
    mend = f"mend or uninstall {entry.package}"
    try:
        thing = getattr(importlib.import_module(str(entry.module)), entry.attribute)
    except (Exception, SystemExit) as error:
        message = " ".join(str(error).split())
        raise BrokenFile(
            f"importing {where} as {entry.name!r}, raises {type(error).__name__}: {message}; {mend}"
        ) from error
    if getattr(thing, "name", None) != entry.name:
        raise BrokenFile(
            f"{where} as {entry.name!r}, has the name {getattr(thing, 'name', None)!r}; "
            f"give both one name: {mend}"
        )
    return thing


@dataclass(frozen=True)
class Registry:
    """Names of one kind.  `places` are (folder or file, module prefix) pairs, searched in order;
    `group` is that of other packages' entry points."""

    kind: str
    places: tuple[tuple[Path, str], ...]
    group: str = ""

    @cached_property
    def entries(self) -> dict[str, Entry]:
        """Name -> entry.  Raises Clash where two plug-ins claim one name."""
        entries: dict[str, Entry] = {}
        for entry in self._scan_places():
            self._refuse_twins(entries, entry)
            entries[entry.name] = entry
        return entries

    def _scan_places(self) -> Iterator[Entry]:
        for place, prefix in self.places:
            files = sorted(place.glob("*.py")) if place.is_dir() else [place]
            for file in files:
                if not file.stem.startswith("_"):
                    yield from scan(file, f"{prefix}.{file.stem}" if place.is_dir() else prefix)
        if self.group:
            from importlib.metadata import entry_points  # imports a parser of e-mail

            yield from map(_entry_of_point, entry_points(group=self.group))

    def _refuse_twins(self, entries: Mapping[str, Entry], entry: Entry) -> None:
        if entry.name in entries:
            raise Clash(
                f"two {self.kind}s are called {entry.name!r}: "
                f"{entries[entry.name].path} and {entry.path}; rename one of them"
            )

    def add(self, entry: Entry) -> None:
        """One name more in this process, until `remove`.  Raises Clash where it is taken."""
        self._refuse_twins(self.entries, entry)
        self.entries[entry.name] = entry

    def remove(self, entry: Entry) -> None:
        del self.entries[entry.name]

    def find(self, name: str) -> Entry:
        """The entry of a registered name, or of `path/to/file.py` (`path/to/file.py:name`).

        Raises UnknownName with the nearest match."""
        file = split(name)
        if file is not None:
            return _entry_of_file(file.path, file.name)
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


def entries_of_file(path: Path) -> list[Entry]:
    """What a file outside the package names, one thing or more.  Raises UnknownName."""
    if not path.is_file():
        raise UnknownName(f"there is no file {path}; check the path of the plug-in")
    try:
        entries = list(scan(path))
    except (SyntaxError, ValueError) as error:  # ValueError: not UTF-8, or NUL bytes
        raise UnknownName(f"{path} is not valid Python: {error}") from error
    except OSError as error:
        raise UnknownName(f"{path} cannot be read: {error.strerror}") from error
    if not entries:
        nearly = _nearly_named(path)
        raise UnknownName(
            f"{path} names no plug-in: "
            + (
                f"the first argument must repeat the variable, unlike `{nearly[0]}`; "
                f"write `{nearly[1]}`"
                if nearly
                else 'give its class a line `name = "..."`, or repeat the name of the variable, '
                'as `thing = from_numpy("thing", ...)` does'
            )
        )
    return entries


def _nearly_named(path: Path) -> tuple[str, str] | None:
    """The last `thing = from_numpy("other", ...)`, or its like, of a file that names nothing, and
    how it would name something."""
    for node in reversed(ast.parse(path.read_bytes()).body):
        if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)):
            continue
        target, call = node.targets[0], node.value
        function = ast.unparse(call.func)
        by_name = [word.value for word in call.keywords if word.arg == "name"]
        first = next(iter([*call.args, *by_name]), None)
        if (
            function.rpartition(".")[2].startswith(("from_", "Loss"))
            and isinstance(target, ast.Name)
            and isinstance(first, ast.Constant)
            and isinstance(first.value, str)
        ):
            thing = first.value if first.value.isidentifier() else target.id
            written = f'{"" if call.args else "name="}"{first.value}"'
            return (
                f"{target.id} = {function}({written}, ...)",
                f'{thing} = {function}("{thing}", ...)',
            )
    return None


def _entry_of_file(path: Path, inside: str) -> Entry:
    entries = entries_of_file(path)
    chosen = [e for e in entries if e.name == inside] if inside else entries
    if len(chosen) == 1:
        return chosen[0]
    names = ", ".join(e.name for e in entries)
    raise UnknownName(f"{path} holds {names}; choose one as {path}:NAME")


TARGETS = Registry(
    "target",
    (
        (HERE / "densities", "tiltbench.targets.densities"),
        (HERE / "densities" / "posteriors", "tiltbench.targets.densities.posteriors"),
        (HERE / "tilts", "tiltbench.targets.tilts"),
    ),
    "tiltbench.targets",
)


def _of_base(kind: str, file: str) -> Registry:
    return Registry(kind, ((HERE / "bases" / f"{file}.py", f"tiltbench.targets.bases.{file}"),))


REFERENCES = _of_base("reference process", "references")
SCHEDULES = _of_base("schedule", "schedules")
STEPPINGS = _of_base("stepping", "interpolant")
