"""Imports go one way: targets <- samplers <- bench; and what is said of files is true of them."""

import ast
import graphlib
from pathlib import Path

import pytest

import tiltbench
import tiltbench.samplers
import tiltbench.targets
from tests.tools.mutants import MUTANTS, ROOT

ROOTS = {
    name: Path(module.__file__).parent
    for name, module in {
        "targets": tiltbench.targets,
        "samplers": tiltbench.samplers,
        "bench": tiltbench,
    }.items()
}
LINKS = {"src/tiltbench": "bench", "bench/targets": "targets", "bench/samplers": "samplers"}
LIBRARIES = {"torch", "jaxtyping", "numpy", "safetensors"}  # the last two read frozen arrays


def imported(path, typing=True):
    """The modules and names that a file imports, those for type checkers only where `typing`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if not typing:
        tree = Untyped().visit(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


class Untyped(ast.NodeTransformer):
    def visit_If(self, node):
        return None if getattr(node.test, "id", "") == "TYPE_CHECKING" else node


@pytest.mark.parametrize(
    "folder, allowed", [("targets", ["targets"]), ("samplers", ["targets", "samplers"])]
)
def test_imports_go_one_way(folder, allowed):
    for path in ROOTS[folder].rglob("*.py"):
        for name in imported(path):
            if name.startswith("tiltbench"):
                good = tuple(f"tiltbench.{a}" for a in allowed)
                assert name == "tiltbench" or name.startswith(good), f"{path} imports {name}"


@pytest.mark.parametrize("folder", ROOTS)
def test_no_top_level_import_of_a_folder(folder):
    for path in ROOTS[folder].rglob("*.py"):
        for name in imported(path):
            assert name.split(".")[0] not in ROOTS, f"{path} imports {name}"


def test_targets_need_torch_only():
    import sys

    makers = set((ROOTS["targets"] / "data").glob("make_*.py"))  # run by hand, never imported
    for path in set(ROOTS["targets"].rglob("*.py")) - makers:
        tops = {name.split(".")[0] for name in imported(path)}
        assert tops - LIBRARIES - {"tiltbench"} <= set(sys.stdlib_module_names), path


def test_the_package_is_made_of_links():
    """One folder to import, which editors and type checkers follow: see pyproject.toml."""
    root = ROOTS["bench"].resolve().parent
    for link, folder in LINKS.items():
        assert (root / link).is_symlink() and (root / link).resolve() == root / folder


def test_no_import_circles():
    """Neither at import time nor later: imports inside functions count."""
    modules = {}
    for folder, prefix in (("bench", ""), ("targets", ".targets"), ("samplers", ".samplers")):
        root = ROOTS[folder].resolve()
        for path in root.rglob("*.py"):
            parts = path.relative_to(root).with_suffix("").parts
            name = ".".join([f"tiltbench{prefix}", *(p for p in parts if p != "__init__")])
            modules[name] = path
    order = graphlib.TopologicalSorter()
    for name, path in modules.items():
        if not path.is_relative_to(ROOTS["targets"] / "data"):
            order.add(name, *(set(imported(path, typing=False)) & set(modules) - {name}))
    order.prepare()  # raises CycleError, which names the modules


def test_a_folder_is_seen_at_a_glance():
    """About a dozen modules each, but for plug-ins, commands and the processes of bases."""
    wide = {"cli", "metrics", "densities", "losses", "networks", "bases"}
    for root in ROOTS.values():
        for folder in {path.parent for path in root.resolve().rglob("*.py")}:
            assert folder.name in wide or len(list(folder.glob("[!_]*.py"))) <= 14, folder


def test_every_planted_fault_fits_the_code():
    """`make mutants` would stop at one that does not, hours into its run."""
    for fault in MUTANTS:
        text = (ROOT / fault.file).read_text(encoding="utf-8")
        assert text.count(fault.old) == 1, fault.what
        assert fault.new != fault.old, fault.what
        for name in fault.tests.split():
            assert (ROOT / "tests" / name.split("::")[0]).is_file(), fault.what
