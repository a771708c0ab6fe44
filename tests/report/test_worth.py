"""Where a learned sampler is worth its calls: the nearest of either kind at equal calls."""

import math

from tiltbench.report.board import Board, SamplerRow, Spent
from tiltbench.report.ranks import Ranks
from tiltbench.report.tables.worth import section, worth

NAN = math.nan


def row(sampler, off, learned=False):
    """A method that is `off` doublings off at equal calls; NaN: nobody knows."""
    spent = Spent(4e4, 4e4, 0.0, 0.0, 0.0, 1.0, 100.0 if learned else 0.0, 100.0, False, False)
    return SamplerRow(sampler, Ranks(1, calls_off=off), 3, 3, {}, {}, frozenset(), spent)


def board(target, *rows):
    return Board(target, 50_000, (), rows, equal_calls=46_000.0)


def test_the_nearest_of_either_kind_stand_beside_each_other():
    leaderboards = [
        board("a", row("net", 0.5, True), row("net2", 2, True), row("smc", 1), row("hmc", NAN)),
        board("b", row("net", 0, True), row("smc", 0), row("hmc", 0), row("pt", 0)),
        board("c", row("net", math.inf, True), row("smc", 3.25)),
    ]
    assert [one.relation for one in worth(leaderboards)] == ["nearer", "as near", "farther"]
    text = section(worth(leaderboards))
    assert "| a | 46k | 1.4× `net` | 2.0× `smc` | nearer |" in text
    assert "| b | 46k | ≤ 1× `net` | ≤ 1× `hmc`, `pt` and 1 more | as near |" in text
    assert "| c | 46k | ∞ `net` | 9.5× `smc` | farther |" in text
    assert text.endswith("Of 3 tables: 1 nearer, 1 as near, 1 farther.")


def test_nothing_is_said_of_one_kind_alone_or_of_scores_that_nobody_knows():
    leaderboards = [
        board("a", row("smc", 1), row("hmc", 2)),
        board("b", row("net", 1, True)),
        board("c", row("net", NAN, True), row("smc", 1)),
        board("d", row("net", 1, True), row("smc", 1)._replace(ranks=None)),
    ]
    assert worth(leaderboards) == [] and section([]) == ""
