"""A finished run, loaded again: the same draws to the bit, others for other seeds, sentences."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import tiltbench
from tests.tools.small import small
from tiltbench.api import cell, load
from tiltbench.cli.main import main
from tiltbench.plan.errors import Refused
from tiltbench.records.imported import import_draws
from tiltbench.records.record import Status, read_outcome, read_record, write_record
from tiltbench.run.phases import run_cell
from tiltbench.targets.cost import Cost
from tiltbench.trained.chosen import chosen

TRAINED = [
    small("log_variance", average=0.9),  # what is kept is the average
    small("trajectory_balance"),  # log Z is learned
    small("pis", model="Guided[width=8]"),
    small("cmcd_lv"),
    small("log_variance", recipe="LearnedBase"),
    small("tilt_matching"),
    *("untrained", "guidance", "importance_resampling", "best_of_n"),
]


def run_of(folder, sampler, seed=0, target="gmm9", budget=400):
    one = cell(target, sampler, budget=budget, seed=seed, draws=20)
    return run_cell(one, folder / "runs")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "results" / "mine"


@pytest.mark.parametrize("sampler", TRAINED)
def test_the_recorded_draws_are_made_again(sampler, folder):
    record = run_of(folder, sampler)
    assert record.status.finished, record.reason
    loaded = load(f"mine/{record.id[:5]}")
    again, kept = loaded.as_recorded(), read_outcome(folder / "runs", record.id).draws
    assert torch.equal(again.x.double(), kept.x)
    assert loaded.calls == Cost(*record.cost["draw"])
    assert loaded.warning == ""
    assert (again.log_w is None) == (kept.log_w is None)
    if kept.log_w is not None:
        assert torch.equal(again.log_w, kept.log_w)
    assert repr(again.log_Z) == repr(kept.log_Z)  # with NaN for an error


def test_seeds_are_streams_of_their_own(folder):
    first, second = run_of(folder, TRAINED[0], 0), run_of(folder, TRAINED[0], 1)
    loaded, other = load(first.id), load(second.id)
    x = loaded.draw(20).x
    assert torch.equal(x, loaded.draw(20, seed=0).x)
    starts = [loaded.draw(20, 1).x, loaded.as_recorded().x, other.draw(20).x]
    assert all(not torch.equal(x, y) for y in starts)
    assert loaded.calls == Cost(values=80)


def test_another_installation_draws_the_same_to_the_bit(folder, tmp_path):
    """In a fresh process, from a copy of the package at another place."""
    record = run_of(folder, TRAINED[0])
    assert main(["draw", record.id, "--draws", "30", "--seed", "3", "--out", "here.npz"]) == 0
    site = tmp_path / "site"
    shutil.copytree(Path(tiltbench.__file__).parent, site / "tiltbench")
    command = [sys.executable, "-m", "tiltbench.cli", "draw", record.id, "--draws", "30"]
    done = subprocess.run(
        [*command, "--seed", "3", "--out", "there.npz"],
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    here, there = np.load("here.npz"), np.load("there.npz")
    assert set(here) == {"x", "log_w"} and set(there) == set(here)
    assert all(np.array_equal(here[key], there[key]) for key in here)


def test_what_is_drawn_is_metered_and_can_be_scored(folder, capsys):
    record = run_of(folder, small("pis", model="Guided[width=8]"))
    assert main(["draw", "mine", "--draws", "50"]) == 0
    output = capsys.readouterr().out
    # a guided control pays a value and a gradient a step, the weight a value
    assert "200 values and 150 gradients of the target were called" in output
    assert "50 draws" in output and f"{record.id}-draws.npz: x (50, 2), log_w (50,)" in output
    words = output.splitlines()[-1].removeprefix("to score them: tiltbench ").split()
    assert words[:4] == ["import", f"{record.id}-draws.npz", "--target", "gmm9"]


def test_fewer_are_said_where_the_run_holds_no_more(folder, capsys):
    record = run_of(folder, "best_of_n")
    assert main(["draw", record.id, "--draws", "1000"]) == 0
    assert "25 draws where 1,000 were asked for" in capsys.readouterr().out


def test_other_code_is_a_warning(folder, capsys):
    record = run_of(folder, "untrained")
    code = {**record.code, "syntax": "0" * 16, "commit": "abcdef0123456789"}
    write_record(folder / "runs", type(record)(**{**vars(record), "code": code}))
    assert main(["draw", record.id]) == 0
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1 and "made by other code than this" in errors
    assert "commit abcdef012 has that code" in errors
    with pytest.warns(UserWarning, match="other code"):
        load(record.id)


MISTAKES = {
    "no such run": (["draw", "mine/ffff"], "no run in results/mine has an id"),
    "no such folder": (["draw", "theirs/3f2a"], "there is no run theirs/3f2a; name one as"),
    "a sampler's name": (["draw", "log_variance"], "there is no run log_variance"),
    "a folder of two": (["draw", "mine"], "results/mine holds 2 runs; name one of them: mine/"),
    "no digits at all": (["draw", ""], "there is no run ''; name one"),
    "another ending": (["draw", "ID", "--out", "x.csv"], "written as .npz, not as x.csv"),
    "no folder for it": (["draw", "ID", "--out", "no/x.npz"], "there is no folder no"),
    "no draws": (["draw", "ID", "--draws", "0"], "--draws 0 is not a whole number above 0"),
    "a chain": (["draw", "CHAIN"], "mala has nothing trained to draw from"),
    "no GPU": (["draw", "ID", "--device", "cuda"], "no CUDA device here; use --device cpu"),
    "a file alone": (["draw", "ab.state.safetensors"], "has no record ab.json beside it"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence(mistake, folder, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    ids = {"ID": run_of(folder, "untrained").id, "CHAIN": run_of(folder, "mala").id}
    words, said = MISTAKES[mistake]
    assert main([ids.get(word, word) for word in words]) == 2
    _one_sentence(capsys.readouterr(), said)


def test_what_was_trained_must_be_there_and_fit(folder, capsys):
    record = run_of(folder, TRAINED[0])
    state = folder / "runs" / f"{record.id}.state.safetensors"
    whole = state.read_bytes()
    other = run_of(folder, small("log_variance", model="Mlp[width=16]"))
    state.write_bytes((folder / "runs" / f"{other.id}.state.safetensors").read_bytes())
    _refused(record.id, capsys, "does not fit diffusion as it is here")
    state.write_bytes(whole[:-100])
    _refused(record.id, capsys, "does not fit diffusion as it is here")
    state.unlink()
    _refused(record.id, capsys, "is not there, which holds what was trained; the same")


def test_what_ended_badly_or_was_made_elsewhere_is_refused(folder, capsys):
    record = run_of(folder, "untrained")
    ended = {**vars(record), "status": Status.DIVERGED, "reason": "log rho is nan"}
    write_record(folder / "runs", type(record)(**ended))
    _refused(record.id, capsys, "ended as diverged (log rho is nan)")
    np.savez("draws.npz", x=np.zeros((5, 2)))
    import_draws(Path("draws.npz"), "gmm9", Cost(9, 9), 9, "nuts", 0, Path("results/nuts"))
    _refused("nuts", capsys, "were imported: draw more where they were made")


def test_a_plug_in_that_is_gone_or_another_version(folder, capsys, tmp_path):
    text = (
        "from dataclasses import dataclass\nfrom tiltbench.targets.target import Density, Truth\n"
        "@dataclass(frozen=True)\nclass Bell(Density):\n    name = 'bell'\n    dim = 2\n"
        "    version = 1\n    def log_rho(self, x):\n        return -x.square().sum(-1)\n"
        "    def truth(self):\n        return Truth('unknown')\n"
    )
    file = tmp_path / "bell.py"
    file.write_text(text)
    record = run_of(folder, "untrained", target="bell.py")
    assert len(load(record.id).draw(5).x) == 5
    file.unlink()
    _refused(record.id, capsys, "cannot be built here")
    file.write_text(text.replace("version = 1", "version = 2"))
    _refused(record.id, capsys, "is version 2 here and was version 1")


def test_published_sets_keep_no_state():
    root = Path(__file__).parents[2]
    with pytest.raises(Refused, match="published, which keeps scores and not what was trained"):
        chosen("quick", root / "results")


def test_a_file_of_the_run_names_it(folder):
    record = run_of(folder, "untrained")
    for name in (f"{record.id}.json", f"{record.id}.npz"):
        assert chosen(str(folder / "runs" / name), Path("results")).record == record
    assert read_record(folder / "runs" / f"{record.id}.json") == record


def _refused(run, capsys, said):
    assert main(["draw", run]) == 2
    _one_sentence(capsys.readouterr(), said)


def _one_sentence(printed, said):
    assert printed.out == ""
    assert printed.err.startswith("tiltbench: ") and printed.err.count("\n") == 1
    assert said in printed.err and "Traceback" not in printed.err, printed.err
