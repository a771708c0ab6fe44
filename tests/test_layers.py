"""Imports go one way: targets <- samplers <- bench."""

import ast
from pathlib import Path

import pytest

import tiltbench
import tiltbench.samplers
import tiltbench.targets

ROOTS = {
    name: Path(module.__file__).parent
    for name, module in {
        "targets": tiltbench.targets,
        "samplers": tiltbench.samplers,
        "bench": tiltbench,
    }.items()
}
LIBRARIES = {"torch", "jaxtyping", "numpy", "safetensors"}  # the last two read frozen arrays


def imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


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


def test_nothing_in_bench_shadows_a_sub_package():
    assert not [p for p in ROOTS["bench"].glob("*") if p.stem in ("targets", "samplers")]
