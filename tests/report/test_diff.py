"""Two result sets side by side: made up so that what changed is known."""

import csv
import math

import numpy as np
import pytest
from scipy import stats

from tests.tools.result_sets import FLOOR, GMM9, put
from tiltbench.cli.main import main
from tiltbench.records.record import Status
from tiltbench.report.diff import Change, compare
from tiltbench.report.diff_sentences import sentences

SEEDS = range(5)
NOISE = np.random.default_rng(3).normal(size=(2, 5))


def both(tmp_path, a, b, **more):
    """Two sets of one sampler: a(seed) and b(seed) are its scores."""
    for name, scores in (("a", a), ("b", b)):
        for seed in SEEDS:
            put(tmp_path / name, "it", seed, scores(seed), **(more if name == "b" else {}))
    return tmp_path / "a", tmp_path / "b"


def change_of(comparison, metric):
    return next(row for row in comparison.rows if row.metric == metric)


@pytest.mark.parametrize(
    "metric, a, b, change",
    [
        ("energy_distance", 2.0, 3.0, Change.WORSE),
        ("energy_distance", 3.0, 2.0, Change.BETTER),
        ("energy_distance", 2.0, 2.001, Change.ALIKE),
        ("ess_target", 0.2, 0.6, Change.BETTER),  # larger is better
        ("log_Z_err", -3.0, 1.0, Change.BETTER),  # by its size
        ("energy_distance", 0.011, 0.009, Change.TIED),
        ("energy_distance", 2.0, -1.0, Change.UNTESTED),  # below its floor
    ],
)
def test_changes_are_named(tmp_path, metric, a, b, change):
    floor = FLOOR if metric == "energy_distance" else None
    small = 1e-4 if change is Change.TIED else 0.02

    def scores(level, noise):
        return lambda seed: {metric: (level + small * noise[seed], floor), "grad_var": level}

    comparison = compare(*both(tmp_path, scores(a, NOISE[0]), scores(b, NOISE[1])))
    (row,) = comparison.rows  # what is not ranked is not compared
    assert row.change is change and row.seeds == 5
    assert comparison.worse == (change is Change.WORSE)
    if change in (Change.WORSE, Change.ALIKE):
        values = [level + small * noise for level, noise in zip((a, b), NOISE, strict=True)]
        assert row.p == pytest.approx(stats.ttest_rel(*values).pvalue)


def test_the_same_numbers_are_no_test(tmp_path):
    a, b = both(tmp_path, lambda s: {"w2": 1.0 + s}, lambda s: {"w2": 1.0 + s})
    comparison = compare(a, b)
    assert change_of(comparison, "w2").change is Change.SAME and math.isnan(
        change_of(comparison, "w2").p
    )
    assert "scores: 1 the same numbers." in sentences(comparison, ("a", "b"))


def test_many_comparisons_are_corrected_for(tmp_path):
    """Of 200 scores that differ by chance alone some have p < .05; none is called a change."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        for sampler in range(20):
            for seed in range(3):
                value = float(1 + 0.1 * rng.normal())
                scores = {"w2": value, "mmd": float(1 + 0.1 * rng.normal())}
                put(tmp_path / name, f"s{sampler:02}", seed, scores)
    comparison = compare(tmp_path / "a", tmp_path / "b")
    assert {row.change for row in comparison.rows} == {Change.ALIKE} and not comparison.worse
    assert min(row.p for row in comparison.rows) < 0.05
    text = sentences(comparison, ("A", "B"))
    assert "of 40 tests chance alone gives about 2)" in text and "Holm over all of them" in text


def test_what_is_gone_or_fails_is_reported(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    for seed in SEEDS:
        put(a, "gone", seed, {"w2": 1.0})
        put(a, "fails", seed, {"w2": 1.0})
        end = {"status": Status.DIVERGED, "reason": "nan"} if seed == 2 else {}
        put(b, "fails", seed, {"w2": 1.0}, commit="b" * 40, **end)
        put(b, "new", seed, {"w2": 1.0}, commit="b" * 40)
    comparison = compare(a, b)
    text = sentences(comparison, ("A", "B"))
    assert comparison.worse and [row.sampler for row in comparison.rows] == ["fails"]
    assert comparison.rows[0].change is Change.SAME and comparison.rows[0].seeds == 4
    for line in (
        "gmm9 (1,000) · fails: finished in A, not in B: seed 2",
        "gmm9 (1,000) · gone: recorded in A only: seed 0, 1, 2, 3, 4",
        "gmm9 (1,000) · new: recorded in B only: seed 0, 1, 2, 3, 4",
        "commit: aaaaaaaaaaaa  ->  bbbbbbbbbbbb",
    ):
        assert line in text
    assert "in B only" not in sentences(compare(a, a), ("A", "A"))


def test_what_cannot_be_compared_is_not(tmp_path):
    """Another version of the target, other numbers of draws, two seeds, a metric of one set."""
    a, b = both(
        tmp_path,
        lambda s: {"w2": 1.0 + NOISE[0, s], "energy_distance": (1.0 + s, FLOOR), "mmd": 1.0},
        lambda s: (
            {"w2": 1.0 + NOISE[1, s], "energy_distance": (2.0 + s, {**FLOOR, "mean": 0.02})}
            | ({"mmd": 1.5 + s} if s < 2 else {})
        ),
    )
    comparison = compare(a, b)
    whys = {row.metric: row.why for row in comparison.rows}
    assert "other numbers of draws" in whys["energy_distance"] and "common seeds" in whys["mmd"]
    put(b, "it", 0, {"obs_z": 1.0}, of=GMM9)
    comparison = compare(a, b)
    assert "scored in B only: obs_z" in comparison.differs
    for seed in SEEDS:
        put(tmp_path / "c", "it", seed, {"w2": 3.0}, version=2)
    comparison = compare(a, tmp_path / "c")
    assert "gmm9 has another version: not compared" in comparison.differs
    (row,) = comparison.rows
    assert row.change is Change.UNTESTED and "version" in row.why and row.b == 3


def test_the_command_ends_as_it_says(tmp_path, capsys):
    a, b = both(
        tmp_path,
        lambda s: {"w2": 1.0 + 0.01 * NOISE[0, s], "mmd": 1.0 + NOISE[0, s]},
        lambda s: {"w2": 2.0 + 0.01 * NOISE[1, s], "mmd": 1.0 + NOISE[1, s]},
    )
    table = tmp_path / "all.csv"
    assert main(["diff", str(a), str(b), "--csv", str(table)]) == 1
    text = capsys.readouterr().out
    assert "WORSE (1)" in text and "gmm9 (1,000) · it · w2: " in text
    with table.open(encoding="utf-8") as file:
        rows = {row["metric"]: row["change"] for row in csv.DictReader(file)}
    assert rows == {"w2": "worse", "mmd": "not significant"}
    assert main(["diff", str(a), str(b), "--metrics", "mmd"]) == 0
    assert main(["diff", str(b), str(a)]) == 0 and "BETTER (1)" in capsys.readouterr().out
    assert main(["diff", str(a), str(tmp_path / "none")]) == 2
    assert "there are no results in" in capsys.readouterr().err
    assert main(["diff", str(a), str(b), "--metrics", "w3"]) == 2
