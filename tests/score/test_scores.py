"""Scores of fabricated runs whose quality is known."""

import json
import math
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.tools.fabricated_runs import (
    OUTCOMES,
    PLUGIN,
    TARGET,
    N,
    biased,
    edit,
    exact,
    only,
    scores_of,
    write,
)
from tiltbench.metric import KINDS, Metric, Outcome, Unknown
from tiltbench.plan.spec import METRICS, build_target
from tiltbench.records.files import write_arrays
from tiltbench.records.record import Record, Status
from tiltbench.records.store import read_scores, records
from tiltbench.run.streams import generator
from tiltbench.samplers.sampler import Draws
from tiltbench.samplers.weights import Estimate
from tiltbench.score import evaluate
from tiltbench.score.curve import UNJUDGED, curve_scores
from tiltbench.score.floor import measure
from tiltbench.score.folder import score
from tiltbench.targets.target import Density, Truth


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "shifted.py"
    path.write_text(PLUGIN.replace("SIZE", "1"))
    return path, {"name": f"{path}:shifted", "params": {}}


def test_every_metric_has_a_number_or_a_reason(fabricated):
    for sampler in OUTCOMES:
        for scores in scores_of(fabricated, sampler):
            assert set(METRICS.entries) <= set(scores)
            for found in scores.values():
                if found["value"] is None:
                    assert found["reason"]
                else:
                    assert math.isfinite(found["value"])


def test_exact_draws_score_at_their_floors(fabricated):
    for scores in scores_of(fabricated, "exact"):
        for name, found in scores.items():
            if "floor" in found:
                floor = found["floor"]
                assert abs(found["value"] - floor["mean"]) < 5 * floor["sd"], name
                assert floor["n"] == N
        for name in ("log_Z_err", "log_Z_rev_err", "log_Z_bar_err"):
            assert abs(scores[name]["value"]) < 4 * scores[name]["se"]


def test_a_sampler_in_one_mode_is_seen_from_the_target_only(fabricated):
    for scores in scores_of(fabricated, "one_mode"):
        assert scores["ess_model"]["value"] > 0.98
        assert scores["mode_tv"]["value"] == pytest.approx(8 / 9)
        assert scores["ess_target"]["value"] < 1e-3
        assert scores["log_Z_err"]["value"] == pytest.approx(-math.log(9), abs=0.01)


def test_weighting_is_scored_too_and_counts_its_copies(fabricated):
    for scores in scores_of(fabricated, "biased"):
        ess = scores["ess_model"]["value"]
        weighted = scores["obs_z_weighted"]
        assert weighted["ess"] == pytest.approx(ess)
        assert weighted["n"] < N  # groups: distinct draws that were kept
    assert "energy_distance_weighted" not in scores_of(fabricated, "chains")[0]


def test_weights_repair_a_biased_set(tmp_path):
    """Three of nine modes drawn three times too often, with exact weights."""
    target = build_target(TARGET)
    truth = target.truth()

    def stretched(_, g):
        x = truth.sample(900, g)
        share = torch.where(truth.modes.assign(x) < 3, 3.0, 1.0).double()
        kept = torch.rand(900, generator=g) < share / 3
        return Outcome(Draws(x[kept], -share[kept].log()), None, {})

    OUTCOMES["tilted"] = stretched
    try:
        write(tmp_path / "runs", "tilted", 0)
    finally:
        del OUTCOMES["tilted"]
    score(tmp_path, jobs=1)
    (scores,) = scores_of(tmp_path, "tilted")
    assert scores["obs_z"]["value"] > 5
    assert scores["obs_z_weighted"]["value"] < 4
    assert scores["mode_tv"]["value"] > scores["mode_tv"]["floor"]["mean"] + 5 * 0.02
    assert scores["mode_tv_weighted"]["value"] < 0.1


def test_zero_weights_are_null_with_a_reason_and_their_share_is_kept(fabricated):
    for scores in scores_of(fabricated, "zero"):
        assert "zero" in scores["log_Z_err"]["reason"]
        assert "every weight is zero" in scores["w2_weighted"]["reason"]
        assert scores["log_Z_own_err"]["value"] == pytest.approx(0.1)
    record = next(r for r in records(fabricated / "runs") if r.labels["sampler"] == "zero")
    assert read_scores(fabricated / "runs", record.id)["zero_weights"] == 1.0


def test_nan_in_draws_or_weights_is_a_reason_not_a_number(tmp_path):
    def spoiled(truth, g):
        draws = exact(truth, g)
        x, w = draws.draws.x.clone(), draws.draws.log_w.clone()
        x[3], w[5] = torch.nan, torch.nan
        return draws._replace(draws=Draws(x, w), log_w_reverse=torch.full((N,), torch.nan))

    OUTCOMES["spoiled"] = spoiled
    try:
        write(tmp_path / "runs", "spoiled", 0)
    finally:
        del OUTCOMES["spoiled"]
    score(tmp_path, jobs=1)
    (scores,) = scores_of(tmp_path, "spoiled")
    for name in METRICS.entries:
        needs = METRICS.load(name).needs
        if needs & {"particles", "lattice", "torsions", "tilt", "unknown_law", "unknown_log_Z"}:
            assert scores[name]["reason"] in KINDS.values()
        elif needs & {"sample", "modes", "observables", "log_w", "reverse"}:
            assert (
                scores[name]["value"] is None
                and "1 of 200" in scores[name]["reason"]
                or (scores[name]["reason"] == "200 of 200 log-weights are NaN or +inf")
            )


def test_one_failing_metric_leaves_the_others(tmp_path, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("oh")

    real = METRICS.load("mmd")
    from tiltbench.metrics import mmd

    monkeypatch.setattr(mmd, "mmd", real._replace(fn=broken))
    write(tmp_path / "runs", "exact", 0)
    score(tmp_path, jobs=1)
    (scores,) = scores_of(tmp_path, "exact")
    assert scores["mmd"] == {"value": None, "reason": "ZeroDivisionError: oh"}
    assert scores["w2"]["value"] > 0


def test_a_target_that_is_gone_is_a_reason(tmp_path):
    record = write(tmp_path / "runs", "exact", 0)
    path = tmp_path / "runs" / f"{record.id}.json"
    data = json.loads(path.read_text())
    data["spec"]["target"]["name"] = "gone"
    path.write_text(json.dumps(data))
    renamed = Record(**{**data, "status": Status(data["status"])}).id
    for suffix in (".json", ".npz", ".curve.npz"):
        (tmp_path / "runs" / f"{record.id}{suffix}").rename(
            tmp_path / "runs" / f"{renamed}{suffix}"
        )
    score(tmp_path, jobs=1)
    scores = read_scores(tmp_path / "runs", renamed)
    assert all("gone" in f["reason"] for f in scores["scores"].values())


def test_curves_are_scored_at_every_spend(fabricated):
    for record in records(fabricated / "runs"):
        if not record.status.finished:
            continue
        curve = read_scores(fabricated / "runs", record.id)["curve"]
        assert curve["spend"] == [100, 500, 1000] and curve["n"] == 50
        assert curve["floor"]["n"] == 50
        name = record.labels["sampler"]
        if name == "exact":
            assert curve["distance"][0] > curve["distance"][2]
            assert np.allclose(curve["log_Z_err"], [-2, -0.5, 0], atol=0.1)
        if name in ("chains", "zero"):
            assert curve["log_Z_err"] == [None] * 3


def test_scoring_again_does_nothing_until_something_changes(tmp_path, monkeypatch):
    record = write(tmp_path / "runs", "exact", 0)
    assert score(tmp_path, jobs=1) == 1
    path = tmp_path / "runs" / f"{record.id}.scores.json"
    first = json.loads(path.read_text())
    assert score(tmp_path, jobs=1) == 0
    assert score(tmp_path, force=True, jobs=1) == 1
    assert json.loads(path.read_text())["scores"] == first["scores"]
    monkeypatch.setitem(OUTCOMES, "exact", biased)  # the run was repeated and came out otherwise
    write(tmp_path / "runs", "exact", 0)
    assert score(tmp_path, jobs=1) == 1
    assert json.loads(path.read_text())["scores"] != first["scores"]
    monkeypatch.setattr("tiltbench.score.folder.scoring_code", lambda target: "other")
    assert score(tmp_path, jobs=1) == 1


def test_processes_give_the_same_scores(tmp_path):
    for seed in range(3):
        write(tmp_path / "runs", "exact", seed)
        write(tmp_path / "runs", "biased", seed)
    seen = []
    assert score(tmp_path, jobs=2, progress=lambda done, total: seen.append((done, total))) == 6
    assert seen == [(i, 6) for i in range(1, 7)]
    parallel = scores_of(tmp_path, "exact")
    assert score(tmp_path, force=True, jobs=1) == 6
    assert scores_of(tmp_path, "exact") == parallel


def test_samplers_of_one_seed_meet_the_same_reference(tmp_path, monkeypatch):
    """`zero` and `exact` have the same draws: their distances agree to the last digit."""
    for name in ("exact", "zero"):
        write(tmp_path / "runs", name, 4)
    score(tmp_path, jobs=1)
    (a,), (b,) = scores_of(tmp_path, "exact"), scores_of(tmp_path, "zero")
    assert a["w2"]["value"] == b["w2"]["value"]
    assert a["energy_distance"]["value"] == b["energy_distance"]["value"]


def test_each_purpose_of_scoring_has_its_own_stream(tmp_path, monkeypatch):
    """The reference of a seed, what a score draws by itself, and the floors of every size: none
    repeats the numbers of another, nor those of the run."""
    asked, made = [], {}

    def noted(seed, purpose, device="cpu", part=None):
        source = generator(seed, purpose, device, part)
        asked.append(source.initial_seed())
        return source

    def seen(target, truth, outcome, source):
        made.setdefault("metric", source.initial_seed())
        return Estimate(float(truth.sample(len(outcome.draws.x), source).sum()), 0.0, 1)

    def sample(n, source):
        made.setdefault("truth", []).append(source.initial_seed())
        return torch.randn(n, 2, generator=source)

    for room in ("evaluate", "floor"):
        monkeypatch.setattr(f"tiltbench.score.{room}.generator", noted)
    truth = Truth("made up", sample=sample)
    monkeypatch.setattr(evaluate, "_target", lambda spec, file: (None, truth))
    metric = Metric("seen", frozenset({"sample"}), "lower", "1", "0", seen)
    record = SimpleNamespace(spec={"seed": 7})
    outcome = Outcome(Draws(torch.randn(20, 2), torch.zeros(20)), None, {})
    evaluate._reference("streams", "", 7, 20)
    evaluate._one(metric, "", None, truth, outcome, record, None)
    evaluate._weighted(outcome, record, 20)
    target = SimpleNamespace(truth=lambda: truth)
    for n in (20, 30):
        measure(target, {"seen": metric}, n, seed=7, repetitions=2)
    known = {name: generator(7, name).initial_seed() for name in ("reference", "score")}
    floors = [generator(7, "floor", part=n).initial_seed() for n in (20, 30)]
    assert asked == [known["reference"], known["score"], known["score"], *floors]
    assert made["metric"] == known["score"] and made["truth"][0] == known["reference"]
    assert made["truth"][-4:] == [floors[0]] * 2 + [floors[1]] * 2
    run = {generator(7, name).initial_seed() for name in ("train", "draw", "truth", "reverse")}
    assert len({*asked, *run}) == 4 + len(run)


def test_comparisons_use_at_most_two_thousand_draws_and_weights_all():
    from tiltbench.score.evaluate import _thinned
    from tiltbench.score.floor import MOST, compared

    assert [compared(n) for n in (1, 99, 618, 592, 1000, 1499, 20_000)] == [
        *(1, 99, 600, 500, 1000, 1000, 2000)
    ]
    x = torch.arange(3 * MOST, dtype=torch.float64)[:, None]
    few = _thinned(Outcome(Draws(x, group=x[:, 0].long()), None, {}), MOST).draws
    assert len(few.x) == len(few.x.unique()) == MOST
    assert torch.equal(few.x[:, 0].long(), few.group)
    assert few.x[0] == 0 and few.x[-1] == 3 * MOST - 1


def test_an_edited_plug_in_has_new_scores_and_floors(tmp_path, plugin, monkeypatch):
    path, target = plugin
    monkeypatch.setitem(OUTCOMES, "plain", only)
    record = write(tmp_path / "runs", "plain", 0, of=target)
    assert score(tmp_path, jobs=1) == 1 and score(tmp_path, jobs=1) == 0
    before = read_scores(tmp_path / "runs", record.id)["scores"]["w2"]
    edit(path, "return 1 *", "return 3 *")
    assert score(tmp_path, jobs=1) == 1
    after = read_scores(tmp_path / "runs", record.id)["scores"]["w2"]
    assert after["floor"]["mean"] == pytest.approx(3 * before["floor"]["mean"], rel=1e-3)
    assert after["value"] > 2 * before["value"]
    kept = json.loads((tmp_path / "floors.json").read_text())["floors"]
    assert len({entry["file"] for entry in kept}) == 1  # the floors of the old file are gone


def test_more_draws_than_the_truth_holds_are_no_number(monkeypatch):
    known = Truth("made up", sample=lambda n, g: torch.zeros(n, 2), held=62)
    monkeypatch.setattr(evaluate, "_target", lambda spec, file: (None, known))
    assert evaluate._reference("of 62", "", 0, 62).shape == (62, 2)
    with pytest.raises(Unknown, match="holds 62 exact draws, not 63: score as many with --draws"):
        evaluate._reference("of 62", "", 0, 63)


@pytest.mark.parametrize("held, known", [(3, True), (2, False)])
def test_a_learning_curve_of_more_draws_than_the_truth_holds_has_no_distance(tmp_path, held, known):
    target = build_target({"name": "gmm9"})
    x, none = torch.randn(2, 3, target.dim), torch.full((2, 3), torch.nan)
    arrays = {"spend": torch.tensor([1, 2]), "x": x, "log_w": none}
    write_arrays(tmp_path / "run.curve.npz", arrays)
    truth = Truth("made up", sample=lambda n, g: torch.zeros(n, target.dim), held=held)
    curve = curve_scores(tmp_path, "run", target, truth, {})
    assert curve is not None and [p.distance is not None for p in curve.points] == [known] * 2


@dataclass(frozen=True)
class Bell(Density):
    name = "bell"
    dim = 2

    def log_rho(self, x):
        return -x.square().sum(-1) / 2

    def truth(self):
        return Truth("unknown")


def test_a_learning_curve_without_a_truth_has_estimates(tmp_path):
    """Draws of N(0, 1.2^2 I) and their weights to rho of N(0, I), whose log Z is log 2 pi."""
    target = Bell()
    x = 1.2 * torch.randn(3, 4000, 2, generator=torch.Generator().manual_seed(0)).double()
    log_q = -x.square().sum(-1) / 2 / 1.44 - math.log(2 * math.pi * 1.44)
    log_w = target.log_rho(x) - log_q
    log_w[1] = torch.nan  # no weights
    log_w[2] = log_w[2, :8].repeat_interleave(500)  # those of islands
    arrays = {"spend": torch.tensor([1, 2, 3]), "x": x, "log_w": log_w}
    write_arrays(tmp_path / "run.curve.npz", arrays)
    curve = curve_scores(tmp_path, "run", target, target.truth(), {}).json()
    assert [curve[k] for k in ("log_Z_err", "distance")] == [[None] * 3] * 2
    forward, none, islands = curve["log_Z_forward"]
    assert forward == pytest.approx(math.log(2 * math.pi), abs=0.02) and none is None
    assert islands == pytest.approx(float(torch.logsumexp(log_w[2], 0)) - math.log(4000))
    below, *others = curve["elbo"]
    gap = 1.44 - 1 - math.log(1.44)  # KL(N(0, 1.44 I) | N(0, I)) in two dimensions
    assert forward - below == pytest.approx(gap, abs=0.02) and others == [None] * 2
    share, *others = curve["ess_model"]
    assert share == pytest.approx((2 * 1.44 - 1) / 1.44**2, abs=0.03) and others == [None] * 2
    assert all(0.005 < value < 0.2 for value in curve["ksd"])  # of draws, which are too wide
    known = target.truth()._replace(log_Z=0.0, sample=lambda n, g: torch.zeros(n, 2))
    assert not {*UNJUDGED} & {*curve_scores(tmp_path, "run", target, known, {}).json()}
