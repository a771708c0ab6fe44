"""Tables, sentences and pictures of targets whose truth is unknown."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from tiltbench.report.board import Board, Column, Row, Spent
from tiltbench.report.compare import Cell, Verdict
from tiltbench.report.pictures.axes import span
from tiltbench.report.pictures.weights import window
from tiltbench.report.places import judged
from tiltbench.report.standings import leaderboard
from tiltbench.report.tables.markdown import _misled, _none_off
from tiltbench.report.tables.unknown import Seed, _error, _seed, unknown
from tiltbench.samplers.sampler import Draws
from tiltbench.targets.target import Density, Truth


@dataclass(frozen=True)
class Pair(Density):
    name = "pair"
    dim = 2

    def log_rho(self, x):
        return -x.square().sum(-1) / 2

    def statistics(self):
        return {"a": lambda x: x[:, 0], "sum": lambda x: x.sum(-1)}

    def truth(self):
        return Truth("unknown")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def alike(n):
    return torch.full((n,), 1 / n, dtype=torch.float64)


def plain(x):
    return Seed(x, alike(len(x)), None)


def cell(value, metric="ksd"):
    return Cell(value, value, value, 1.0, math.nan, math.nan, Verdict.NONE, (0,), (value,))


def board(*samplers):
    spent = Spent(100, 100, 100, 0, 0, 1, 0, 100, False, False)
    rows = [
        Row(name, None, 1, 1, {}, {"ksd": cell(k)}, frozenset(), spent)
        for k, name in enumerate(samplers)
    ]
    return Board("mine.py", 100, (Column("ksd", "drawn"),), tuple(rows))


# --- what is not said ---------------------------------------------------------------------------


def test_nothing_is_said_of_a_side_that_is_not_there():
    assert _misled([], known=False) == ""
    assert "No run looks good" in _misled([], known=True)
    made = board("hmc", "smc")
    assert made.unknown and _none_off(made) == ""
    said = " ".join(leaderboard([made]).split())
    assert "at the floor, as good as" not in said and "lead" not in said
    assert "Nobody has a place" in said and "`tiltbench reference mine.py` certifies" in said


def test_not_moving_wins_no_place():
    """A chain that never moved may have any ksd: scores without a truth place nobody."""
    cells = {"ksd": {"unmoved": cell(-50.0), "hmc": cell(0.1)}}
    cells["r_hat"] = {"hmc": cell(1.2)}
    assert judged(cells) == {}


# --- tables -------------------------------------------------------------------------------------


def rows_of(text, start):
    lines = [line for line in text.splitlines() if line.startswith(start)]
    return [[part.strip() for part in line.strip("|").split("|")] for line in lines]


def test_means_errors_and_quantiles_of_named_statistics():
    x = normal(4000, 2)
    (row,) = rows_of(unknown(Pair(), {"one": [plain(x)]}), "| `sum`")
    mean, rest = row[1].split(" ± ")
    error, quantiles = rest.split("<br>")
    y = x.sum(-1)
    assert float(mean) == pytest.approx(float(y.mean()), rel=0.01)
    assert float(error) == pytest.approx(float(y.std()) / math.sqrt(4000), rel=0.2)
    wanted = y.quantile(torch.tensor([0.05, 0.5, 0.95], dtype=y.dtype))
    assert [float(q) for q in quantiles.split(", ")] == pytest.approx(wanted.tolist(), abs=0.03)


def test_weights_carry_the_mean_and_seeds_that_disagree_widen_the_error():
    x = normal(20_000, 2)
    tilted = _seed(Draws(x, x[:, 0]), 2)  # to N(1, 1)
    (row,) = rows_of(unknown(Pair(), {"one": [tilted]}), "| `a`")
    mean, error = row[1].split("<br>")[0].split(" ± ")
    assert abs(float(mean) - 1) < 4 * float(error) < 0.2
    apart = [plain(normal(400, 2, seed=k) + 3 * k) for k in range(2)]
    (row,) = rows_of(unknown(Pair(), {"one": apart}), "| `a`")
    assert float(row[1].split("<br>")[0].split(" ± ")[1]) == pytest.approx(1.5, abs=0.5)


def test_the_error_of_a_mean_over_runs_by_hand():
    """sd / sqrt(n) of a sample of runs, or what they state themselves where that is more."""
    assert _error([1.0, 2.0, 4.0], [0.1, math.nan, 0.1]) == pytest.approx(math.sqrt(7 / 9))
    assert _error([1.0, 1.0, 1.0], [0.3, 0.0, 0.4]) == pytest.approx(0.5 / 3)
    assert _error([5.0], [0.3]) == 0.3


def test_distances_between_samplers():
    near = [plain(normal(300, 2, seed=k)) for k in range(3)]
    far = [plain(normal(300, 2, seed=9) + 4)]
    (one, two) = rows_of(unknown(Pair(), {"near": near, "far": far}).split("**How far")[1], "| `")
    assert abs(float(one[1])) < 0.05 and float(one[2]) > 3 and one[2] == two[1]
    assert two[2] == "–"  # one run


def test_draws_that_cannot_be_used_are_left_out():
    assert _seed(Draws(normal(5, 3)), 2) is None
    assert _seed(Draws(normal(5, 2) * math.nan), 2) is None
    assert _seed(Draws(normal(5, 2), torch.full((5,), -math.inf)), 2) is None
    half = normal(6, 2)
    half[::2] = math.inf
    assert len(_seed(Draws(half), 2).x) == 3
    assert unknown(Pair(), {}) == ""


# --- axes ---------------------------------------------------------------------------------------


def test_an_axis_is_set_by_the_usual_runs():
    g = np.random.default_rng(0)
    good = [g.normal(3, 1, 500) for _ in range(4)]
    wild = [g.normal(0, 1, 500) ** 2 * 60_000, np.full(500, 240_000.0), np.full(500, 3.2)]
    low, high = span([*good, *wild])
    assert -1 < low < 0.5 and 5.5 < high < 7
    heavy = np.concatenate([good[0], [-59_502.0, 240_000.0]])
    low, high = span([heavy])
    assert low > -12 and high < 18
    assert span([]) == (0.0, 1.0) and span([np.full(9, 2.0)]) == (2.0, 2.0)


def test_weights_are_shown_around_zero_only_where_log_Z_is_known():
    log_w = np.random.default_rng(0).normal(-147, 1, 500)
    low, high = window(log_w, np.empty(0), False)
    assert -152 < low < -149 and -146 < high < -143
    assert window(log_w, np.empty(0), True)[1] >= 0
