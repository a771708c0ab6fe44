"""Published rows: their settings, the verdicts, plug-in guidance, and the peers' 90 seconds."""

import math
import re

import pytest
import torch

from tests.tools.result_sets import FLOOR, put
from tiltbench.plan.spec import build_sampler, build_target
from tiltbench.plan.toml import load_suite
from tiltbench.studies.parity import plug_in
from tiltbench.studies.parity import study as parity
from tiltbench.studies.parity.peers import peer_lines
from tiltbench.studies.parity.rows import (
    Agreement,
    Figure,
    agreement,
    ours,
    published,
    row_agreement,
)
from tiltbench.studies.quality import study as quality
from tiltbench.studies.quality.study import BestMethod, Mean, Peer, PeerResult
from tiltbench.targets.problem import pose
from tiltbench.targets.tilts.tilt_quadratic import POWER

WIDTHS = {  # of the originals' base at its end: t_scale, or sigma^2
    ("S", "gmm25"): 5.0,
    ("S", "funnel"): 1.0,
    ("S", "many_well"): 1.0,
    ("G", "gmm40"): 100.0,
    ("G", "many_well"): 1.0,
    ("T", "many_well_mdelta"): 1.0,
}
STATED = {"S": {25_000, 10_000}, "G": {5_333, 10_000}, "T": {1_500}}  # iterations


def test_every_pair_of_the_suites_is_a_published_row():
    """And every row that names a suite is one of its pairs."""
    rows = {(row.suite, row.target, row.sampler) for row in published().row if row.suite}
    pairs = {
        (name, target.label, sampler.label)
        for name in ("parity", "parity_metropolis")
        for target, sampler in load_suite(name).pairs
    }
    assert pairs == rows
    assert all(row.source in published().source for row in published().row)


def test_the_base_of_a_row_is_the_papers():
    """Constant noise whose end has the stated variance, on the target's own scale; its steps, batch
    and iterations are the stated ones too."""
    suite = load_suite("parity")
    for target, sampler in suite.pairs:
        paper, method = sampler.label[0], build_sampler(sampler.spec)
        base = pose(build_target(target.spec), method.reference).base
        assert base.spread**2 == pytest.approx(WIDTHS[paper, target.label], rel=1e-4)
        assert [base.sigma(t) for t in (0.0, 0.7)] == pytest.approx([base.spread] * 2)
        updates = method.batches * (method.repeats + method.replay.updates)
        assert method.paths == 300 and updates in STATED[paper] and method.lr == 1e-3
        if method.explore.explores:  # .2^2 a step beside the base's own, until iteration 5,000
            added = method.explore.at(0.0) * base.spread**2 / base.steps
            assert added == pytest.approx(0.2**2, rel=1e-4)
            assert method.explore.until * updates == 5_000
        assert paper == "T" or (base.steps == 100 and method.clip >= 1e9)


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([1.0, 1.2], "met"),  # sd .141 and .1: joint .173
        ([0.74, 0.74], "better"),
        ([0.81, 0.81], "met"),
        ([1.3], "worse"),
        ([1.15], "met"),
        ([], "not run"),
        ([1.0, math.nan], "not run"),
    ],
)
def test_a_figure_is_met_within_two_joint_standard_deviations(values, verdict):
    assert agreement(Figure("f", "w2", 1.0, 0.1), ours(values)) == verdict


def test_a_row_is_as_good_as_its_worst_figure():
    met, better, worse = Agreement.MET, Agreement.BETTER, Agreement.WORSE
    assert row_agreement([met, better, worse]) == worse and row_agreement([met, better]) == better
    assert row_agreement([met, met]) == met and row_agreement([]) == row_agreement(
        [Agreement.NOT_RUN, met]
    )


# --- plug-in guidance ---------------------------------------------------------------------------


def test_guidance_meets_its_closed_form():
    """Within three standard errors of that of its steps, and far from the tilt, which it misses."""
    strength = 2.0
    for base in plug_in.components(20):
        (v,) = base.variances
        clock = plug_in.clock(base)
        assert sum(clock) == pytest.approx(v)  # the posterior mean ends at the end
        sampled = plug_in.sampled(base, strength, 10_000, 1, "cpu")
        law = plug_in.stepped(clock, POWER, strength)
        assert abs(sampled.kept - law.kept) < 3 * sampled.kept_se
        assert abs(sampled.variance - law.variance) < 3 * sampled.variance_se
        assert sampled.kept < plug_in.tilted(v, POWER, strength).kept - 5 * sampled.kept_se


def test_the_steps_approach_the_closed_form_at_first_order():
    """Of Euler's scheme, for any clock; without guidance both are the base's own law."""
    v, limit = 0.7, plug_in.guided(0.7, 1.3, 2.0)
    errors = []
    for steps in (50, 100, 200):
        law = plug_in.stepped([v / steps] * steps, 1.3, 2.0)
        errors.append([law.kept - limit.kept, law.variance - limit.variance])
    orders = torch.tensor(errors).abs().log2().diff(dim=0)
    assert torch.allclose(orders, torch.full_like(orders, -1.0), atol=0.05)
    assert plug_in.guided(v, 1.3, 0.0) == plug_in.tilted(v, 1.3, 0.0) == (1.0, v)


def test_guidance_overshoots_and_is_too_narrow():
    for v in (0.01, 0.3, 2.0, 50.0):
        guided, tilted = plug_in.guided(v, 1.0), plug_in.tilted(v, 1.0)
        assert guided.kept < tilted.kept and guided.variance < tilted.variance


# --- the pages ----------------------------------------------------------------------------------


def test_the_page_has_a_line_a_figure(monkeypatch, tmp_path):
    """From stored runs, errors by their size; a row that nobody ran says so."""
    monkeypatch.setattr(parity, "BATCHES", 2)
    monkeypatch.setattr(parity, "DRAWS", 500)
    monkeypatch.setattr(parity, "BATCH", 50)
    scores = ((-1.1, 1.0, 4.9), (1.3, 1.2, 4.5))
    for seed, (log_Z, gap, w2) in enumerate(scores):
        stored = {"log_Z_err": log_Z, "elbo_gap": gap, "w2": w2}
        put(tmp_path, "S gmm25 TB", seed, stored, target="gmm25", cpu_seconds=120.0)

    def folder_of(suite):
        if suite == "parity":
            return tmp_path
        raise FileNotFoundError

    monkeypatch.setattr(parity, "folder_of", folder_of)
    monkeypatch.setattr(quality, "folder_of", folder_of)
    parity._frames.cache_clear()
    try:
        answer = parity.run(tmp_path, "cpu")
    finally:
        parity._frames.cache_clear()
    table = answer.table
    first = table[table["row"] == "1"].iloc[0]
    assert first["row is"] == "**met**" and first["CPU-minutes a run"] == "2.0"
    errors = table[table["published"] == "1.071 ± 0.112"].iloc[0]
    assert errors["ours"] == "1.2 ± 0.141" and errors["seeds"] == "2"
    assert table[table["row"] == "3"].iloc[0]["row is"] == "**not run**"
    assert set(table["row"]) >= {str(n) for n in range(1, 18)}
    assert f"Of {len(published().row)} published rows" in answer.words and len(answer.claims) == 1
    of_peers = table[table["source"] == "R"]
    assert list(of_peers["row"]) == [str(n) for n in range(18, 18 + len(quality.peers()))]
    assert "runs of the peers' own code (R): 0 met, 0 better, 0 worse, 7 not run" in answer.words


def test_a_peers_run_is_a_row_like_the_others(tmp_path, monkeypatch):
    """Better than TB on gmm25 in all but the ESS, which is worse: so is the row."""
    w2 = (1.2, {"mean": 1.16, "sd": 0.1, "n": 40, "unfit": False})
    scores = {"log_Z_err": 0.001, "elbo_gap": 0.5, "ess_model": 0.001, "w2": w2}
    put(tmp_path, "ours", 0, scores, target="gmm25", cpu_seconds=60.0)
    monkeypatch.setattr(quality, "folder_of", lambda suite: tmp_path)
    monkeypatch.setattr(quality, "SUITES", ("quality",))
    lines = list(peer_lines())
    compared = [line["row"] for line in lines if line["row"] and "not run" not in line["row is"]]
    assert compared == ["21", "22"]
    at = next(i for i, line in enumerate(lines) if line["row"] == "21")
    results = [line["figure is"] for line in lines[at : at + 4]]
    assert results == ["better", "better", "worse", "better"]
    assert lines[at]["row is"] == "**worse**" and lines[at]["CPU-minutes a run"] == "1.0"


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ({"draws": 50}, r"S gmm25 TB \(50 draws\), 1,000 calls, seeds 0"),
        ({"version": 2, "seed": 1}, "S gmm25 TB, 1,000 calls, seeds 1"),  # no seed is there twice
        ({"limits": {"flops": 1e9}}, r"1,000 calls, 1e\+09 flops, seeds 0"),
    ],
)
def test_runs_of_two_settings_are_not_judged(monkeypatch, tmp_path, others, expected):
    """Neither are they called not run, nor averaged as if they were seeds; the page says why."""
    stored, seed = {"log_Z_err": -1.1, "elbo_gap": 1.0, "w2": 4.9}, others.pop("seed", 0)
    put(tmp_path, "S gmm25 TB", 0, stored, target="gmm25", cpu_seconds=120.0)
    put(tmp_path, "S gmm25 TB", seed, stored, target="gmm25", cpu_seconds=120.0, **others)
    monkeypatch.setattr(parity, "folder_of", lambda suite: tmp_path)
    parity._frames.cache_clear()
    try:
        row = next(row for row in published().row if row.sampler == "S gmm25 TB")
        mine = parity._our_result(row)
        lines = list(parity._figure_lines(published(), row, mine, [], 0.0))
        words = " ".join(parity._unclear({row: mine}))
    finally:
        parity._frames.cache_clear()
    assert {line["figure is"] for line in lines} == {"not judged"}
    assert lines[0]["row is"] == "**not judged**" and lines[0]["differences"] == ""
    assert "are of 2 settings" in words and re.search(expected, words)


PEER = Peer("run", "gmm9", -0.5, 1.0, 0.1, 3.0, 1.5)
BEST = BestMethod(
    "ours",
    80.0,
    Mean(0.1, 0.02, 5),
    Mean(0.5, 0.1, 5),
    Mean(0.3, 0.05, 5),
    Mean(0.9, 0.05, 5),
    (0.8, 0.1),
)


def test_ours_is_compared_with_a_peer_figure_by_figure():
    better, even, worse = PeerResult.BETTER, PeerResult.EVEN, PeerResult.WORSE

    def standings(peer=PEER, best=BEST):
        return [figure.standing for figure in quality.compared(peer, best)]

    assert standings() == [better] * 4
    assert standings(best=BEST._replace(ess=Mean(0.05, 0.01, 5)))[2] == worse
    assert standings(best=BEST._replace(elbo_gap=Mean(1.05, 0.1, 5)))[1] == even  # se .045
    assert standings(best=BEST._replace(elbo_gap=Mean(1.2, 0.1, 5)))[1] == worse
    close = Peer("run", "gmm9", 0.5, 1.0, 0.1, 1.6, 1.5)  # 1.07 floors, where 1.25 is its reach
    assert standings(peer=close)[3] == even
    far = BEST._replace(w2=Mean(1.7, 0.05, 5))  # 2.1 floors
    assert standings(best=far)[3] == worse
    lost = Peer("run", "gmm9", -0.5, 1.0, 0.9, 3.0, 1.5, ("ESS",), "why")
    assert standings(peer=lost) == [better, better, PeerResult.VOID, better]
    assert quality.whole(quality.compared(lost, BEST)) == better
    assert quality.whole(quality.compared(PEER, far)) == worse


def test_the_best_of_ours_has_the_smallest_gap(tmp_path, monkeypatch):
    """The untrained base and runs that failed are none of them."""
    for method, gap in (("a", 0.5), ("b", 0.2)):
        for seed in range(2):
            w2 = (1.0, {"mean": 0.8, "sd": 0.1, "n": 40, "unfit": False})
            stored = {"log_Z_err": -0.1, "elbo_gap": gap + 0.1 * seed, "ess_model": 0.4, "w2": w2}
            put(tmp_path, method, seed, stored, cpu_seconds=90.0)
    monkeypatch.setattr(quality, "folder_of", lambda suite: tmp_path)
    monkeypatch.setattr(quality, "SUITES", ("quality",))
    runs, scores = quality.stored_runs()
    best = quality.best_of(runs, scores, "gmm9")
    assert (best.method, best.cpu_seconds, best.floor) == ("b", 90.0, (0.8, 0.1))
    assert best.elbo_gap.value == pytest.approx(0.25) and best.log_Z_err.value == 0.1
    assert quality.best_of(runs, scores, "funnel") is None
    runs["method"] = "untrained"
    assert quality.best_of(runs, scores, "gmm9") is None
    answer = quality.run(tmp_path, "cpu")
    assert answer.claims[0].verdict == "refuted"
    assert answer.claims[0].measured.startswith("2 of 7 better; worse: log Z error of DIS log-var")


def test_runs_of_another_budget_are_no_seeds(tmp_path, monkeypatch):
    for seed, (gap, limits) in enumerate(((0.5, None), (0.1, {"flops": 1e9}))):
        stored = {"log_Z_err": 0.1, "elbo_gap": gap, "ess_model": 0.4, "w2": (1.0, FLOOR)}
        put(tmp_path, "a", seed, stored, cpu_seconds=90.0, limits=limits)
    monkeypatch.setattr(quality, "folder_of", lambda suite: tmp_path)
    monkeypatch.setattr(quality, "SUITES", ("quality",))
    best = quality.best_of(*quality.stored_runs(), "gmm9")
    assert (best.elbo_gap.value, best.elbo_gap.seeds) == (0.1, 1)


def test_without_runs_the_remedy_is_named(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="tiltbench run --suite quality"):
        quality.run(tmp_path, "cpu")
