"""`tiltbench tune`: equal trials for all, no look at the truth, a suite that reads back."""

import dataclasses
import math
import textwrap
import tomllib
from pathlib import Path

import pytest
import torch

from tests.tools.worlds import rng
from tiltbench.cli.main import main
from tiltbench.engine.local import Local
from tiltbench.plan.errors import BadSpec
from tiltbench.plan.spec import build_sampler, spec
from tiltbench.plan.toml import load_suite
from tiltbench.records.provenance import code_of
from tiltbench.records.record import read_outcome
from tiltbench.records.store import records
from tiltbench.rhat import split_rhat
from tiltbench.run.phases import run_cell
from tiltbench.samplers.registry import SAMPLERS
from tiltbench.samplers.search import Among, LogUniform, Uniform
from tiltbench.tune import trials as tuning
from tiltbench.tune.choose import plan
from tiltbench.tune.file import written
from tiltbench.tune.trials import draw_params, mean_ranks, nested

PUBLISHED = Path(__file__).parents[2] / "results/published/tuning"

BLIND = '''
"""A Gaussian that nobody may ask for its truth."""
from dataclasses import dataclass
from tiltbench.targets.target import Density

@dataclass(frozen=True)
class Blind(Density):
    name = "blind"
    dim: int = 2

    def log_rho(self, x):
        return -(x - 0.7).square().sum(-1)

    def truth(self):
        raise AssertionError("somebody asked for the truth")
'''
SUITE = """
# Kept: what the author says.
[suite]
calls = 768
draws = 50
seeds = 2

[[target]]
name = "blind.py"
label = "blind"
[[target]]
name = "blind.py[dim=3]"
label = "blind[dim=3]"

[[sampler]]
name = "log_variance[lr=5.0,paths=32,model=Mlp[width=16,layers=1],reference=Brownian[steps=4]]"
label = "learned"
[[sampler]]
name = "mala[chains=32]"
label = "mala"

[[search]]
sampler = "learned"
params = { lr = [0.02, 5.0], reference.steps = [4, 5, "linear"] }
"""


@pytest.fixture
def suite(tmp_path, monkeypatch):
    """In a folder of its own, with cells that run in this process: no process needs to start."""

    def here(self, cells, folder, code, watch):
        folder.mkdir(parents=True, exist_ok=True)
        for cell in cells:
            yield cell, run_cell(cell, folder, code=code_of(cell, code))

    monkeypatch.setattr(Local, "run", here)
    monkeypatch.setattr(tuning, "DRAWS", 64)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "blind.py").write_text(BLIND)
    (tmp_path / "mine.toml").write_text(SUITE)
    return tmp_path / "mine.toml"


def test_a_search_from_end_to_end(suite, capsys):
    """The absurd learning rate loses on both targets, the truth is never asked for, methods have
    equal trials, a second call runs nothing, and more trials only what is new."""
    assert main(["tune", "mine.toml", "--trials", "4"]) == 0
    output = capsys.readouterr().out
    made = records(Path("results/mine-tuning/runs"))
    assert made and all(record.status.finished for record in made)
    assert not any("truth" in note for record in made for note in record.cost["notes"])
    assert all(record.cost["measure"] == [0, 0] for record in made)
    allowances = {tuple(record.spec["budget"]["train"]) for record in made}
    seeds = {record.spec["seed"] for record in made}
    assert allowances == {(768, 768)} and not seeds & {0, 1}

    text = Path("mine_tuned.toml").read_text()
    assert text.startswith(SUITE.rstrip()) and suite.read_text() == SUITE
    rows = {row["sampler"]: row for row in tomllib.loads(text)["tuned"]}
    assert set(rows) == {"learned", "mala"} and {row["trials"] for row in rows.values()} == {4}
    assert rows["learned"]["params"]["lr"] == 0.02
    tuned = load_suite("mine_tuned.toml")
    learned, mala = tuned.samplers
    for target in tuned.targets:
        assert tuned.varied(target, learned)["params"]["lr"] == 0.02
        steps = tuned.varied(target, learned)["params"]["reference"]["params"]["steps"]
        assert steps == rows["learned"]["params"]["reference"]["steps"]
        assert tuned.trials(target, mala) == 4
    cells = tuned.cells("cpu")
    assert all(cell.labels["tuned"] == "4 trials" for cell in cells)
    assert all("tuned" not in cell.labels for cell in load_suite("mine.toml").cells("cpu"))

    runs = Path("results/mine-tuning/runs")
    chains = [read_outcome(runs, r.id) for r in made if r.spec["sampler"]["name"] == "mala"]
    judging = sum(len(outcome.draws.x) for outcome in chains)
    calls = sum(max(r.cost["train"]) + max(r.cost["draw"]) for r in made)
    chosen = output.rpartition("calls spent")[2].splitlines()
    spent = [row.split("|")[-2].replace(",", "") for row in chosen if row[:3] in ("| l", "| m")]
    assert sum(map(int, spent)) == calls + judging

    assert main(["tune", "mine.toml", "--trials", "4"]) == 0
    again = capsys.readouterr().out
    assert " 0 to run" in again and again.partition("| ")[2] == output.partition("\n| ")[2]
    assert main(["tune", "mine.toml", "--trials", "5", "--samplers", "mala"]) == 0
    assert "10 trials, 2 to run" in capsys.readouterr().out
    assert main(["tune", "mine_tuned.toml"]) == 2
    assert "is tuned already" in capsys.readouterr().err


def test_methods_meet_the_same_draws_and_more_trials_extend_a_search():
    a = {"lr": LogUniform(1e-4, 1e-1), "paths": LogUniform(32, 256)}
    b = {"leaps": Uniform(1, 9), "lr": LogUniform(1e-4, 1e-1)}
    first = [draw_params(a, trial, 0) for trial in range(16)]
    assert first[0] == {} and first == [draw_params(a, trial, 0) for trial in range(16)]
    assert [d["lr"] for d in first[1:]] == [
        draw_params(b, trial, 0)["lr"] for trial in range(1, 16)
    ]
    assert all(draw_params(a, trial, 0) != draw_params(a, trial, 1) for trial in range(1, 16))
    assert len({d["lr"] for d in first[1:]}) == 15
    spread = torch.tensor([math.log(draw_params(a, t, 0)["lr"]) for t in range(1, 401)])
    low, high = math.log(1e-4), math.log(1e-1)
    z = (spread.mean() - (low + high) / 2) / ((high - low) / math.sqrt(12 * 400))
    assert abs(z) < 4 and low - 1e-6 <= spread.min() and spread.max() <= high + 1e-6


@pytest.mark.parametrize("u", [0.0, 0.37, 1 - 1e-9])
@pytest.mark.parametrize("name", sorted(SAMPLERS.entries))
def test_what_a_method_declares_can_be_built(name, u):
    sampler = build_sampler({"name": name, "params": {}})
    for key, law in sampler.search().items():
        given = nested({key: law.at(u)})
        head, part = next(iter(given.items()))
        old = spec(sampler)["params"][head]
        if isinstance(part, dict):
            given[head] = {"name": old["name"], "params": {**old["params"], **part}}
        made = spec(build_sampler({"name": name, "params": given}))["params"][head]
        assert made == given[head]


def test_laws_keep_their_ends_and_kinds():
    assert [Uniform(1, 9).at(u) for u in (0.0, 0.5, 1 - 1e-9)] == [1, 5, 9]
    assert isinstance(Uniform(1, 9).at(0.3), int) and isinstance(Uniform(1.0, 9).at(0.3), float)
    assert LogUniform(1e-4, 1e-2).at(0.5) == pytest.approx(1e-3)
    assert [Among(("a", "b", "c")).at(u) for u in (0.0, 0.34, 1 - 1e-9)] == ["a", "b", "c"]


def test_split_rhat():
    """sqrt(1 + 2 m / ess) of independent values; a stuck chain, a drift and a shift are seen."""
    group = torch.arange(64).repeat_interleave(8)
    noise = torch.randn(512, generator=rng(3), dtype=torch.float64)
    expected = math.sqrt(1 + 1 / 4 - 1 / 4)  # (n - 1) / n + 1 / n of halves of n = 4
    assert split_rhat(noise, group) == pytest.approx(expected, abs=4 * 0.25 / math.sqrt(2 * 127))
    assert split_rhat(group.double(), group) == math.inf
    assert split_rhat(noise + 3 * (group % 2), group) > 1.5
    assert split_rhat(noise + torch.arange(8).repeat(64), group) > 1.5  # all drift together
    eight = torch.tensor([0.0, 2.0, 4.0, 8.0, 1.0, 3.0, 3.0, 7.0], dtype=torch.float64)
    # halves (0, 2), (4, 8), (1, 3), (3, 7): W = 5, means 1, 6, 2, 5 with B / n = 17 / 3
    by_hand = math.sqrt(1 / 2 + 17 / 3 / 5)
    assert split_rhat(eight, torch.arange(2).repeat_interleave(4)) == pytest.approx(by_hand)
    one = torch.tensor([0.0, 1.0, 0.0, 1.0, 2.0, 3.0, 2.0, 3.0], dtype=torch.float64)
    by_hand = math.sqrt(3 / 4 + 2 / (1 / 3))  # one chain: W = 1 / 3, B / n = 2
    assert split_rhat(one, torch.zeros(8)) == pytest.approx(by_hand)
    assert math.isnan(split_rhat(noise[:6], torch.tensor([0, 0, 0, 1, 1, 1])))


def test_mean_ranks():
    lost = -math.inf
    assert mean_ranks([[1.0, 3.0, 2.0], [5.0, 5.0, lost]]) == [2.25, 1.25, 2.5]
    assert mean_ranks([[lost, lost], [1.0, 2.0]]) == [2.0, 1.0]  # nobody applies to the first
    assert mean_ranks([[lost, lost]]) is None


def test_values_are_written_as_toml():
    params = {"lr": 3e-4, "n": 7, "reference.steps": 9, "on": True, "word": 'a"\x7f\\', "x": (1, 2)}
    back = tomllib.loads(f"params = {written(params)}")["params"]
    assert nested({**params, "x": [1, 2]}) == back
    part = {"name": "Mlp", "params": {"width": 16}}
    assert tomllib.loads(f"p = {written({'model': part})}")["p"] == {"model": "Mlp[width=16]"}


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["mine.toml", "--trials", "0"], "--trials 0 is not a whole number above 0"),
        (["mine.toml", "--seed", "x"], "--seed x is not"),
        (["none.toml"], "there is no file none.toml"),
        (["mine.toml", "--samplers", "malaa"], "did you mean 'mala'?"),
        (["mine.toml", "--write", "mine.toml"], "exists and is no work of tune"),
        (["mine.toml", "--write", "away/x.toml"], "there is no folder away"),
        (["mine.toml", "--write", "x.txt"], "goes to a .toml file of your own"),
        (
            ["smoke", "--write", str(Path(tuning.__file__).parents[1] / "suites" / "x.toml")],
            "your own",
        ),
    ],
)
def test_refusals(suite, capsys, arguments, sentence):
    assert main(["tune", *arguments]) == 2
    assert sentence in capsys.readouterr().err
    assert suite.read_text() == SUITE and not Path("results").exists()


def test_a_sampler_is_tuned_on_the_targets_it_runs_on(tmp_path):
    """One that runs on none of those chosen has no trials."""
    text = SUITE.replace("blind.py", "gaussian").replace(
        "[[search]]", 'targets = "blind[dim=3]"\n[[search]]'
    )
    (tmp_path / "mine.toml").write_text(text)
    suite = load_suite(str(tmp_path / "mine.toml"))
    cells, plans = plan(suite, 2, 0, "cpu")
    assert [list(mine) for _, _, mine in plans] == [["blind", "blind[dim=3]"], ["blind[dim=3]"]]
    assert len(cells) == 6
    apart = dataclasses.replace(suite, targets=suite.targets[:1])
    assert [sampler.label for sampler, *_ in plan(apart, 2, 0, "cpu")[1]] == ["learned"]


@pytest.mark.parametrize(
    "rows, sentence",
    [
        ("[[search]]\nparams = { lr = [1, 2, 'lg'] }\nsampler = 'nobody'", "not in the suite"),
        ("[[search]]\nparams = { lr = [2, 1, 'log'] }", "write 0 < low < high"),
        ("[[search]]\nparams = { lr = [2, 1, 'linear'] }", "smaller end first"),
        ("[[search]]\nparams = { lr = [nan, 1, 'linear'] }", "smaller end first"),
        ("[[search]]\nparams = { lr = 3 }", "is no law"),
        ("[[search]]\nparams = 3", "params is 3; it must be a table"),
        ("[[search]]\nsampler = 'mala'", "searches nothing"),
        (
            "[[tuned]]\ntarget = 'blind'\nsampler = 'mala'\ntrials = 3",
            "is 'blind'; it must be a list",
        ),
        (
            "[[tuned]]\ntarget = ['blind']\nsampler = 'me'\ntrials = 3",
            "must be of the suite's labels",
        ),
        ("[[tuned]]\ntarget = ['blind']\nsampler = 'mala'\ntrials = 0", "a whole number >= 1"),
        ("[[tuned]]\ntarget = ['blind']\nsampler = [1]\ntrials = 1", "it must be text"),
    ],
)
def test_rows_that_cannot_be(suite, rows, sentence):
    head, _, _ = SUITE.partition("[[search]]")
    suite.write_text(head + textwrap.dedent(rows))
    with pytest.raises(BadSpec, match=sentence):
        load_suite("mine.toml")


def test_a_parameter_that_is_not_there_stops_before_anything_runs(suite, capsys):
    suite.write_text(SUITE.replace("lr = [0.02, 5.0]", "leap = [1, 2]"))
    assert main(["tune", "mine.toml", "--trials", "3"]) == 2
    assert "has no parameter 'leap'" in capsys.readouterr().err
    assert not Path("results").exists()


@pytest.mark.parametrize("name", ["small.toml", "small_tuned.toml"])
def test_the_published_example_can_be_run(name):
    """docs/tuning.md shows it, and `make tuning` runs it."""
    assert load_suite(str(PUBLISHED / name)).cells("cpu")
