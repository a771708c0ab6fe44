"""Rules of the leaderboard, on scores made up."""

import json

from tests.tools.fabricated_runs import (
    cost_rows,
    write,
)
from tests.tools.result_sets import put
from tiltbench.report.board import boards
from tiltbench.report.compare import FloorStatus
from tiltbench.report.frame import collect
from tiltbench.report.tables.latex import latex
from tiltbench.report.tables.markdown import markdown
from tiltbench.report.tables.misled import misled


def test_a_run_of_another_budget_stands_in_another_table(tmp_path, fabricated):
    frames = collect(fabricated)
    table = markdown(frames, boards(frames), fabricated)
    write(tmp_path / "runs", "exact", 0)
    write(tmp_path / "runs", "biased", 0, budget=200, table=1000)
    write(tmp_path / "runs", "chains", 0, budget=200)  # of another suite
    runs = collect(tmp_path).runs.set_index("sampler")
    assert runs["budget"].to_dict() == {"exact": 1000, "biased": 200, "chains": 200}
    assert runs["values"].to_dict() == {"exact": 1000, "biased": 200, "chains": 200}
    assert cost_rows(table)["exact"]["training: values"] == "1,000"
    for limits in ({}, {"flops": 2e11}, {"seconds": 60.0}):
        put(tmp_path / "limits", "it", 0, {"w2": 1.0}, limits=limits)
    leaderboards = boards(collect(tmp_path / "limits"))
    assert [len(b.rows) for b in leaderboards] == [1, 1, 1]
    assert {b.allowed for b in leaderboards} == {
        "1,000 calls", "1,000 calls, 2e+11 flops", "1,000 calls, 60 s"
    }  # fmt: skip


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
    cells = {name: row.scores["energy_distance"] for name, row in rows.items()}
    assert cells["few"].status is FloorStatus.FEW and cells["few"].few
    assert [rows[n].ranks.rank for n in ("at", "near", "few")] == [1, 2, 3]  # 0.03 + 2 * 0.05
    assert rows["at"].best and not rows["few"].best and not rows["near"].best
    text = markdown(collect(tmp_path), [board], tmp_path)
    assert "| 0.02 [0.02, 0.02], n 100 |" in text and "; n 100: 0.03 ± 0.05 |" in text
    assert r"$n = 100$" in latex("x", [board]) and r"\approx$ $0.02" not in latex("x", [board])


def test_what_a_row_spent_stands_beside_what_it_might(tmp_path):
    put(tmp_path, "some", 0, {"energy_distance": 1.0}, train=[700, 90])
    put(tmp_path, "all", 0, {"energy_distance": 1.0})
    (board,) = boards(collect(tmp_path))
    assert board.budget_summary == "budget: 1,000 calls; spent in training: 700 to 1,000 calls"
    text = markdown(collect(tmp_path), [board], tmp_path)
    rows = cost_rows(text)
    spent = [(rows[n]["training: values"], rows[n]["training: gradients"]) for n in ("some", "all")]
    assert spent == [("700", "90"), ("1,000", "500")]


def test_own_estimates_of_log_z_must_own_their_errors(tmp_path):
    """-10.05 +- 0.34, as smc states on the cold lattice; an honest error bar is no finding."""
    record = put(tmp_path, "sure", 0, {"log_Z_own_err": -10.05})
    put(tmp_path, "honest", 0, {"log_Z_own_err": -0.02})
    path = tmp_path / "runs" / f"{record.id}.scores.json"
    stored = json.loads(path.read_text())
    stored["scores"]["log_Z_own_err"]["se"] = 0.34
    path.write_text(json.dumps(stored))
    (one,) = misled(collect(tmp_path))
    assert one.sampler == "sure" and "it states log Z to ±0.34" in one.sentence("x", "y")
    assert "its own log Z is off by -10.05 nats (30 of its standard errors)" in one.sentence(
        "x", "y"
    )


def test_every_side_of_log_z_stands_in_the_overview_and_no_overlap_is_a_dash(tmp_path):
    sides = {"log_Z_err": -1.0, "log_Z_rev_err": 2.0, "log_Z_bar_err": 0.5}
    put(tmp_path, "meets", 0, sides)
    record = put(tmp_path, "apart", 0, sides)
    path = tmp_path / "runs" / f"{record.id}.scores.json"
    stored = json.loads(path.read_text())
    stored["scores"]["log_Z_bar_err"]["se"] = 1e53
    path.write_text(json.dumps(stored))
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


def test_scores_of_metrics_that_are_gone_are_named(tmp_path, capsys):
    put(tmp_path, "it", 0, {"w2": 1.0, "worst_mean": 2.0})
    assert set(collect(tmp_path).scores["metric"]) == {"w2"}
    printed = capsys.readouterr().err
    assert (
        "worst_mean are left out" in printed and "1 of 1 runs were scored by other code" in printed
    )
