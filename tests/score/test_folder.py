"""Scores outlive the places of plug-ins: found again, or kept and said."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from tiltbench.api import cell, offer
from tiltbench.cli.main import main
from tiltbench.plan.plugins import plugged
from tiltbench.plan.spec import build_target
from tiltbench.records.files import write_json
from tiltbench.records.located import located
from tiltbench.records.record import read_record
from tiltbench.records.store import read_scores, records
from tiltbench.run.phases import run_cell
from tiltbench.score.folder import Scored, score, score_runs
from tiltbench.targets.registry import TARGETS

BELL = '''
import math
from dataclasses import dataclass
import torch
from shape import half_square
from tiltbench.targets.target import Density, Truth

@dataclass(frozen=True)
class Bell(Density):
    """N(0, I) without its constant."""
    name = "bell"
    dim = 2

    def log_rho(self, x):
        return half_square(x)

    def truth(self):
        def sample(n, g):
            return torch.randn(n, 2, generator=g, dtype=torch.float64)
        return Truth("closed form", log_Z=math.log(2 * math.pi), sample=sample)
'''
METRIC = '''
from tiltbench.metric import Metric
from tiltbench.samplers.weights import Estimate
first = Metric("first", frozenset(), "lower", "1", "0",
               lambda target, truth, outcome, g: Estimate(float(outcome.draws.x[0, 0]), 0.1, 9))
"""the first coordinate"""
'''


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A scored run of a plug-in in a folder with a space, named from there; its results folder."""
    home = tmp_path / "my plug-ins"
    home.mkdir()
    monkeypatch.chdir(home)
    (home / "t.py").write_text(BELL)
    (home / "shape.py").write_text("def half_square(x):\n    return -x.square().sum(-1) / 2\n")
    run_cell(cell("t.py", "smc", budget=300, draws=30), home / "res" / "runs")
    assert score(home / "res", jobs=1) == 1
    return home / "res"


def scores_of(folder):
    (path,) = (p for p in (folder / "runs").glob("*.json") if p.name.count(".") == 1)
    return read_scores(folder / "runs", path.stem)


def record_of(folder):
    (path,) = (p for p in (folder / "runs").glob("*.json") if p.name.count(".") == 1)
    return path, read_record(path)


def test_a_plug_in_is_found_from_anywhere(made, tmp_path, monkeypatch):
    before = scores_of(made)
    assert before["scores"]["w2"]["value"] is not None
    elsewhere = tmp_path / "b"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    # another file of that name lies there: the recorded content wins
    Path("t.py").write_text(BELL.replace("dim = 2", "dim = 3"))
    assert score_runs(made, jobs=1) == Scored(0, 0, 0, ())
    assert score_runs(made, force=True, jobs=1) == Scored(1, 0, 0, ())
    assert scores_of(made)["scores"] == before["scores"]
    # both moved together
    shutil.move(made.parent, tmp_path / "moved")
    after = tmp_path / "moved" / "res"
    assert score_runs(after, force=True, jobs=1).done == 1
    assert scores_of(after)["scores"] == before["scores"]


def gone(made):
    (made.parent / "t.py").unlink()


def renamed(made):
    (made.parent / "t.py").write_text(BELL.replace('"bell"', '"gong"'))


def broken(made):
    (made.parent / "shape.py").unlink()


def other_shape(made):
    (made.parent / "t.py").write_text(BELL.replace("dim = 2", "dim = 3"))


@pytest.mark.parametrize(
    "harm, said",
    [
        (gone, "there is no file t.py"),
        (renamed, "t.py holds gong; choose one"),
        (broken, "No module named 'shape'"),
        (other_shape, "has 3 dimensions here, and the draws of the run 2"),
    ],
)
def test_good_scores_stay_where_the_target_cannot_be_built(made, harm, said, capsys):
    before = scores_of(made)
    harm(made)
    capsys.readouterr()
    for words in (["score", "res"], ["score", "res", "--force"]):
        assert main(words) == 1
        out, error = capsys.readouterr()
        assert "1 runs keep the scores they had" in error and said in error
        assert error.count("\n") == 1 and "every run is scored" not in out
        assert scores_of(made) == before


def test_without_earlier_scores_there_are_reasons_and_it_is_tried_again(made, capsys):
    path, record = record_of(made)
    (made / "runs" / f"{record.id}.scores.json").unlink()
    text = (made.parent / "t.py").read_text()
    gone(made)
    assert main(["score", "res"]) == 1
    assert "1 runs have no scores, as" in capsys.readouterr().err
    assert all(found["value"] is None for found in scores_of(made)["scores"].values())
    (made.parent / "t.py").write_text(text)
    assert main(["score", "res"]) == 0 and scores_of(made)["scores"]["w2"]["value"] is not None


def test_a_moved_file_is_lent(made, tmp_path):
    before = scores_of(made)
    for name in ("t.py", "shape.py"):
        shutil.move(made.parent / name, tmp_path / f"{name}")
    (tmp_path / "t.py").rename(tmp_path / "renamed.py")
    assert main(["score", "res", "--force", "--plugin", str(tmp_path / "renamed.py")]) == 0
    assert scores_of(made)["scores"] == before["scores"]


def test_a_class_of_an_earlier_session_keeps_its_scores(made, capsys):
    target = type(build_target({"name": "t.py", "params": {}}))
    offer(type("Bell2", (target,), {"name": "bell2"}))
    try:
        run_cell(cell("bell2", "smc", budget=300, draws=30), made.parent / "own" / "runs")
        assert score(made.parent / "own", jobs=1) == 1
    finally:
        TARGETS.remove(TARGETS.entries["bell2"])
    before = scores_of(made.parent / "own")
    assert main(["score", "own"]) == 1 and "no target is called 'bell2'" in capsys.readouterr().err
    assert scores_of(made.parent / "own") == before


def test_scores_of_a_metric_that_nobody_lends_stay(made):
    Path("first.py").write_text(METRIC)
    with plugged(["first.py"]):
        assert score(made, jobs=1) == 1
    lent = scores_of(made)["scores"]["first"]
    assert score(made, jobs=1) == 1 and scores_of(made)["scores"]["first"] == lent


def test_an_edited_neighbour_is_scored_again(made):
    (made.parent / "shape.py").write_text(
        "def half_square(x):\n    return -x.square().sum(-1) / 8\n"
    )
    assert score_runs(made, jobs=1) == Scored(1, 0, 0, ())
    (made.parent / "shape.py").write_text(
        "def half_square(x):\n    # wider\n    return -x.square().sum(-1) / 8\n"
    )
    assert score_runs(made, jobs=1) == Scored(0, 0, 0, ())


@pytest.mark.parametrize("folder", ["res", "results.pytorch"])
def test_a_hint_into_the_results_is_not_followed(made, tmp_path, folder, monkeypatch):
    """Code that came with results is never imported, whatever their folder is called."""
    path, record = record_of(made)
    code = {**record.code, "files": {"t.py:bell": "evil.py"}}
    write_json(path, asdict(replace(record, code=code)))
    theirs = made.rename(tmp_path / folder)
    (theirs / "evil.py").write_text("from pathlib import Path\nPath('ran').touch()\n" + BELL)
    gone(made)
    monkeypatch.chdir(tmp_path)
    assert main(["score", folder]) == 1 and not Path("ran").exists()
    assert located(record_of(theirs)[1], theirs / "runs")["name"] == "t.py:bell"


def test_scores_that_fail_this_time_stay(tmp_path, monkeypatch, capsys):
    """A truth that reads a file by a path that holds in one folder only, as far as can be told."""
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "a" / "t.py").write_text(
        "import math, torch\nfrom dataclasses import dataclass\nfrom pathlib import Path\n"
        "from tiltbench.targets.target import Density, Truth\n"
        "def sample(n, g):\n"
        "    assert Path('here').exists()\n"
        "    return torch.randn(n, 2, generator=g, dtype=torch.float64)\n"
        "@dataclass(frozen=True)\nclass Bell(Density):\n"
        "    name = 'bell'\n    dim = 2\n"
        "    def log_rho(self, x): return -x.square().sum(-1) / 2\n"
        "    def truth(self): return Truth('exact', log_Z=math.log(2 * math.pi), sample=sample)\n"
    )
    (tmp_path / "a" / "here").touch()
    monkeypatch.chdir(tmp_path / "a")
    size = ["--budget", "400", "--draws", "60", "--seeds", "1"]
    assert (
        main(["run", "--targets", "t.py", "--samplers", "mala[chains=10]", *size, "--out", "r"])
        == 0
    )
    (made,) = [r for r in records(Path("r/runs")) if r.labels["sampler"].startswith("mala")]
    path = Path(f"r/runs/{made.id}.scores.json").resolve()
    before = json.loads(path.read_text())["scores"]
    monkeypatch.chdir(tmp_path / "b")
    capsys.readouterr()
    assert main(["score", "../a/r", "--force"]) == 1
    errors = capsys.readouterr().err
    assert "could not be made again and stay as they were" in errors and "AssertionError" in errors
    after = json.loads(path.read_text())
    assert after["scores"]["energy_distance"] == before["energy_distance"]
    assert after["scores"]["energy_distance"]["value"] is not None
    monkeypatch.chdir(tmp_path / "a")
    assert main(["score", "r"]) == 0  # due again, and good again
    assert "stayed" not in json.loads(path.read_text())
