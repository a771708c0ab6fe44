"""Plug-in files: their names taken apart, and what they import from beside them."""

import sys
from pathlib import Path

import pytest

from tiltbench.targets.files import load_file, split, with_neighbours


@pytest.mark.parametrize(
    "text, path, name",
    [
        ("t.py", "t.py", ""),
        ("t.py:bell", "t.py", "bell"),
        ("proj.pyenv/t.py:bell", "proj.pyenv/t.py", "bell"),
        ("results.pytorch/evil.py", "results.pytorch/evil.py", ""),
        ("a.py:b/t.py:bell", "a.py:b/t.py", "bell"),
        ("a.py/t.py:x", "a.py/t.py", "x"),
        ("my targets/it's [1],x=2.py:bell", "my targets/it's [1],x=2.py", "bell"),
        ("/abs/.pyenv/t.v2.py:my-bell 2", "/abs/.pyenv/t.v2.py", "my-bell 2"),
    ],
)
def test_a_path_is_parsed_as_a_path(text, path, name):
    assert split(text) == (Path(path), name)


@pytest.mark.parametrize(
    "text", ["gmm9", "t.pyx", "dir.py/gmm9", ".pyenv", "t.py:", ".py", "d/.py"]
)
def test_what_is_no_file_is_a_name(text):
    assert split(text) is None


def plug_in(folder, **files):
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return folder / "mine.py"


def test_neighbours_of_one_name_are_two_modules(tmp_path):
    """In two folders, at import time and later; nothing is left in sys.path or under their name."""
    late = "from energies import half\n\ndef later():\n    import tools\n    return tools.n\n"
    one = plug_in(tmp_path / "a b", mine=late, energies="half = 1 / 2\n", tools="n = 1\n")
    two = plug_in(tmp_path / "c", mine=late, energies="half = 1 / 3\n", tools="n = 2\n")
    path, known = list(sys.path), set(sys.modules)
    first, second = load_file(one), load_file(two)
    assert (first.half, second.half) == (1 / 2, 1 / 3)
    assert (second.later(), first.later()) == (2, 1)
    assert sys.path == path
    assert all(name.startswith("tiltbench_plugin_") for name in set(sys.modules) - known)
    assert not list(tmp_path.rglob("__pycache__"))


def test_packages_and_circles_beside_a_plug_in(tmp_path):
    mine = plug_in(
        tmp_path / "p",
        mine="import math, lib.sub as s, box.deep\nfrom lib import sub, up\nfrom lib.sub import *\n"
        "value = (s.x, sub.x, up, box.deep.y, z, math.pi)\n",
        lib__sub="",
        box__deep="import other\ny = 7\n",  # a folder without __init__.py
        other="import mine\n",  # a circle
    )
    (mine.parent / "lib" / "__init__.py").write_text(
        "from . import sub\nfrom .sub import x as up\n"
    )
    (mine.parent / "lib" / "sub.py").write_text("from other import __name__ as n\nx = 3\nz = 4\n")
    names = {path.name for path in with_neighbours(mine)}
    assert names == {"mine.py", "__init__.py", "sub.py", "deep.py", "other.py"}
    assert load_file(mine).value[:5] == (3, 3, 3, 7, 4)


def test_an_edit_of_a_neighbour_is_loaded(tmp_path):
    mine = plug_in(tmp_path / "p", mine="from near import x\n", near="x = 1\n")
    assert load_file(mine).x == 1 and load_file(mine) is load_file(mine)
    (mine.parent / "near.py").write_text("x = 2\n")  # of the same length, in the same second
    assert load_file(mine).x == 2


def test_installed_things_stay_installed(tmp_path):
    """A clone of this package beside a plug-in does not stand in for it, nor a folder for torch."""
    mine = plug_in(tmp_path / "p", mine="import tiltbench, torch\n", tiltbench="wrong = 1\n")
    (mine.parent / "torch").mkdir()
    module = load_file(mine)
    assert not hasattr(module.tiltbench, "wrong") and module.torch is sys.modules["torch"]
