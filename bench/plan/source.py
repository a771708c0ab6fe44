"""The identity of code: hashes of syntax, of the files that decide a result and no others.

What counts is what Python would run.  Comments, docstrings, layout, what only a type checker reads,
the order of imports and the places of files do not: an import counts by the content of what it
imports.  Which files decide is read from the import statements, those inside functions too.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from tiltbench.targets.files import Imported, imports, neighbours, typing_only, with_neighbours

PACKAGE = "tiltbench"
BENCH = Path(__file__).resolve().parents[1]
# The parts of the package whose files decide numbers; the others find, keep, order and show.
DECIDING = (
    *("targets", "samplers", "run", "records.validate"),
    *("metric", "metrics", "score.evaluate", "score.curve", "score.floor", "estimators"),
)
FINDING = ("targets.registry", "targets.files", "samplers.registry")


@lru_cache(maxsize=4096)
def syntax(content: bytes) -> str:
    """A hash of what a file of this content does, import statements aside; of the bytes where they
    are no Python."""
    try:
        spelled: list[str] = []
        _spell(ast.parse(content), spelled)
        content = " ".join(spelled).encode("utf-8", "surrogatepass")
    except (SyntaxError, ValueError):
        pass
    return hashlib.sha256(content).hexdigest()


def _spell(node: Any, spelled: list[str]) -> None:
    """Appends the tree as text, without empty fields: versions of Python differ in them."""
    if isinstance(node, ast.Constant):
        spelled.append(f"{type(node.value).__name__}:{node.value!r}")
    elif isinstance(node, ast.AST):
        spelled.append(f"({type(node).__name__}")
        for name, value in ast.iter_fields(node):
            if value is not None and value != [] and name not in ("ctx", "type_comment"):
                spelled.append(f"{name}=")
                _spell(value, spelled)
        spelled.append(")")
    elif isinstance(node, list):
        spelled.append("[")
        for item in node:
            if not _silent(item):
                _spell(item, spelled)
        spelled.append("]")
    else:
        spelled.append(repr(node))


def _silent(node: Any) -> bool:
    """Whether a statement is a docstring, an import, or for type checkers only."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    if typing_only(node):
        return not node.orelse
    return isinstance(node, ast.Import | ast.ImportFrom)


class _File(NamedTuple):
    text: str  # what it does, in a form that does not say where anything lies
    imported: frozenset[str]  # the modules among those that count


@dataclass(frozen=True)
class Sources:
    """The modules of a package by name ("targets.cost"), those that count, and what they import.

    A file is read once: the identity is that of the code as this process found it."""

    modules: Mapping[str, Path]
    deciding: tuple[str, ...] = DECIDING
    but: tuple[str, ...] = FINDING
    _files: dict[str, _File] = field(default_factory=dict, repr=False)

    def hash(self, modules: Iterable[str], plugins: Iterable[Path] = ()) -> str:
        """16 hex digits over these modules, what these files from outside import of the package,
        and all that those import in turn."""
        names = self.closure([*modules, *self.imported_by(plugins)])
        return digest(self._file(name).text for name in names)

    def closure(self, modules: Iterable[str]) -> set[str]:
        """These modules and those that they import, directly or not; of those that count."""
        seen: set[str] = set()
        waiting = [name for name in modules if name in self._counted]
        while waiting:
            name = waiting.pop()
            if name not in seen:
                seen.add(name)
                waiting += self._file(name).imported
        return seen

    def imported_by(self, plugins: Iterable[Path]) -> set[str]:
        """The modules that files outside the package import of it."""
        lines = [line for path in plugins if path.is_file() for line in imports(path.read_bytes())]
        names = {self._meant(line)[0] for line in lines}
        return {name for name in names if name is not None}

    @cached_property
    def _counted(self) -> frozenset[str]:
        def among(module: str, parts: tuple[str, ...]) -> bool:
            return any(module == part or module.startswith(f"{part}.") for part in parts)

        return frozenset(
            name
            for name in self.modules
            if among(name, self.deciding) and not among(name, self.but)
        )

    def _file(self, name: str) -> _File:
        if name not in self._files:
            content = self.modules[name].read_bytes()
            lines, imported = set(), set()
            for line in imports(content):
                module, inner = self._meant(line)
                if module in self._counted:
                    imported.add(module)
                    origin = syntax(self.modules[module].read_bytes())
                    lines.add(f"{line.bound}: {inner} of {origin}")
                else:
                    lines.add(_outside(line))
            text = "\n".join([*sorted(lines), syntax(content)])
            self._files[name] = _File(text, frozenset(imported))
        return self._files[name]

    def _meant(self, line: Imported) -> tuple[str | None, str | None]:
        """(the module of the package that an import loads, the name in it; None: all of it)."""
        if line.level or not line.module.startswith(f"{PACKAGE}"):
            return None, None
        module = line.module.removeprefix(PACKAGE).removeprefix(".")
        inner = f"{module}.{line.name}".removeprefix(".")
        if line.name is not None and inner in self.modules:
            return inner, None
        return (module, line.name) if module in self.modules else (None, None)


def _outside(line: Imported) -> str:
    """What is not hashed itself: by name, where it belongs to another package."""
    if line.module.partition(".")[0] == PACKAGE:
        return f"{line.bound}: {line.name} of {PACKAGE}"
    return f"{line.bound}: {line.name} of {'.' * line.level}{line.module}"


def digest(texts: Iterable[str]) -> str:
    """16 hex digits over texts, whose order does not count; "" of none."""
    ordered = sorted(texts)
    return hashlib.sha256("\0".join(ordered).encode()).hexdigest()[:16] if ordered else ""


def file_hash(path: Path) -> str:
    """16 hex digits over what a plug-in file does, and the files beside it that it imports; ""
    where it is gone."""
    root = path.resolve().parent
    return files_hash(with_neighbours(path), root)


def files_hash(files: Iterable[Path], root: Path) -> str:
    """The same of given files below `root`."""
    texts = []
    for path in files:
        content, lines = path.read_bytes(), set()
        for line in imports(content):
            near = [n.path for n in neighbours(line, path, root) if n.path.is_file()]
            origin = syntax(near[-1].read_bytes()) if near else ""
            lines.add(f"{line.bound}: {line.name} of {origin}" if near else _outside(line))
        texts.append("\n".join([*sorted(lines), syntax(content)]))
    return digest(texts)


@lru_cache
def package() -> Sources:
    """The files of this package."""
    modules: dict[str, Path] = {}
    for folder, prefix in ((BENCH, ""), *((BENCH / p, f"{p}.") for p in ("targets", "samplers"))):
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            name = prefix + ".".join(part for part in parts if part != "__init__")
            modules[name.removesuffix(".")] = path
    return Sources(modules)
