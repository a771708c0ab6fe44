"""Paths with any sign, wherever a plug-in may be named; what is written reads back."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiltbench.api import cells
from tiltbench.check.findings import Finding
from tiltbench.cli.arguments import setting, split
from tiltbench.cli.main import main
from tiltbench.plan.errors import BadSpec
from tiltbench.plan.plugins import plugged, plugin_hash
from tiltbench.plan.spec import build_target, label, shorten, spec
from tiltbench.plan.suite import Choice, Suite
from tiltbench.plan.text import parse, quoted, unquoted, written_name
from tiltbench.plan.toml import load_suite
from tiltbench.records.imported import import_draws
from tiltbench.targets.cost import Cost
from tiltbench.targets.registry import TARGETS

FLAT = '''
from dataclasses import dataclass
from tiltbench.targets.target import Density, Truth

@dataclass(frozen=True)
class Flat(Density):
    """Nothing is known of it."""
    name = "flat"
    dim: int = 2
    scale: float = 1.0

    def log_rho(self, x):
        return -x.square().sum(-1)

    def truth(self):
        return Truth("unknown")
'''
FOLDERS = ["my targets", "a,b", "run[1]", "it's", "x=1", 'say "x"', 'it\'s "x"', "[a,b", "c]"]
FOLDERS += [".pyenv", "proj.python", "a.py", "a.py:b", "x.py[1]", "é λ", "a.py,b.py"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in FOLDERS:
        Path(folder).mkdir()
        (Path(folder) / "t.py").write_text(FLAT)


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("name", ["", ":flat"])
def test_a_spec_is_read_plain_and_quoted(folder, name):
    path = f"{folder}/t.py{name}"
    for text in (path, quoted(path), quoted(f"{folder}/t.py") + name, written_name(path)):
        assert parse(text) == {"name": path, "params": {}}
        assert parse(f"{text}[dim=3,note='[x],y']")["params"] == {"dim": 3, "note": "[x],y"}
    assert unquoted(quoted(path)) == path


@pytest.mark.parametrize("folder", FOLDERS)
def test_lists_and_settings_hold_any_path(here, folder):
    path = f"{folder}/t.py"
    for one in (path, quoted(path), f"{path}:flat", quoted(f"{path}:flat")):
        assert split(f"{one}[dim=3,scale=2.0], gmm9,{one}") == [
            f"{one}[dim=3,scale=2.0]",
            "gmm9",
            one,
        ]
        assert setting(f"{quoted(path)}.dim=2,3") == (quoted(path), "dim", (2, 3))
    if folder != "x.py[1]":  # to be quoted there, as it reads as an owner with brackets
        assert setting(f"{path}:flat.dim=2,3") == (f"{path}:flat", "dim", (2, 3))


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_way_to_name_a_plug_in(here, folder, capsys):
    path = f"{folder}/t.py"
    (cell,) = cells([path], ["smc"], seeds=[0])
    assert cell.target["name"] == f"{path}:flat" and plugin_hash(f"{path}:flat")
    target = build_target(cell.target)
    assert spec(build_target(parse(label(type(target)(3))))) == spec(type(target)(3))
    with plugged([path]):
        assert TARGETS.load("flat")() == target
    words = ["run", "--targets", f"gmm9,{path}", "--samplers", "smc", "--seeds", "0", "--dry-run"]
    assert main([*words, "--set", f"{quoted(path)}.dim=2,3"]) == 0
    assert capsys.readouterr().out.count(" · smc · seed 0") == 3
    words = json.dumps(path, ensure_ascii=False)  # a basic string of TOML too
    Path("s.toml").write_text(
        f"[suite]\ncalls = 9\ndraws = 9\n[[target]]\nname = {words}\n[[sampler]]\nname = 'smc'\n"
        f"[[override]]\ntarget = {words}\nparams = {{ islands = 2 }}\n"
    )
    suite = load_suite("s.toml")
    assert suite.cells("cpu")[0].target == cell.target
    assert suite.cells("cpu")[0].sampler["params"]["islands"] == 2
    for name in (path, suite.targets[0].label):  # a label can be typed again
        assert suite.only(split(name)).targets == suite.targets


def test_a_grid_of_an_odd_path_reads_back(here):
    suite = Suite("s", "", 9, 9, (0,), (Choice.of("run[1]/t.py:flat[dim=3]"),), (Choice.of("smc"),))
    grid = suite.spanned([("run[1]/t.py:flat", "scale", [1.5, 2.5])])
    labels = [choice.label for choice in grid.targets]
    assert labels == ['"run[1]/t.py:flat"[dim=3,scale=1.5]', '"run[1]/t.py:flat"[dim=3,scale=2.5]']
    assert [parse(text) for text in labels] == [choice.spec for choice in grid.targets]


def test_check_import_and_new_take_odd_paths(here, capsys, monkeypatch):
    found = Finding(True, "looked at", "")  # what it finds is tested elsewhere
    monkeypatch.setattr("tiltbench.check.target.check", lambda made: [found])
    assert main(["new", "target", "mine", "--out", "my targets"]) == 0
    assert "next: tiltbench check 'my targets/mine.py'" in capsys.readouterr().out
    assert main(["check", "my targets/mine.py", "a,b/gone.py"]) == 2
    out, error = capsys.readouterr()
    assert "ok  my targets/mine.py: looked at" in out and "there is no file a,b/gone.py" in error
    np.save("x.npy", np.random.default_rng(0).normal(size=(20, 2)))
    record = import_draws(
        Path("x.npy"), "a,b/t.py[dim=2]", Cost(9, 9), 9, "mine", 0, Path("results")
    )
    assert record.spec["target"]["name"] == "a,b/t.py:flat"
    assert record.labels["target"] == '"a,b/t.py"[dim=2]'
    assert record.code["files"] == {"a,b/t.py:flat": "../a,b/t.py"}


@pytest.mark.parametrize("text", ["my targets/t.py[dim=", "[a,b/t.py[dim=1", "a,b/t.py:flat x"])
def test_a_refusal_says_how_to_quote(text):
    with pytest.raises(BadSpec, match=r'goes in quotes: "my, dir/t.py:name"\[key=value\]'):
        parse(text)


signs = st.sampled_from([*"aZ1_-. ,=[]'\"éλ:/\n", ".py", ".py:x"])


@given(st.lists(signs, max_size=8).map("".join))
def test_any_name_and_text_is_read_back(text):
    if text:
        assert parse(written_name(text)) == {"name": text, "params": {}}
        assert parse(f"{written_name(text)}[a=1]") == {"name": text, "params": {"a": 1}}
    full = {"name": "x", "params": {"note": text}}
    assert parse(shorten(full, {"name": "", "params": {}})) == full
