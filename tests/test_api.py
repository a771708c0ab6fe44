"""The Python API: cells of names and objects, DataFrames out, nothing run twice; and its files."""

import re
import sys
import types
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from tiltbench import api
from tiltbench.api import cell, cells, inference_data, run, score
from tiltbench.cli.main import main
from tiltbench.engine.base import Event
from tiltbench.engine.local import Local
from tiltbench.engine.progress import Forecast, Notebook, display
from tiltbench.plan.errors import BadSpec
from tiltbench.plan.spec import build_target
from tiltbench.records.imported import REPORTED, import_draws
from tiltbench.records.record import Record, Status, read_outcome
from tiltbench.records.store import records
from tiltbench.report.frame import COLUMNS, collect
from tiltbench.samplers.classical.smc import Smc
from tiltbench.samplers.registry import SAMPLERS
from tiltbench.targets.cost import Cost
from tiltbench.targets.densities.gaussian import Gaussian
from tiltbench.targets.registry import TARGETS
from tiltbench.targets.target import Density, Truth


@dataclass(frozen=True)
class Hill(Density):
    """A class of this session."""

    name = "hill"
    dim: int = 2
    width: float = 1.0

    def log_rho(self, x):
        return -(x / self.width).square().sum(-1) / 2

    def truth(self):
        return Truth("closed form", sample=lambda n, g: self.width * torch.randn(n, 2, generator=g))


@pytest.fixture(autouse=True)
def clean(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    for registry in (TARGETS, SAMPLERS):
        for entry in [e for e in registry.entries.values() if e.module == "tiltbench_session"]:
            registry.remove(entry)


def test_names_and_objects_make_the_same_cells():
    named = cells(["gaussian[dim=3]", "gmm9"], ["smc", "log_variance"], budget=5_000, seeds=[0, 1])
    made = cells(
        [Gaussian(dim=3), TARGETS.load("gmm9")],
        [Smc(), SAMPLERS.load("log_variance")],
        budget=5_000,
        seeds=[0, 1],
    )
    assert [c.id for c in made] == [c.id for c in named] and len(made) == 8
    assert [c.labels for c in made] == [c.labels for c in named]
    assert cell("gmm9", "smc", budget=5_000, seed=1).id == named[5].id


def test_a_session_runs_scores_and_repeats_nothing(capsys):
    todo = cells([Hill(width=2.0), "gaussian"], [Smc(ess=0.8), "mala"], 600, seeds=[0], draws=40)
    runs = run(todo)
    assert capsys.readouterr().out.count("\n") == 4  # a line for every cell
    assert list(runs.columns) == COLUMNS["runs"] and set(runs["status"]) <= {"spent", "done"}
    assert set(runs["target"]) == {"hill[width=2]", "gaussian"}
    assert set(runs["sampler"]) == {"smc[ess=0.8]", "mala"}
    scores = score()
    assert list(scores.columns) == COLUMNS["scores"]
    w2 = scores[scores["metric"] == "w2"]
    assert len(w2) == 4 and w2["value"].notna().all() and w2["floor_mean"].notna().all()
    before = {r.id: r.cost["seconds"] for r in records(api.FOLDER / "runs")}
    assert len(run(todo[:2])) == 2
    assert {r.id: r.cost["seconds"] for r in records(api.FOLDER / "runs")} == before
    again = type("Hill", (Hill,), {"__doc__": "Edited."})  # a cell of the notebook run again
    run(cell(again(width=2.0), "mala", 600, draws=40))
    after = {r.id: r.cost["seconds"] for r in records(api.FOLDER / "runs")}
    assert [i for i in after if after[i] != before[i]] == [todo[1].id]
    with pytest.raises(BadSpec, match="'?hill'? exists in this session only"):
        run(todo, jobs=2)
    assert torch.get_num_threads() == 1


def test_a_failed_cell_is_a_row():
    poor = cell(Hill(), "ais", 3, draws=60)
    (row,) = run(poor).itertuples()
    assert row.status not in ("spent", "done") and row.reason


def test_a_notebook_shows_one_line_that_is_written_over(monkeypatch, capsys):
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    one = cell("gmm9", "smc", 600, draws=60)
    with display(1) as shown:
        assert isinstance(shown, Notebook)
        shown.watch(Event(one, "training", 0.25))
        shown.watch(Event(one, "training", 0.26))  # too soon to be shown
    output = capsys.readouterr().out
    assert output.startswith("\rgmm9 · smc · seed 0: training, 25%") and output.count("\r") == 1
    assert "\n" not in output
    with display(1) as shown:
        shown.ended(one, Record(one.spec, one.labels, Status.DONE))
    assert "\r[1/1] gmm9 · smc · seed 0: done" in capsys.readouterr().out
    assert Forecast(1).left == "time left unknown yet"


# draws made elsewhere


def save(path="nuts.npz", n=500, **arrays):
    target = build_target({"name": "gmm9", "params": {}})
    x = target.truth().sample(n, torch.Generator().manual_seed(0)).numpy()
    np.savez(path, **{"x": x, **arrays})
    return x


IMPORT = ["import", "nuts.npz", "--target", "gmm9", "--calls", "4e4"]
OUT = Path("results/imported")


def imported(name="nuts", seed=0):
    return import_draws(Path("nuts.npz"), "gmm9", Cost(40_000, 0), 10**5, name, seed, OUT)


def test_imported_draws_stand_in_the_same_tables(capsys, tmp_path):
    save()
    run(cell("gmm9", "smc", 40_000, draws=500), OUT)
    assert main([*IMPORT, "--grads", "0"]) == 0
    output = capsys.readouterr().out
    assert "nuts (calls self-reported)" in output
    assert str(OUT / "table.md") in output and len(output.splitlines()) < 25
    table = (OUT / "table.md").read_text()
    (block,) = [part for part in table.split("\n## ") if part.startswith("gmm9 · 40,000 calls")]
    assert "`nuts (calls self-reported)`" in block and "`smc`" in block
    assert "calls self-reported: nuts.npz was imported" in block
    frames = collect(OUT)
    (mine,) = [r for r in frames.records if REPORTED in r.labels["sampler"]]
    assert mine.cost["train"] == [40_000, 0]
    rows = frames.scores[frames.scores["id"] == mine.id].set_index("metric")
    assert abs(rows.loc["energy_distance", "value"]) < 0.2
    assert "gives no weights" in rows.loc["log_Z_err", "reason"]
    assert main(["status", str(OUT)]) == 0


def test_the_same_file_is_the_same_run():
    save()
    assert imported().id == imported().id != imported(seed=1).id
    assert len(records(OUT / "runs")) == 2


def test_a_seed_imported_again_replaces_the_former_one(capsys):
    save()
    former, other = imported(), imported(seed=1)
    assert "replaced" not in capsys.readouterr().out
    save(n=400)  # corrected
    again = imported()
    assert "replaced: gmm9 · nuts (calls self-reported) · seed 0: 500 d" in capsys.readouterr().out
    assert {r.id for r in records(OUT / "runs")} == {again.id, other.id}
    assert not list(OUT.glob(f"runs/{former.id}*"))
    imported("another")
    assert len(records(OUT / "runs")) == 3


TYPES = ["float16", "float32", ">f8", ">f4", "longdouble", "int32", ">i2", "uint8", "bool"]


@pytest.mark.parametrize("kind", TYPES)
def test_every_numpy_type_of_real_numbers_is_read(kind):
    x = (10 * np.random.default_rng(0).random((4, 30, 2))).astype(kind)
    save(x=np.asfortranarray(x), log_w=x[..., 0], log_w_reverse=x[0, :, :1])
    draws = read_outcome(OUT / "runs", imported().id).draws
    assert draws.x.dtype is torch.float64
    assert np.array_equal(draws.x.numpy(), x.astype(float).reshape(120, 2))
    assert np.array_equal(draws.log_w.numpy(), x[..., 0].astype(float).flatten())


@pytest.mark.parametrize("shape", [(120,), (120, 1), (4, 30), (4, 30, 1), (1, 120)])
def test_weights_have_the_shape_of_the_draws(shape):
    save(x=np.zeros((4, 30, 2)), log_w=np.arange(120.0).reshape(shape))
    draws = read_outcome(OUT / "runs", imported().id).draws
    assert draws.log_w.tolist() == list(range(120))


def test_all_that_a_file_of_draws_may_hold(tmp_path):
    own = np.array([0.1, 0.2, 7.0])
    chains = save(n=120).reshape(4, 30, 2)
    save(x=chains, log_w=np.zeros(120, np.float32), log_Z=own, log_w_reverse=np.zeros(9))
    record = imported("my nuts")
    assert records(OUT / "runs") == [record]
    outcome = read_outcome(OUT / "runs", record.id)
    assert outcome.draws.group.tolist() == [i for i in range(4) for _ in range(30)]
    assert np.array_equal(outcome.draws.x.numpy(), chains.reshape(120, 2))
    assert outcome.draws.log_Z == (0.1, 0.2, 7) and len(outcome.log_w_reverse) == 9
    assert record.spec["budget"]["train"] == [100_000, 100_000]
    assert record.labels["sampler"] == "my nuts (calls self-reported)"
    np.save("plain.npy", chains)
    plain = import_draws(Path("plain.npy"), "gmm9", Cost(9, 9), 9, "plain", 0, OUT)
    assert torch.equal(read_outcome(OUT / "runs", plain.id).draws.x, outcome.draws.x)


BAD = {
    "no x": (dict(y=np.zeros(3)), [], "holds x, y"),
    "a dimension": (dict(x=np.zeros((5, 3))), [], r"it has x of shape \(5, 3\); it must be \(n, 2"),
    "complex": (dict(x=np.zeros((5, 2), complex)), [], "holds complex numbers"),
    "one draw": (dict(x=np.zeros((1, 2))), [], "fewer than two draws"),
    "NaN": (dict(x=np.full((5, 2), np.nan)), [], "5 of 5 draws are not finite"),
    "weights": (dict(log_w=np.zeros(7)), [], r"log_w of shape \(7,\); it must be \(500,\)"),
    "group": (dict(group=np.zeros(500)), [], "whole numbers"),
    "both": (dict(x=np.zeros((2, 3, 2)), group=np.zeros(6, int)), [], "leave one of them out"),
    "log_Z": (dict(log_Z=np.zeros(2)), [], "value, error, n"),
    "reverse": (dict(log_w_reverse=np.full(3, np.nan)), [], "log_w_reverse"),
    "objects": (dict(x=np.array([None, 1])), [], "array of Python objects"),
    "transposed": (
        dict(x=np.zeros((4, 30, 2)), log_w=np.zeros((30, 4))),
        [],
        r"log_w of shape \(30, 4\)",
    ),
    "text": (dict(x=np.array(["a", "b"])), [], "cannot be read"),
    "budget": ({}, ["--budget", "100"], "40,000 calls do not fit a budget of 100"),
    "calls": ({}, ["--calls", "none"], "--calls none is not a whole number"),
    "target": ({}, ["--target", "gmm99"], "did you mean 'gmm9'"),
}


@pytest.mark.parametrize("case", BAD)
def test_draws_that_do_not_fit_are_one_sentence(case, capsys, tmp_path):
    arrays, options, said = BAD[case]
    save(**arrays)
    assert main([*IMPORT, *options]) == 2
    error = capsys.readouterr().err
    assert re.search(said, error) and error.count("\n") == 1, error
    assert not list(tmp_path.glob("results/*/runs/*.json"))


# files for other programs


@pytest.fixture
def chained(tmp_path):
    save(x=save().reshape(4, 125, 2), log_w=np.arange(500.0))
    imported()
    return OUT


def test_scores_as_csv_and_parquet(chained, capsys, monkeypatch):
    import pandas

    score(chained)
    capsys.readouterr()
    assert main(["export", "imported", "scores.csv"]) == 0
    assert "scores in scores.csv" in capsys.readouterr().out
    read = pandas.read_csv("scores.csv")
    want = collect(chained).scores
    assert list(read.columns) == COLUMNS["scores"] and len(read) == len(want) > 20
    assert np.allclose(read["value"], want["value"], equal_nan=True)
    assert main(["export", "imported", "new/scores.csv"]) == 2 and not Path("new").exists()
    assert "there is no folder new for scores.csv" in capsys.readouterr().err
    (OUT / "floors.json").write_text('{"floors": [3]}')
    assert main(["score", "imported", "--force"]) == 2
    error = capsys.readouterr().err
    assert "floors.json holds no floors" in error and error.count("\n") == 1
    assert main(["export", "imported", "scores.xlsx"]) == 2
    assert "not as '.xlsx'" in capsys.readouterr().err


def test_scores_as_parquet(chained):
    import pandas

    score(chained)
    assert main(["export", "imported", "scores.parquet"]) == 0
    read = pandas.read_parquet("scores.parquet")
    assert np.allclose(read["value"], collect(chained).scores["value"], equal_nan=True)


def test_draws_have_a_row_for_every_chain(chained, monkeypatch):
    """What is handed to ArviZ, which is not installed everywhere."""
    fake = types.SimpleNamespace(from_dict=lambda **groups: groups)
    monkeypatch.setitem(sys.modules, "arviz", fake)
    (record,) = records(chained / "runs")
    groups = inference_data(chained, record.id)
    x = read_outcome(chained / "runs", record.id).draws.x.numpy()
    assert groups["posterior"]["x"].shape == (4, 125, 2)
    assert np.array_equal(groups["posterior"]["x"].reshape(500, 2), x)
    assert np.array_equal(groups["sample_stats"]["log_w"], np.arange(500.0).reshape(4, 125))
    with pytest.raises(BadSpec, match="no draws of a run 'nowhere'"):
        inference_data(chained, "nowhere")
    monkeypatch.setitem(sys.modules, "arviz", None)
    with pytest.raises(BadSpec, match="pip install arviz"):
        inference_data(chained, record.id)


def test_arviz_reads_the_draws(chained):
    arviz = pytest.importorskip("arviz")
    (record,) = records(chained / "runs")
    made = inference_data(chained, record.id)
    assert made.posterior["x"].shape == (4, 125, 2)
    assert float(arviz.rhat(made)["x"].max()) < 1.5


def test_one_target_one_loss_and_a_number_of_seeds_need_no_list():
    made = cells("gmm9", SAMPLERS.load("log_variance"), budget=1000, seeds=2)
    assert [(c.labels["target"], c.labels["sampler"], c.seed) for c in made] == [
        ("gmm9", "log_variance", 0),
        ("gmm9", "log_variance", 1),
    ]


@pytest.mark.parametrize(
    "limit",
    [
        "budget=-5", "budget=1.5", "budget='x'", "flops=-1", "flops='x'", "seconds=0",
        "draws=0", "draws=2.5", "curve=-1", "ode=-1", "ode=True",
    ],
)  # fmt: skip
def test_a_limit_that_is_none_is_refused(limit):
    """Before a record of it can spoil a folder."""
    name, _, value = limit.partition("=")
    value = eval(value)
    with pytest.raises(BadSpec, match=f"^{name} is {value!r}; it must be"):
        cell("gmm9", "smc", **{name: value})
    with pytest.raises(BadSpec, match="flops is nan"):
        cell("gmm9", "smc", flops=float("nan"))
    assert cell("gmm9", "smc", budget=1e3, flops=1e9).spec["budget"]["train"] == [1000, 1000]


def test_cells_for_gpus_are_spread_over_them(tmp_path, monkeypatch):
    asked = []

    def here(engine, cells, runs, code, watch):
        asked.append(engine.places)
        return iter(())

    monkeypatch.setattr(Local, "run", here)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    for device in ("cuda", "cpu"):
        run(cells("gaussian", "mala", budget=50, draws=5, device=device), tmp_path, jobs=3)
    assert asked == [("2", "3", "2"), ("", "", "")]


def test_tf32_is_part_of_a_cell():
    """Another run under another name; a CPU has none."""
    plain, rounded = (cell("gaussian", "mala", device="cuda", tf32=tf32) for tf32 in (False, True))
    assert plain.id != rounded.id and rounded.spec == {**plain.spec, "tf32": True}
    assert rounded.title == "gaussian · mala, TF32 · seed 0"
    with pytest.raises(BadSpec, match="choose cuda, or leave tf32 out"):
        cell("gaussian", "mala", tf32=True)


def test_calls_where_none_are_stated():
    assert cell("gmm9", "smc").budget.train.calls == 40_000
    assert cell("gmm9", "smc", flops=1e9).budget.limits == "1e+09 flops"
    assert cell("gmm9", "smc", 500, flops=1e9).budget.limits == "500 calls, 1e+09 flops"
