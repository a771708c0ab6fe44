"""Plug-in files: how they are named, what they import from beside them, how they are loaded.

`split` is the one place where `path/to/file.py:name` is taken apart.  A plug-in may import the
modules and packages of its own folder, as `python file.py` would let it: they are loaded under
private names, so that `sys.path` stays as it is, and neighbours of one name in two folders are two
modules.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import importlib.util
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, NamedTuple

PREFIX = "tiltbench_plugin_"  # of the names of modules that were loaded from files
_REFERENCE = re.compile(r"(?P<path>.*\.py)(?::(?P<name>[^/\\]+))?", re.DOTALL)


class Reference(NamedTuple):
    """A plug-in file, and which of the things that it names is meant; "" where it names one."""

    path: Path
    name: str


def split(text: str) -> Reference | None:
    """`path/to/file.py` or `path/to/file.py:name` taken apart; None for a registered name.

    Only the last component of the path decides: folders may be called anything."""
    match = _REFERENCE.fullmatch(text)
    if match is None or text.endswith("/.py") or text == ".py":
        return None
    return Reference(Path(match["path"]), match["name"] or "")


class Imported(NamedTuple):
    """One line of an import statement: `import module` (name None) or `from module import name`,
    bound as `bound`; `level` dots before the module."""

    module: str
    name: str | None
    bound: str
    level: int


@lru_cache(maxsize=4096)
def imports(content: bytes) -> tuple[Imported, ...]:
    """What a file of this content imports, in functions too, but for what only a type checker
    reads; nothing where it is no Python."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):  # loading it says so
        return ()
    imported: list[Imported] = []
    for node in _runtime(tree):
        if isinstance(node, ast.Import):
            imported += [Imported(a.name, None, a.asname or a.name, 0) for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            for a in node.names:
                imported.append(Imported(node.module or "", a.name, a.asname or a.name, node.level))
    return tuple(imported)


def _runtime(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes below `tree`, without the bodies of `if TYPE_CHECKING:`."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if typing_only(node):
            waiting += node.orelse  # type: ignore[attr-defined]
        else:
            waiting += ast.iter_child_nodes(node)


def typing_only(node: ast.AST) -> bool:
    if not isinstance(node, ast.If):
        return False
    test = node.test
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", "")
    return name == "TYPE_CHECKING"


class Neighbour(NamedTuple):
    """A module beside a plug-in: `path` is its file, or the folder of a package that has none."""

    path: Path

    @property
    def folder(self) -> Path | None:
        """Where its submodules lie; None where it is no package."""
        if self.path.is_dir():
            return self.path
        return self.path.parent if self.path.name == "__init__.py" else None


def neighbours(wanted: Imported, file: Path, root: Path) -> list[Neighbour]:
    """The modules beside a plug-in that one import of `file` loads, packages before what they hold;
    none where the module is installed, or of this package.

    `root` is the plug-in's folder.  As for `python file.py` it comes before what is installed."""
    if wanted.level:
        start = file.parent
        for _ in range(wanted.level - 1):
            start = start.parent
        if not start.is_relative_to(root):
            return []
    else:
        start = root
    modules: list[Neighbour] = []
    folder: Path | None = start
    for part in filter(None, wanted.module.split(".")):
        near = _within(folder, part, top=not modules and not wanted.level) if folder else None
        if near is None:
            return modules
        modules.append(near)
        folder = near.folder
    if wanted.name and folder is not None and (modules or wanted.level):
        inside = _within(folder, wanted.name, top=False)
        modules += [inside] if inside else []
    return modules


def _within(folder: Path, part: str, top: bool) -> Neighbour | None:
    if top and (part == "tiltbench" or part in sys.builtin_module_names):
        return None
    for path in (folder / part / "__init__.py", folder / f"{part}.py"):
        if path.is_file():
            return Neighbour(path)
    # a folder without __init__.py: what is installed comes first, as for Python
    if (folder / part).is_dir() and not (top and _installed(part)):
        return Neighbour(folder / part)
    return None


def _installed(name: str) -> bool:
    try:
        return name in sys.modules or importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def with_neighbours(file: Path, root: Path | None = None) -> list[Path]:
    """`file` and the files of its folder that it imports, directly or not, sorted."""
    file = file.resolve()
    root = root or file.parent
    seen: set[Path] = set()
    waiting = [file]
    while waiting:
        path = waiting.pop()
        if path in seen or not path.is_file():
            continue
        seen.add(path)
        lines = imports(path.read_bytes())
        waiting += [near.path for line in lines for near in neighbours(line, path, root)]
    return sorted(seen)


def load_file(file: Path, root: Path | None = None) -> ModuleType:
    """The module of a plug-in file, loaded once per place and content, neighbours included.

    Lets pass whatever its import raises."""
    file = file.resolve()
    root = root or file.parent
    files = with_neighbours(file, root)
    content = b"".join(f"{path} ".encode() + path.read_bytes() for path in files)
    digest = hashlib.sha256(f"{file} ".encode() + content).hexdigest()
    name = f"{PREFIX}{digest[:16]}_{file.stem}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file, loader=_Fresh(name, str(file)))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    module.__dict__["__builtins__"] = _builtins(file, root)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


class _Fresh(SourceFileLoader):
    """Reads the text, never stored bytecode, which would hide an edit of the same length within a
    second."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def _builtins(file: Path, root: Path) -> dict[str, Any]:
    """Python's, with an `import` that looks beside the plug-in first, now and later."""

    def from_here(
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> Any:
        wanted = Imported(name, None, name, level)
        modules_here = neighbours(wanted, file, root)
        if len(modules_here) < len([part for part in name.split(".") if part]):
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        modules = _joined(modules_here, root, name.split(".") if name else [])
        if not fromlist:
            return modules[0]
        leaf = modules[-1] if modules else _package(file, level, root)
        names = list(fromlist)
        if "*" in names:
            names += getattr(leaf, "__all__", ())
        for inner in names:
            if not hasattr(leaf, inner):
                more = neighbours(Imported(name, inner, inner, level), file, root)
                if len(more) > len(modules_here):
                    setattr(leaf, inner, _loaded(more[-1], root))
        return leaf

    return {**vars(builtins), "__import__": from_here}


def _package(file: Path, level: int, root: Path) -> ModuleType:
    """What `from . import x` reads x from."""
    folder = file.parents[level - 1]
    inside = folder / "__init__.py"
    return _loaded(Neighbour(inside if inside.is_file() else folder), root)


def _joined(neighbours: list[Neighbour], root: Path, parts: list[str]) -> list[ModuleType]:
    """The modules of a dotted name, each an attribute of the one before."""
    modules: list[ModuleType] = []
    for near, part in zip(neighbours, parts, strict=True):
        module = _loaded(near, root)
        if modules:
            setattr(modules[-1], part, module)
        modules.append(module)
    return modules


def _loaded(near: Neighbour, root: Path) -> ModuleType:
    if near.path.is_file():
        return load_file(near.path, root)
    return ModuleType(near.path.name)  # a folder of modules: nothing to run
