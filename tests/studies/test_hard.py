"""Figures asked for: by the median over seeds, in time, and by enough methods."""

import pytest

from tests.tools.result_sets import put
from tiltbench.plan.toml import load_suite
from tiltbench.report.frame import collect
from tiltbench.studies.hard import curves, study
from tiltbench.studies.hard.goals import Goal, goals
from tiltbench.studies.hard.study import attempts, claim
from tiltbench.study import Verdict, conduct

FLOOR = {"mean": 0.0, "sd": 0.1, "n": 40, "unfit": False}
GOAL = Goal("gmm9", 5, 2, {"log_Z_err": 0.1}, {"ess_model": 0.5}, ("w2",), {"mmd": 5})


def _tried(folder, seconds=100.0, goal=GOAL, **values):
    """Two methods, three seeds of each; `values` are those of the second."""
    good = {"log_Z_err": -0.05, "ess_model": 0.6, "w2": 0.15, "mmd": 0.9}
    for seed in range(3):
        for method, scored, spent in (("a", good, 100.0), ("b", {**good, **values}, seconds)):
            scores = {m: (v, FLOOR) if m in ("w2", "mmd") else v for m, v in scored.items()}
            put(folder, method, seed, scores, parameters=7, cpu_seconds=spent + seed)
    put(folder, "untrained", 0, good, parameters=0)
    frames = collect(folder)
    return list(attempts(goal, frames.runs, frames.scores))


def test_every_condition_counts(tmp_path):
    tried = _tried(tmp_path)
    assert [attempt.met for attempt in tried] == [True, True]  # and the untrained base is not tried
    assert [f.condition for f in tried[0].figures] == [
        "< 0.1",
        "> 0.5",
        "≤ 0.2, the floor's edge",
        "≤ 1, 5 times the floor's edge",
    ]
    assert claim(GOAL, tried).verdict is Verdict.SUPPORTED


@pytest.mark.parametrize(
    "fault",
    [{"log_Z_err": -0.11}, {"ess_model": 0.4}, {"w2": 0.21}, {"mmd": 1.01}, {"seconds": 299.0}],
)
def test_one_miss_is_a_miss(fault, tmp_path):
    tried = _tried(tmp_path, **fault)
    assert [attempt.met for attempt in tried] == [True, False]
    judged = claim(GOAL, tried)
    assert judged.verdict is Verdict.REFUTED and judged.measured == "1 of 2 tried: `a`"
    few = claim(Goal("gmm9", 5, 3), tried)
    assert few.verdict is Verdict.OPEN and "3 learned methods" in few.text


def test_the_median_over_seeds_decides(tmp_path):
    for seed, error in enumerate((0.01, -0.09, 0.7)):
        put(tmp_path, "a", seed, {"log_Z_err": error}, parameters=7, cpu_seconds=1.0)
    frames = collect(tmp_path)
    (tried,) = attempts(Goal("gmm9", 1, below={"log_Z_err": 0.1}), frames.runs, frames.scores)
    assert tried.met and str(tried.figures[0]) == "0.01, 0.09, 0.7"


def test_goals_are_of_targets_that_exist_and_the_suite_tries_no_others():
    named = {goal.target for goal in goals()}
    assert {target.label for target in load_suite("hard").targets} <= named


def test_the_page(tmp_path, monkeypatch):
    _tried(tmp_path / "results/hard")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(study, "goals", lambda: (GOAL, Goal("dw4", 30, below={"w2": 0.2})))
    text = conduct(study.hard, tmp_path / "page", "cpu").read_text()
    assert "| dw4 | 30 minutes | not run |" in text and "2 of 2 tried: `a`, `b`" in text


def _curve(metric, **figures):
    floor = {"mean": 0.5, "sd": 0.25, "n": 9}
    return {"metric": metric, "spend": [1, 10], "distance": [4.0, -1.0], "floor": floor, **figures}


def test_the_line_of_a_picture_is_the_goal():
    distance, energy = _curve("energy_distance"), _curve("config_w2", energy_w2=[9.0, 1.0])
    assert curves._limit(Goal("a", 1, times={"energy_distance": 5}), distance) == 5.0
    assert curves._limit(Goal("a", 1, floor=("energy_distance",)), distance) == 1.0
    assert curves._limit(Goal("a", 1, below={"energy_w2": 1.99}), energy) == 1.99


def test_a_panel_a_goal_with_curves_and_none_without(tmp_path):
    _tried(tmp_path)
    frames = collect(tmp_path)
    curves.draw(tmp_path / "none.png", (GOAL,), frames._replace(curves={}))
    assert not (tmp_path / "none.png").exists()
    trained = frames.runs[frames.runs["parameters"] > 0]["id"]
    with_curves = frames._replace(curves={run: _curve("energy_distance") for run in trained})
    panels = curves._with_curve(GOAL, with_curves)
    assert sorted(method for method, _ in panels) == ["a"] * 3 + ["b"] * 3
    curves.draw(tmp_path / "hard.png", (GOAL, Goal("dw4", 1)), with_curves)
    assert (tmp_path / "hard.png").stat().st_size > 1000
