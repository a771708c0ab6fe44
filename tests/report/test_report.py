"""Scores, tables and plots of fabricated runs whose quality is known."""

import json
import math
import re
import shutil
import subprocess
from pathlib import Path

import matplotlib.image
import numpy as np
import pandas
import pytest
import torch
from matplotlib.figure import Figure

from tests.tools.result_sets import put
from tiltbench.metric import KINDS, Outcome, Unknown
from tiltbench.plan.spec import METRICS, build_target, spec
from tiltbench.records.files import write_arrays
from tiltbench.records.record import Record, Status, write_outcome, write_record
from tiltbench.records.store import read_scores, records
from tiltbench.report import report
from tiltbench.report.board import Board, Row, Spent, _cells, boards
from tiltbench.report.compare import Verdict, best
from tiltbench.report.frame import collect
from tiltbench.report.page.page import inert
from tiltbench.report.pictures import style
from tiltbench.report.pictures.curves import learning
from tiltbench.report.pictures.summary import _heat
from tiltbench.report.tables.latex import escaped, latex
from tiltbench.report.tables.markdown import markdown
from tiltbench.report.tables.misled import misled
from tiltbench.report.tables.reasons import merged
from tiltbench.run.streams import STREAMS, generator
from tiltbench.samplers.sampler import Draws
from tiltbench.samplers.weights import Estimate
from tiltbench.score import evaluate
from tiltbench.score.curve import curve_scores
from tiltbench.score.folder import score
from tiltbench.targets.target import Truth

EVIL = r"\immediate\write18{touch owned}} & % \end{tabular} $x^2_ ~ #1 \\"
UNSPENT = Spent(*[math.nan] * 8, False, False, None)
N = 200
GENERATOR = 17


def source(seed):
    return torch.Generator().manual_seed(seed)


def exact(truth, g):
    """Perfect weights and draws."""
    x = truth.sample(N, g)
    w = truth.log_Z + 0.05 * torch.randn(N, generator=g, dtype=torch.float64) - 0.05**2 / 2
    back = truth.log_Z + 0.05 * torch.randn(N, generator=g, dtype=torch.float64) + 0.05**2 / 2
    gradients = 1 + torch.randn(16, 8, generator=g, dtype=torch.float64)
    probes = {"gradient_gram": gradients @ gradients.T}
    return Outcome(Draws(x, w), back, probes)


def one_mode(truth, g):
    """All draws in one of nine modes: forward weights look perfect, log Z is off by log 9."""
    x = truth.sample(60 * N, g)
    x = x[truth.modes.assign(x) == 0][:N]
    share = float(truth.modes.weight[0])
    w = truth.log_Z + math.log(share) + 0.02 * torch.randn(N, generator=g, dtype=torch.float64)
    back = truth.log_Z + 30 * torch.rand(N, generator=g, dtype=torch.float64)
    return Outcome(Draws(x, w), back, {})


def biased(truth, g):
    """Too wide, with honest weights."""
    x = truth.sample(N, g)
    wide = x + 0.6 * torch.randn(x.shape, generator=g, dtype=torch.float64)
    w = truth.log_Z - 0.5 + torch.randn(N, generator=g, dtype=torch.float64)
    return Outcome(Draws(wide, w), w + 1.0, {})


def chains(truth, g):
    """Ten chains that never move far: no weights, groups."""
    start = truth.sample(10, g).repeat_interleave(N // 10, 0)
    x = start + 0.05 * torch.randn(start.shape, generator=g, dtype=torch.float64)
    return Outcome(Draws(x, None, torch.arange(10).repeat_interleave(N // 10)), None, {})


def zero(truth, g):
    """Every weight is zero; the method has an estimate of its own."""
    x = truth.sample(N, g)
    own = Estimate(truth.log_Z + 0.1, 0.02, 4)
    return Outcome(Draws(x, torch.full((N,), -torch.inf), None, own), None, {})


MADE = {"exact": exact, "one_mode": one_mode, "biased": biased, "chains": chains, "zero": zero}
TARGET = spec(build_target({"name": "gmm9", "params": {}}))


def write(
    runs: Path,
    sampler: str,
    seed: int,
    status=Status.SPENT,
    budget=1000,
    of=TARGET,
    table=0,
    **cost,
):
    target = build_target(of)
    truth = target.truth()
    grads = 0 if sampler == "biased" else budget
    record = Record(
        {
            "target": of,
            "target_version": target.version,
            "sampler": {"name": sampler, "params": {}},
            "seed": seed,
            "device": "cpu",
            "draws": N,
            "budget": {"train": [budget, budget], "draw": [0, 0], "measure": [0, 0]},
        },
        {"target": of["name"], "sampler": sampler, **({"budget": str(table)} if table else {})},
        status,
        "" if status.finished else "log rho of gmm9 is nan at 3 of 512 points",
        cost={
            **{"train": [budget, grads], "draw": [N, 0], "measure": [9, 9], "seconds": 1.5},
            **cost,
        },
        env={"torch": "2", "device": "cpu", "cores": 2, "threads": 1, "os": "Linux"},
        code={"version": "0", "commit": "abc", "dirty": False, "hash": "1"},
    )
    if status.finished:
        outcome = MADE[sampler](truth, source(seed))
        write_outcome(runs, record.id, outcome)
        x = torch.stack([outcome.draws.x[:50] * s for s in (0.3, 0.8, 1.0)]).float()
        log_w = torch.full((3, 50), torch.nan)
        if outcome.draws.log_w is not None:
            log_w = torch.stack([outcome.draws.log_w[:50] - s for s in (2.0, 0.5, 0.0)])
        spend = torch.tensor([budget // 10, budget // 2, budget])
        write_arrays(runs / f"{record.id}.curve.npz", {"spend": spend, "x": x, "log_w": log_w})
    write_record(runs, record)
    return record


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    for sampler in MADE:
        for seed in range(5):
            write(folder / "runs", sampler, seed)
    for seed in range(5):
        write(folder / "runs", "broken", seed, Status.DIVERGED)
    write(folder / "runs", "refused", 0, Status.UNSUPPORTED)
    score(folder, jobs=1)
    return folder


def scores_of(folder, sampler):
    return [
        read_scores(folder / "runs", record.id)["scores"]
        for record in records(folder / "runs")
        if record.labels["sampler"] == sampler and record.status.finished
    ]


# --- scores --------------------------------------------------------------------------------------


def test_every_metric_has_a_number_or_a_reason(folder):
    for sampler in MADE:
        for scores in scores_of(folder, sampler):
            assert set(METRICS.entries) <= set(scores)
            for found in scores.values():
                if found["value"] is None:
                    assert found["reason"]
                else:
                    assert math.isfinite(found["value"])


def test_exact_draws_score_at_their_floors(folder):
    for scores in scores_of(folder, "exact"):
        for name, found in scores.items():
            if "floor" in found:
                floor = found["floor"]
                assert abs(found["value"] - floor["mean"]) < 5 * floor["sd"], name
                assert floor["n"] == N
        for name in ("log_Z_err", "log_Z_rev_err", "log_Z_bar_err"):
            assert abs(scores[name]["value"]) < 4 * scores[name]["se"]


def test_a_sampler_in_one_mode_is_seen_from_the_target_only(folder):
    for scores in scores_of(folder, "one_mode"):
        assert scores["ess_model"]["value"] > 0.98
        assert scores["mode_tv"]["value"] == pytest.approx(8 / 9)
        assert scores["ess_target"]["value"] < 1e-3
        assert scores["log_Z_err"]["value"] == pytest.approx(-math.log(9), abs=0.01)


def test_weighting_is_scored_too_and_counts_its_copies(folder):
    for scores in scores_of(folder, "biased"):
        ess = scores["ess_model"]["value"]
        weighted = scores["obs_z_weighted"]
        assert weighted["ess"] == pytest.approx(ess)
        assert weighted["n"] < N  # groups: distinct draws that were kept
    assert "energy_distance_weighted" not in scores_of(folder, "chains")[0]


def test_weights_repair_a_biased_set(tmp_path):
    """Three of nine modes drawn three times too often, with exact weights."""
    target = build_target(TARGET)
    truth = target.truth()

    def stretched(_, g):
        x = truth.sample(900, g)
        share = torch.where(truth.modes.assign(x) < 3, 3.0, 1.0).double()
        kept = torch.rand(900, generator=g) < share / 3
        return Outcome(Draws(x[kept], -share[kept].log()), None, {})

    MADE["tilted"] = stretched
    try:
        write(tmp_path / "runs", "tilted", 0)
    finally:
        del MADE["tilted"]
    score(tmp_path, jobs=1)
    (scores,) = scores_of(tmp_path, "tilted")
    assert scores["obs_z"]["value"] > 5
    assert scores["obs_z_weighted"]["value"] < 4
    assert scores["mode_tv"]["value"] > scores["mode_tv"]["floor"]["mean"] + 5 * 0.02
    assert scores["mode_tv_weighted"]["value"] < 0.1


def test_zero_weights_are_null_with_a_reason_and_their_share_is_kept(folder):
    for scores in scores_of(folder, "zero"):
        assert "zero" in scores["log_Z_err"]["reason"]
        assert "every weight is zero" in scores["w2_weighted"]["reason"]
        assert scores["log_Z_own_err"]["value"] == pytest.approx(0.1)
    record = next(r for r in records(folder / "runs") if r.labels["sampler"] == "zero")
    assert read_scores(folder / "runs", record.id)["zero_weights"] == 1.0


def test_nan_in_draws_or_weights_is_a_reason_not_a_number(tmp_path):
    def spoiled(truth, g):
        made = exact(truth, g)
        x, w = made.draws.x.clone(), made.draws.log_w.clone()
        x[3], w[5] = torch.nan, torch.nan
        return made._replace(draws=Draws(x, w), log_w_reverse=torch.full((N,), torch.nan))

    MADE["spoiled"] = spoiled
    try:
        write(tmp_path / "runs", "spoiled", 0)
    finally:
        del MADE["spoiled"]
    score(tmp_path, jobs=1)
    (scores,) = scores_of(tmp_path, "spoiled")
    for name in METRICS.entries:
        needs = METRICS.load(name).needs
        if needs & {"particles", "lattice", "tilt"}:
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
    found = read_scores(tmp_path / "runs", renamed)
    assert all("gone" in f["reason"] for f in found["scores"].values())


def test_curves_are_scored_at_every_spend(folder):
    for record in records(folder / "runs"):
        if not record.status.finished:
            continue
        curve = read_scores(folder / "runs", record.id)["curve"]
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
    monkeypatch.setitem(MADE, "exact", biased)  # the run was repeated and came out otherwise
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


def test_no_two_purposes_share_a_stream():
    drawn = {
        tuple(torch.rand(2, generator=generator(0, purpose, part=part)).tolist())
        for purpose in STREAMS
        for part in (None, 0, 1)
    }
    assert len(drawn) == 3 * len(STREAMS)


# --- comparison ----------------------------------------------------------------------------------


def made_cell(values, mean=math.nan, sd=math.nan, low=None):
    from tiltbench.report.compare import Cell, verdict

    middle = float(np.median(values))
    seen = verdict(middle, mean, sd)
    return Cell(middle, min(values), max(values), math.nan, mean, sd, seen,
                tuple(range(len(values))), tuple(values))  # fmt: skip


def test_bold_means_not_told_apart_from_the_best():
    from tiltbench.report.compare import best

    noise = np.random.default_rng(0).normal(0, 0.1, 5)
    cells = {
        "a": made_cell(1.0 + noise),
        "b": made_cell(1.01 + noise[::-1]),
        "c": made_cell(3.0 + noise),
    }
    assert best(cells) == {"a", "b"}
    assert best({name: made_cell(c.merits[:3]) for name, c in cells.items()}) == set()


def test_scores_at_the_floor_tie_and_below_it_never_win():
    from tiltbench.report.compare import best

    cells = {
        "at": made_cell([1.0, 1.1, 0.9, 1.0, 1.05], 1.0, 0.1),
        "at too": made_cell([1.15, 1.2, 1.1, 1.15, 1.1], 1.0, 0.1),
        "above": made_cell([1.3, 1.31, 1.3, 1.3, 1.3], 1.0, 0.1),
        "below": made_cell([0.5, 0.5, 0.5, 0.5, 0.5], 1.0, 0.1),
    }
    assert best(cells) == {"at", "at too"}
    del cells["at"], cells["at too"]
    few = made_cell([1.25] * 5, 1.0, 0.1)._replace(few=True)  # of fewer draws than the others
    assert best({**cells, "few": few}) == {"above"}


def test_holm_corrects_for_the_number_of_comparisons():
    from tiltbench.report.compare import holm

    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == {"a"}
    assert holm({"a": 0.01, "b": 0.02, "c": 0.04}) == {"a", "b", "c"}
    assert holm({"a": 0.04, "b": 0.04}) == set()


def test_holm_with_paired_t_is_wrong_at_most_as_often_as_stated():
    """Four samplers of one law: how often is any told apart from the best of five seeds?  Choosing
    the best by the data costs something; the rate stays near the level."""
    from tiltbench.report.compare import best

    rng = np.random.default_rng(1)
    wrong = 0
    for _ in range(300):
        table = rng.normal(0, 1, (4, 5))
        wrong += len(best({str(i): made_cell(row) for i, row in enumerate(table)})) < 4
    assert wrong / 300 < 0.12


def places(cells, curves, values=1000, trained=True):
    """{sampler: (place, priced)} at an allowance of 1,000 points; "free" takes no gradients."""
    from pandas import DataFrame

    from tiltbench.report.compare import orders

    rows = [
        {
            "id": name,
            "sampler": name,
            "finished": True,
            "trained": trained or name != "free",
            "values": values,
            "grads": 0 if name == "free" else values,
            "budget": 1000,
        }
        for name in cells
    ]
    return {name: tuple(o[:2]) for name, o in orders(DataFrame(rows), cells, curves).items()}


def curve(last, middle):
    return {"spend": [10, 500, 1000], "distance": [9.0, middle, last], "log_Z_err": [None] * 3,
            "floor": {"mean": 0.0, "sd": 0.01, "n": 50}}  # fmt: skip


def test_an_equal_bill_moves_methods_that_pay_for_gradients():
    cells = {
        "free": made_cell([1.0], 0.0, 0.01),
        "paid": made_cell([0.5], 0.0, 0.01),
        "floor": made_cell([-0.001], 0.0, 0.01),
        "late": made_cell([0.01], 0.0, 0.01),
    }
    curves = {"paid": curve(0.5, 3), "floor": curve(-1, 0.01), "late": curve(0.01, 9)}
    found = places(cells, curves)
    assert found == {"free": (4, 2), "paid": (3, 3), "floor": (1, 1), "late": (1, 4)}
    assert places(cells, {}, values=500) == {
        **{"free": (4, 4), "paid": (3, 3), "floor": (1, 1), "late": (1, 1)}
    }
    assert places(cells, {})["paid"] == (3, None)  # its bill is too high, and there is no curve
    pair = {"free": made_cell([0.4], 0.0, 0.01), "paid": made_cell([0.5], 0.0, 0.01)}
    assert places(pair, {"paid": curve(9, 1)})["paid"] == (2, 2)  # a curve that rises is no gain


def test_places_go_by_the_scores_of_the_table_not_by_the_curves():
    """The curves' few draws are all at their floor; the table tells the methods apart."""
    cells = {
        "a": made_cell([0.3], 0.0, 0.01),
        "b": made_cell([0.2], 0.0, 0.01),
        "at": made_cell([0.019], 0.0, 0.01),
        "at too": made_cell([-0.01], 0.0, 0.01),
    }
    found = places(cells, dict.fromkeys(cells, curve(0.0, 0.0)))
    assert {name: place for name, (place, _) in found.items()} == {
        **{"a": 4, "b": 3, "at": 1, "at too": 1}
    }
    assert all(place == priced for place, priced in found.values())


def test_a_score_below_its_floor_has_no_place():
    cells = {
        "below": made_cell([-0.03], 0.0, 0.01),
        "at": made_cell([0.0], 0.0, 0.01),
        "above": made_cell([5.0], 0.0, 0.01),
    }
    found = places(cells, dict.fromkeys(cells, curve(0.0, 0.0)))
    assert found == {"below": (None, None), "at": (1, 1), "above": (2, 2)}


def test_a_method_that_never_trained_has_no_place():
    cells = {"free": made_cell([0.1], 0.0, 0.01), "paid": made_cell([0.5], 0.0, 0.01)}
    found = places(cells, dict.fromkeys(cells, curve(0.5, 0.5)), trained=False)
    assert found == {"free": (None, None), "paid": (1, 1)}


# --- table and plots -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def table(folder):
    path = report(folder)
    return path.read_text(encoding="utf-8")


def test_the_table_names_every_run_and_its_end(table):
    for name in MADE:
        assert f"| `{name}` |" in table
    assert "0 of 5, 5 DIVERGED" in table
    said = "- DIVERGED: log rho of gmm9 is nan at 3 of 512 points: `broken` (seed 0, 1, 2, 3, 4)"
    assert said in table
    assert "UNSUPPORTED" in table and "5 of 5" in table
    assert "- the method gives no weights: `chains` (no ess_model, log_Z_err" in table


def test_the_table_shows_where_one_side_misleads(table):
    section = table.split("## One-sided against two-sided")[1].split("\n## ")[0]
    assert "`one_mode`" in section and "ess_model 1.00" in section
    assert "log Z is off by -2." in section and "mode_tv 0.89" in section
    assert "`exact`" not in section and "`biased`" not in section


def rows_of(table, sampler):
    return [line for line in table.splitlines() if line.startswith(f"| `{sampler}` |")]


def test_scores_stand_beside_their_floors_and_one_sided_ones_are_never_bold(table):
    line = next(line for line in rows_of(table, "exact") if "±" in line and "\\|" in line)
    assert "≈ **" in line
    weights = [line for line in rows_of(table, "one_mode") if "e-1" in line]
    assert weights and not any("**" in line for line in weights)


def test_provenance_is_at_the_foot(table):
    foot = table.split("## Provenance")[1]
    assert "commit: abc" in foot and "torch 2" in foot and "2 cores" in foot


def test_table_rows_have_as_many_cells_as_their_head(table):
    width = 0
    for line in table.splitlines():
        cells = line.replace("\\|", "").count("|")
        if line.startswith("|"):
            width = width or cells
            assert cells == width, line
        else:
            width = 0


def test_csv_is_tidy(folder, table):
    import pandas

    frame = pandas.read_csv(folder / "table.csv")
    assert {"target", "sampler", "seed", "metric", "value", "floor_mean"} <= set(frame.columns)
    assert not frame.duplicated(["target", "budget", "sampler", "seed", "metric"]).any()


def test_pictures_are_made(folder, table):
    names = {path.name for path in (folder / "plots").iterdir()}
    assert names == {"gmm9.curves.png", "gmm9.draws.png", "gmm9.weights.png", "summary.png"}
    for name in names:
        assert (folder / "plots" / name).read_bytes().startswith(b"\x89PNG")


def test_pictures_come_in_pixels_and_in_vectors(tmp_path, monkeypatch):
    monkeypatch.setattr(style, "FORMATS", ("png", "pdf"))
    with style.picture(tmp_path / "one.png", 1, 2, (2, 2)) as (_, grid):
        grid[0, 0].plot([0, 1])
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "one.pdf").read_bytes().startswith(b"%PDF")


def test_the_table_in_latex_has_every_row_and_score(folder, table):
    text = (folder / "table.tex").read_text(encoding="utf-8")
    tables = re.findall(r"\\begin{tabular}{(l+r*)}\n(.*?)\\end{tabular}", text, re.S)
    assert len(tables) == 2 + 4  # overviews, groups
    for columns, body in tables:
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert all(len(re.split(r"(?<!\\)&", row)) == len(columns) for row in rows)
        assert body.count("\n\\midrule\n") in (1, 2) and "\\toprule" in body
    for name in [*MADE, "broken", "refused"]:
        assert text.count(rf"\texttt{{{name.replace('_', chr(92) + '_')}}}") >= 5
    assert "0 of 5, 5 diverged" in text and "0 of 1, 1 unsupported" in text
    assert r"$\approx$ $\mathbf{" in text and "exact draws" in text


def test_latex_and_html_escape_every_sign():
    signs = "".join(map(chr, range(32, 127))) + "\n\u2028é"
    made = escaped(signs)
    left = re.sub(r"\\text\w+{}|\\[{}$&#%_]|{\\char\d+}", "", made)
    assert not re.search(r"[\\{}$&#%_^~<>|\"'`\n]", left)
    assert made.isascii() and "[U+00E9]" in made and not re.search(r"[<>&]", inert(signs))
    assert json.loads(inert(signs)) == signs


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex on this machine")
def test_the_tables_typeset(folder, table, tmp_path):
    hostile = Board(EVIL, 9, (), (Row(EVIL, None, 1, 0, {EVIL: 1}, {}, frozenset(), UNSPENT),))
    frames = collect(folder)
    text = latex(EVIL, [*boards(frames), hostile])
    head = r"\documentclass{article}\usepackage{booktabs,amssymb,graphicx}\begin{document}"
    (tmp_path / "page.tex").write_text(head + text + r"\end{document}", encoding="utf-8")
    words = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "page.tex"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True)
    assert done.returncode == 0 and (tmp_path / "page.pdf").exists(), done.stdout[-2000:]
    assert not (tmp_path / "owned").exists()


def test_a_folder_where_nothing_finished_still_has_a_table(tmp_path):
    write(tmp_path / "runs", "broken", 0, Status.OUT_OF_TIME)
    assert score(tmp_path, jobs=1) == 0
    assert "OUT_OF_TIME" in report(tmp_path).read_text(encoding="utf-8")


def test_a_folder_without_records_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no records"):
        report(tmp_path)


def test_runs_that_are_not_scored_yet_are_shown_as_such(tmp_path):
    write(tmp_path / "runs", "exact", 0)
    assert "| `exact` |" in report(tmp_path).read_text(encoding="utf-8")


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


# --- what a table must not hide ------------------------------------------------------------------


def cost_rows(table, head="place (grad = 2)"):
    """{sampler: {column: text}} of the first cost table."""
    lines = table[table.index(f"| sampler | {head}") :].splitlines()
    cells = [[cell.strip() for cell in line.split(" | ")] for line in lines if line.startswith("|")]
    names = ["sampler", "place", "seeds", "draws", "values", "grads", "draw values", "draw grads"]
    rows = {}
    for row in cells[2:]:
        if len(row) == len(cells[0]):
            rows.setdefault(row[0].strip("| `"), dict(zip(names, row, strict=False)))
    return rows


def test_work_done_in_drawing_is_shown_and_marked(tmp_path):
    import pandas

    write(tmp_path / "runs", "exact", 0)
    write(tmp_path / "runs", "biased", 0, draw=[700, 5000])
    score(tmp_path, jobs=1)
    table = report(tmp_path).read_text(encoding="utf-8")
    rows = cost_rows(table)
    assert rows["exact"]["draw values"] == "200" and rows["exact"]["draw grads"] == "0"
    assert rows["biased"]["draw values"] == "700 ⚠" and rows["biased"]["draw grads"] == "5,000"
    assert "`⚠` drawing took more points than training" in table
    frame = pandas.read_csv(tmp_path / "table.csv").groupby("sampler").first()
    spent = ["train_values", "train_grads", "draw_values", "draw_grads"]
    assert frame.loc["biased", spent].tolist() == [1000, 0, 700, 5000]


def test_a_run_of_a_smaller_budget_stands_in_the_table_of_its_suite(tmp_path, table):
    write(tmp_path / "runs", "exact", 0)
    write(tmp_path / "runs", "biased", 0, budget=200, table=1000)
    write(tmp_path / "runs", "chains", 0, budget=200)  # of another suite
    runs = collect(tmp_path).runs.set_index("sampler")
    assert runs["budget"].to_dict() == {"exact": 1000, "biased": 1000, "chains": 200}
    assert runs["values"].to_dict() == {"exact": 1000, "biased": 200, "chains": 200}
    assert table.count("| `exact` | 1,000 | ") == 3  # calls, beside the scores of each grid


def test_ties_for_the_best_are_bold_and_of_one_colour_in_the_summary():
    def rows(sampler, values):
        return [
            {
                "sampler": sampler,
                "target": "gmm9",
                "metric": "log_Z_err",
                "seed": seed,
                "value": value,
                "se": 0.1,
                "floor_mean": math.nan,
                "floor_sd": math.nan,
                "floor_n": math.nan,
                "unfit": False,
            }
            for seed, value in enumerate(values)
        ]

    near, also, far = (
        [0.1, 0.3, 0.2, 0.4, 0.2],
        [0.2, 0.2, 0.3, 0.3, 0.3],
        [5.0, 6.0, 5.5, 6.2, 5.8],
    )
    names = ["near", "also", "far"]
    scores = pandas.DataFrame(
        [r for n, v in zip(names, (near, also, far), strict=True) for r in rows(n, v)]
    )
    panel = Figure().subplots()
    cells = _cells(scores)["log_Z_err"]
    spent = Spent(*[9.0] * 8, False, False, None)
    board_rows = [
        Row(n, None, 5, 5, {}, {"log_Z_err": cells[n]},
            frozenset({"log_Z_err"} & ({"log_Z_err"} if n in best(cells) else set())), spent)
        for n in names
    ]  # fmt: skip
    board = Board("gmm9", 9, (), tuple(board_rows))
    _heat(panel, [board], names, ("log_Z_err", "log_Z_own_err"), lambda row: "")
    shown = [text.get_weight() for text in panel.texts if text.get_text()]
    assert shown == ["bold", "bold", "normal"]
    assert panel.images[0].get_array().flatten().tolist() == [0.0, 0.0, 1.0]


def test_notes_of_runs_are_printed_and_no_training_is_no_place(tmp_path):
    import inspect

    from tiltbench.report.frame import UNTRAINED
    from tiltbench.run import training

    assert UNTRAINED in inspect.getsource(training)
    write(tmp_path / "runs", "exact", 0, notes=[UNTRAINED])
    write(tmp_path / "runs", "exact", 1)
    write(tmp_path / "runs", "biased", 0, notes=["no probes: oh"])
    write(tmp_path / "runs", "chains", 0, notes=["no probes: oh"])
    score(tmp_path, jobs=1)
    table = report(tmp_path).read_text(encoding="utf-8")
    assert f"- {UNTRAINED}: `exact` (seed 0)\n" in table
    assert table.count("no probes: oh") == 1 and "- no probes: oh: `biased`, `chains`" in table
    rows = cost_rows(table)
    assert rows["exact"]["place"] == "–" and rows["biased"]["place"].startswith(("1", "2"))


def test_a_score_below_its_floor_is_marked_in_the_overview_and_has_no_place(tmp_path):
    for name in ("exact", "biased"):
        record = write(tmp_path / "runs", name, 0)
    score(tmp_path, jobs=1)
    path = tmp_path / "runs" / f"{record.id}.scores.json"
    found = json.loads(path.read_text())
    found["scores"]["energy_distance"]["value"] = -9.0
    path.write_text(json.dumps(found))
    table = report(tmp_path).read_text(encoding="utf-8")
    overview = table.split("## Overview")[1].split("\n## ")[0]
    assert "| `biased` | ▼ -9 · 1.0k |" in overview
    assert cost_rows(table)["biased"]["place"] == "–" and cost_rows(table)["exact"]["place"] != "–"


# --- broken files and plug-ins -------------------------------------------------------------------


def cut(path):
    path.write_bytes(path.read_bytes()[:60])


def spoil(path):
    """The file's directory is whole, what it holds is not."""
    data = bytearray(path.read_bytes())
    data[100:300] = bytes(200)
    path.write_bytes(data)


def test_broken_files_are_a_reason_and_the_others_go_on(tmp_path, capsys):
    runs = tmp_path / "runs"
    bad, uneven, unscored = (write(runs, "exact", seed).id for seed in (0, 1, 2))
    write(runs, "biased", 0)
    spoil(runs / f"{bad}.npz")
    cut(runs / f"{uneven}.curve.npz")
    assert score(tmp_path, jobs=1) == 4
    found = read_scores(runs, bad)
    assert all(f"{bad}.npz cannot be read" in f["reason"] for f in found["scores"].values())
    found = read_scores(runs, uneven)
    assert found["scores"]["w2"]["value"] > 0 and found["curve"] is None
    cut(runs / f"{unscored}.scores.json")
    capsys.readouterr()
    table = report(tmp_path).read_text(encoding="utf-8")
    said = capsys.readouterr().err
    assert f"{unscored}.scores.json holds no scores" in said and f"{bad}.npz cannot be read" in said
    assert f"{uneven}.curve.npz cannot be scored" in table and f"{bad}.npz cannot be read" in table
    assert (tmp_path / "plots" / "summary.png").exists()
    assert score(tmp_path, jobs=1) == 1  # the truncated one


PLUGIN = """
from dataclasses import dataclass
import torch
from tiltbench.targets.target import Density, Truth

@dataclass(frozen=True)
class Shifted(Density):
    name = "shifted"
    version = 1
    dim = 2
    scale = 1.0

    def log_rho(self, x):
        return -0.5 * x.square().sum(-1)

    def truth(self):
        def sample(n, g):
            return SIZE * torch.randn(n, 2, generator=g, dtype=torch.float64)
        return Truth("made up", log_Z=1.8378770664093453, sample=sample)
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "shifted.py"
    path.write_text(PLUGIN.replace("SIZE", "1"))
    return path, {"name": f"{path}:shifted", "params": {}}


def edit(path, old, new):
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def only(truth, g):
    return Outcome(Draws(truth.sample(N, g)), None, {})


def test_an_edited_plug_in_has_new_scores_and_floors(tmp_path, plugin, monkeypatch):
    path, target = plugin
    monkeypatch.setitem(MADE, "plain", only)
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


def test_a_target_that_raises_in_plots_is_a_sentence(tmp_path, plugin, monkeypatch, capsys):
    path, target = plugin
    monkeypatch.setitem(MADE, "plain", only)
    write(tmp_path / "runs", "plain", 0, of=target)
    write(tmp_path / "runs", "exact", 0)
    score(tmp_path, jobs=1)
    edit(path, "return -0.5", "raise RuntimeError('no density today')\n        return -0.5")
    report(tmp_path)
    assert "no contours of shifted: RuntimeError: no density today" in capsys.readouterr().err
    made = {p.name for p in (tmp_path / "plots").iterdir()}
    assert {"gmm9.draws.png", "summary.png"} <= made
    edit(path, "return 1 *", "raise RuntimeError('no draws either')\n            return 1 *")
    (tmp_path / "plots" / "gmm9.draws.png").unlink()
    report(tmp_path)
    assert "no draws either" in capsys.readouterr().err
    assert (tmp_path / "plots" / "gmm9.draws.png").exists()


# --- rules of the board, on scores made up -------------------------------------------------------


def floored(mean, sd, n):
    return {"mean": mean, "sd": sd, "n": n, "unfit": False}


def test_fewer_draws_gain_nothing_from_their_wider_floor(tmp_path):
    """Lowest of all and at its own floor: neither first, nor bold, nor level with the others'."""
    for seed in range(5):
        put(tmp_path, "few", seed, {"energy_distance": (0.02, floored(0.03, 0.05, 100))})
        put(tmp_path, "at", seed, {"energy_distance": (0.011, floored(0.01, 0.005, 1000))})
        put(tmp_path, "near", seed, {"energy_distance": (0.1, floored(0.01, 0.005, 1000))})
    (board,) = boards(collect(tmp_path))
    rows = {row.sampler: row for row in board.rows}
    cells = {name: row.cells["energy_distance"] for name, row in rows.items()}
    assert cells["few"].verdict is Verdict.FEW and cells["few"].few
    assert [rows[n].place.place for n in ("at", "near", "few")] == [1, 2, 3]  # 0.03 + 2 * 0.05
    assert rows["at"].best and not rows["few"].best and not rows["near"].best
    text = markdown(collect(tmp_path), [board], tmp_path)
    assert "∼ 0.02 [0.02, 0.02] \\| 0.03±0.05, n 100" in text
    assert r"$\sim$ $0.020$" in latex("x", [board]) or r"$\sim$ $0.02$" in latex("x", [board])


def test_a_place_that_does_not_see_what_is_far_off_is_marked(tmp_path):
    floor = floored(0.01, 0.005, 40)  # edge 0.02
    for seed in range(5):
        for name, other in (("off", 2e16), ("fair", 0.19)):
            scores = {"energy_distance": (0.011, floor), "w2": (other, floor)}
            put(tmp_path, name, seed, scores)
        put(tmp_path, "bad", seed, {"energy_distance": (3.0, floor), "w2": (9.0, floor)})
    (board,) = boards(collect(tmp_path))
    rows = {row.sampler: row for row in board.rows}
    assert "hardly sees w2 2.0e+16" in rows["off"].caveat and not rows["off"].best
    assert not rows["fair"].caveat and "energy_distance" in rows["fair"].best
    assert not rows["bad"].caveat  # its place says it
    text = markdown(collect(tmp_path), [board], tmp_path)
    assert "| 1 / 1 † |" in text and "0.01 +- 0.005): `off`" in text
    assert r"$^\dagger$\texttt{off}: the place is by" in latex("x", [board])


def test_what_a_row_spent_stands_beside_what_it_might(tmp_path):
    put(tmp_path, "some", 0, {"energy_distance": 1.0}, train=[700, 90])
    put(tmp_path, "all", 0, {"energy_distance": 1.0})
    (board,) = boards(collect(tmp_path))
    assert board.allowance == "allowance: 1,000 points; spent in training: 700 to 1,000 calls"
    text = markdown(collect(tmp_path), [board], tmp_path)
    assert "| `some` | 1 · 700 |" in text and "| `all` | 1 · 1.0k |" in text


def test_own_estimates_of_log_z_must_own_their_errors(tmp_path):
    """-10.05 +- 0.34, as smc states on the cold lattice; an honest error bar is no finding."""
    record = put(tmp_path, "sure", 0, {"log_Z_own_err": -10.05})
    put(tmp_path, "honest", 0, {"log_Z_own_err": -0.02})
    path = tmp_path / "runs" / f"{record.id}.scores.json"
    found = json.loads(path.read_text())
    found["scores"]["log_Z_own_err"]["se"] = 0.34
    path.write_text(json.dumps(found))
    (one,) = misled(collect(tmp_path))
    assert one.sampler == "sure" and "it states log Z to ±0.34" in one.sentence
    assert "its own log Z is off by -10.05 nats (30 of its standard errors)" in one.sentence


def test_every_side_of_log_z_stands_in_the_overview_and_no_overlap_is_a_dash(tmp_path):
    sides = {"log_Z_err": -1.0, "log_Z_rev_err": 2.0, "log_Z_bar_err": 0.5}
    put(tmp_path, "meets", 0, sides)
    record = put(tmp_path, "apart", 0, sides)
    path = tmp_path / "runs" / f"{record.id}.scores.json"
    found = json.loads(path.read_text())
    found["scores"]["log_Z_bar_err"]["se"] = 1e53
    path.write_text(json.dumps(found))
    frames = collect(tmp_path)
    text = markdown(frames, boards(frames), tmp_path)
    assert "| `meets` | -1 / 2 / 0.5 |" in text and "| `apart` | -1 / 2 / – |" in text
    assert "a standard error above 1 nats is no estimate: `apart` (no log_Z_bar_err)" in text


def test_a_seed_run_twice_is_two_rows_not_two_seeds(tmp_path):
    put(tmp_path, "it", 0, {"w2": 1.0})
    put(tmp_path, "it", 0, {"w2": 9.0}, draws=80)
    put(tmp_path, "it", 1, {"w2": 2.0}, draws=80)
    put(tmp_path, "other", 0, {"w2": 2.0})
    runs = collect(tmp_path).runs.groupby("sampler").size().to_dict()
    assert runs == {"it (40 draws)": 1, "it (80 draws)": 2, "other": 1}


def test_sentences_that_differ_in_numbers_are_said_once():
    assert merged(["3 of 1,000 draws", "12 of 1,000 draws"]) == "3 to 12 of 1,000 draws"
    assert merged(["-1.5 +- 2e+03 of x1a", "-2 +- 4 of x1a"]) == "-2 to -1.5 +- 4 to 2e+03 of x1a"


def test_scores_of_metrics_that_are_gone_are_named(tmp_path, capsys):
    put(tmp_path, "it", 0, {"w2": 1.0, "worst_mean": 2.0})
    assert set(collect(tmp_path).scores["metric"]) == {"w2"}
    said = capsys.readouterr().err
    assert "worst_mean are left out" in said and "1 of 1 runs were scored by other code" in said


def test_no_two_samplers_look_alike():
    made = style.looks(f"s{i:02}" for i in range(40))
    assert len({(look.colour, look.marker) for look in made.values()}) == 40
    first = list(made.values())[:28]
    assert len({(look.colour, look.dash) for look in first}) == 28
    light, dark = luminance("#ffffff"), luminance("#14181c")
    for colour in style.HUES:  # as the page tints them in either scheme
        assert (light + 0.05) / (luminance(colour, 0.0, 0.12) + 0.05) > 2.8
        assert (luminance(colour, 255.0, 0.42) + 0.05) / (dark + 0.05) > 4.5


def luminance(colour, towards=0.0, share=0.0):
    """Relative luminance (WCAG 2) of a colour mixed with black (0) or white (255)."""
    parts = [int(colour[i : i + 2], 16) * (1 - share) + towards * share for i in (1, 3, 5)]
    linear = [((c / 255 + 0.055) / 1.055) ** 2.4 if c > 10 else c / 255 / 12.92 for c in parts]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_a_learning_curve_has_panels_of_what_is_known_only(tmp_path):
    curve = {"spend": [10, 20], "metric": "energy_distance", "floor": None, "distance": [None] * 2}
    runs, look = pandas.DataFrame([{"id": "a", "sampler": "smc"}]), style.looks(["smc"])
    path, unknown = tmp_path / "curve.png", {"log_Z_err": [None] * 2}
    assert not learning(path, runs, {"a": {**curve, **unknown}}, look) and not path.exists()
    assert learning(path, runs, {"a": {**curve, "log_Z_err": [0.5, 0.1]}}, look)
    narrow = matplotlib.image.imread(path).shape[1]
    assert learning(path, runs, {"a": {**curve, **unknown, "distance": [0.5, None]}}, look)
    both = {"log_Z_err": [0.5, 0.1], "distance": [0.5, 0.1]}
    assert learning(path, runs, {"a": {**curve, **both}}, look)
    assert matplotlib.image.imread(path).shape[1] > 1.5 * narrow


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
    found = curve_scores(tmp_path, "run", target, truth, {})
    assert found is not None and [d is not None for d in found["distance"]] == [known] * 2
