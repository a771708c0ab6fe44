"""What the README says about extending the suite runs as it stands there."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from tiltbench.cli import main
from tiltbench.provenance import code_of
from tiltbench.report.frame import collect
from tiltbench.run import run_cell

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "README.md").read_text(encoding="utf-8")
(SECTION,) = [part for part in PAGE.split("\n## ") if part.startswith("From outside")]


@pytest.fixture(autouse=True)
def copy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")


def here(engine, cells, runs, code, watch):
    """Without processes, which take seconds to start."""
    return ((cell, run_cell(cell, runs, code=code_of(cell, code))) for cell in cells)


def test_the_commands_run(monkeypatch, capsys):
    monkeypatch.setattr("tiltbench.local.Local.run", here)
    (block,) = re.findall(r"```\n(tiltbench .*?)```", SECTION, re.S)
    np.savez("draws.npz", x=np.random.default_rng(0).normal(size=(500, 2)) * 5)
    for line in block.splitlines():
        word, *arguments = shlex.split(line)
        assert word == "tiltbench"
        assert main(arguments) == 0, capsys.readouterr().err
        if arguments[0] == "run":
            scores = collect(Path("results/adhoc")).scores
            assert "worst_mean" not in set(scores["metric"])  # the plug-in is gone again
            assert "worst_mean" in Path("results/adhoc/table.md").read_text()
    assert "nuts (calls self-reported)" in Path("scores.csv").read_text()


def test_the_python_runs(capsys):
    (block,) = re.findall(r"```python\n(.*?)```", SECTION, re.S)
    exec(block, {})
    said = capsys.readouterr().out
    assert "energy_distance" in said and "examples/banana.py" in said


def test_the_entry_point_is_one_that_is_read():
    from tiltbench.targets.registry import TARGETS

    (block,) = re.findall(r"```toml\n(.*?)```", SECTION, re.S)
    assert f'[project.entry-points."{TARGETS.group}"]' in block
