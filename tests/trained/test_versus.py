"""Which of two samplers is nearer to a target: closed forms, EUBO from exact draws, refusals."""

import json
import math
import sys
from types import SimpleNamespace

import pytest
import torch

from tiltbench.api import cell, load
from tiltbench.cli.main import main
from tiltbench.cli.versus import _summary
from tiltbench.plan.errors import Refused
from tiltbench.records.record import read_outcome
from tiltbench.run.phases import run_cell
from tiltbench.samplers.weights import Estimate
from tiltbench.trained.versus import (
    Compared,
    Nearer,
    PathWeights,
    WeightedDraws,
    compared,
    nearer,
    versus,
)


def normal(sd, n, g):
    """Draws of N(0, sd^2), and the log density of any other such law there."""
    x = sd * torch.randn(n, generator=g, dtype=torch.float64)
    return x, lambda s: -((x / s) ** 2) / 2 - math.log(s * math.sqrt(2 * math.pi))


def pair(one, two, n, m, seed, log_Z=0.0):
    """Weights of samplers N(0, one^2) and N(0, two^2) for the target N(0, 1) times Z."""
    g = torch.Generator().manual_seed(seed)
    (_, at_first), (_, at_second) = normal(one, n, g), normal(two, m, g)
    first = [log_Z + at_first(1.0) - at_first(sd) for sd in (one, two)]
    second = [log_Z + at_second(1.0) - at_second(sd) for sd in (two, one)]
    return PathWeights(*first), PathWeights(*second)


def test_the_error_is_that_of_each_sampler_by_its_own_draws():
    """By hand, of very different numbers and spreads."""
    one, two = pair(1.2, 3.0, 40, 400, 1)
    first, second = torch.cat([one.forward, two.reverse]), torch.cat([one.reverse, two.forward])
    w = 1 / (40 / 440 / first.exp() + 400 / 440 / second.exp())
    w = w / w.mean()
    rest = w * (second - first - (w * (second - first)).mean())
    due = math.sqrt(40 * float(rest[:40].var()) + 400 * float(rest[40:].var())) / 440
    assert nearer(one, two).se == pytest.approx(due, rel=1e-12)


def divergence(sd):
    """KL(N(0, 1) | N(0, sd^2))."""
    return math.log(sd) + 1 / (2 * sd**2) - 0.5


def test_of_densities_it_is_the_difference_of_divergences_whatever_Z_is():
    due = divergence(2.0) - divergence(1.3)
    z = []
    for seed in range(30):
        difference = nearer(*pair(1.3, 2.0, 600, 400, seed, log_Z=-147.0))
        assert difference.reliable and difference.n == 1000
        z.append((difference.value - due) / difference.se)
    assert abs(sum(z)) / math.sqrt(30) < 3 and 15 < sum(v**2 for v in z) < 51  # chi^2 of 30
    one, two = pair(1.3, 2.0, 600, 400, 0)
    assert nearer(two, one).value == pytest.approx(-nearer(one, two).value, abs=1e-12)


def test_a_lost_mode_counts_against_who_lost_it():
    """Modes of equal weight at -9 and 9: own draws alone would prefer the sampler that has one."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2000, generator=g, dtype=torch.float64)
    side = torch.where(torch.rand(2000, generator=g) < 0.5, -9.0, 9.0)

    def at(x, sd, centres):
        each = torch.stack([-(((x - c) / sd) ** 2) / 2 for c in centres])
        return torch.logsumexp(each, 0) - math.log(len(centres) * sd * math.sqrt(2 * math.pi))

    wide, lost = (1.5 * x + side, 1.5, (-9.0, 9.0)), (x + 9, 1.0, (9.0,))
    log_W = [
        [at(x, 1.0, (-9.0, 9.0)) - at(x, *law) for law in (wide[1:], lost[1:])]
        for x in (wide[0], lost[0])
    ]
    difference = nearer(PathWeights(*log_W[0]), PathWeights(*log_W[1][::-1]))
    assert difference.value > 20
    alone = [torch.softmax(w, 0) @ w for w in (log_W[0][0], log_W[1][1])]
    assert alone[1] < alone[0]  # each by its own weights: the lost mode would be no loss


def test_weights_with_a_heavy_tail_do_not_tell():
    assert not nearer(*pair(0.3, 0.35, 500, 500, 0)).reliable
    none = torch.full((40,), -math.inf)
    some = PathWeights(torch.zeros(40), torch.zeros(40))
    assert not nearer(some, PathWeights(none, none)).reliable or nearer(some, some).value == 0


TRAINED = "log_variance[paths=32,reference=Brownian[steps=8],model=Mlp[width=16]]"
SAMPLERS = (TRAINED, "untrained")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Of a target whose truth is known, to compare with what exact draws say."""
    folder = tmp_path_factory.mktemp("runs") / "runs"
    made = [
        run_cell(cell("gaussian", name, budget=3_000, seed=seed, draws=2_000), folder)
        for name in SAMPLERS
        for seed in range(2)
    ]
    return folder, [record.id for record in made]


def loaded(runs, k):
    folder, ids = runs
    return load(folder / f"{ids[k]}.json")


def test_of_paths_it_is_the_difference_of_EUBO(runs):
    folder, ids = runs
    one, two = loaded(runs, 0), loaded(runs, 2)
    found = versus(one, two, 2_000)
    above = [read_outcome(folder, ids[k]).log_w_reverse for k in (0, 2)]  # from the same draws
    difference = above[1] - above[0]
    due, se = float(difference.mean()), float(difference.std()) / math.sqrt(len(difference))
    assert found.reliable and abs(found.value - due) < 4 * math.hypot(se, found.se)
    assert found.se < 0.2 and due > 5 * se
    assert versus(one, two, 2_000) == found  # the same streams
    assert versus(one, two, 500).n == 1000


def test_a_path_traced_back_weighs_as_the_density_says(runs):
    """The untrained base is one law both ways: log_w = log rho(x) - log q(x), q = N(0, s^2 I)."""
    run, trained = loaded(runs, 2), loaded(runs, 0)
    x = torch.tensor([[0.3, -0.2], [1.5, 0.4]])
    made = run.draw(20_000).x.double()
    s2 = float(made.square().mean())
    log_q = -x.double().square().sum(-1) / (2 * s2) - math.log(2 * math.pi * s2)
    due = run.target.log_rho(x).double() - log_q
    assert torch.allclose(run.traced(x), due, atol=0.05)
    assert torch.equal(trained.traced(x, "a"), trained.traced(x, "a"))
    assert not torch.equal(trained.traced(x, "a"), trained.traced(x, "b"))


def test_those_without_weights_or_paths_have_a_reason(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_cell(cell("gaussian", "best_of_n", budget=400, draws=20), tmp_path / "results/few/runs")
    without = load("few")
    with pytest.raises(Refused, match="best_of_n has no"):
        versus(loaded(runs, 0), without, 20)
    made = compared({"a": [loaded(runs, 0)], "b": [without], "c": [loaded(runs, 2)]}, 500)
    assert set(made.nearer) == {("a", "c")} and set(made.why) == {"b"}


def test_the_error_over_seeds_is_that_of_the_runs_or_of_their_spread(monkeypatch):
    """Two pairs that state 0.3 and 0.4 each, alike and 2 apart."""

    class Run:
        def traced(self, x, part=""):
            return x

    module = sys.modules["tiltbench.trained.versus"]
    drawn = WeightedDraws(torch.zeros(2, 1), torch.zeros(2))
    monkeypatch.setattr(module, "weighed", lambda run, draws: drawn)
    for values, due in (((1.0, 1.0), 0.25), ((0.0, 2.0), 1.0)):
        each = iter([Nearer(v, se, 1.0, 0.1, 99) for v, se in zip(values, (0.3, 0.4), strict=True)])
        monkeypatch.setattr(module, "_between", lambda *_, each=each: next(each))
        found = compared({"a": [Run(), Run()], "b": [Run(), Run()]}, 2).nearer["a", "b"]
        assert found.value == 1.0 and found.se == pytest.approx(due)


BELL = """
from tiltbench.targets.functions import from_torch

bell = from_torch("bell", lambda x: -x.square().sum(-1) / 2, dim=2)
"""


def test_the_command_writes_what_the_tables_show(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bell.py").write_text(BELL)
    samplers = f"{TRAINED},untrained,smc"
    words = ["run", "--targets", "bell.py", "--samplers", samplers, "--budget", "1e3"]
    assert main([*words, "--seeds", "0:2", "--draws", "100", "--curve", "0", "--jobs", "1"]) == 0
    capsys.readouterr()
    assert main(["versus", "adhoc", "--draws", "1"]) == 2
    assert "--draws 1 tells no error; write 2 or more" in capsys.readouterr().err
    file = min((tmp_path / "results/adhoc/runs").glob("*.npz"))
    kept = file.read_bytes()
    file.unlink()  # what is compared is drawn anew
    assert main(["versus", "adhoc", "--draws", "40"]) == 0
    file.write_bytes(kept)
    capsys.readouterr()
    assert main(["versus", "adhoc", "--draws", "200"]) == 0
    output = capsys.readouterr().out
    assert (
        " untrained " in output
        and " nats\n" in output
        and "smc has nothing trained to draw from" in output
    )
    assert main(["report", "adhoc"]) == 0
    table = (tmp_path / "results/adhoc/table.md").read_text()
    part = table[table.index("**Which is nearer") :]
    assert "| `untrained` | -" in part and "- – smc: smc has nothing trained" in part
    assert r"-nearer}" in (tmp_path / "results/adhoc/table.tex").read_text()
    file = tmp_path / "results/adhoc/versus.json"
    rows = json.loads(file.read_text())
    rows[0]["draws"] = dict.fromkeys(rows[0]["draws"], "0" * 64)
    file.write_text(json.dumps(rows))
    capsys.readouterr()
    assert main(["report", "adhoc"]) == 0
    assert "versus.json is of other draws" in capsys.readouterr().err
    assert "**Which is nearer" not in (tmp_path / "results/adhoc/table.md").read_text()


def test_what_lies_within_two_errors_is_not_said_to_be_nearer():
    board = SimpleNamespace(target="bell.py", allowed="100 calls")
    near, far = Estimate(0.13, 0.09, 2), Estimate(-0.13, 0.04, 2)
    said = _summary(board, Compared({("a", "b"): near, ("a", "c"): far}, {}))
    assert "  a and b do not differ significantly: 0.13 ± 0.09 nats\n" in said
    assert said.endswith("  c is nearer than a by 0.13 ± 0.04 nats")


def test_a_folder_of_known_truths_has_something_better(runs, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["versus", str(runs[0].parent)]) == 2
    errors = capsys.readouterr().err
    assert (
        errors.count("\n") == 1 and "eubo_gap says in the table how near each sampler is" in errors
    )
