"""The rule of ranks, on scores made up: the worst score decides, and no score hides another."""

import math

import pytest
from pandas import DataFrame

from tests.report.test_compare import score_summary
from tests.tools.result_sets import put
from tiltbench.plan.suite import UNTRAINED
from tiltbench.records.record import UNPAID
from tiltbench.report.board import boards
from tiltbench.report.compare import FloorStatus
from tiltbench.report.frame import collect
from tiltbench.report.ranks import (
    GROUPS,
    Judged,
    Off,
    behind,
    beyond,
    broken_seeds,
    edge_of_log_Z,
    equal_spend,
    judged,
    off,
    orders,
    worst_of_curve,
)
from tiltbench.report.tables.latex import latex
from tiltbench.report.tables.markdown import markdown

NAN = math.nan


# one scale


def test_doublings_beyond_the_edge():
    assert [beyond(x, 2.0) for x in (0.0, 2.0, 4.0, 32.0, math.inf)] == [0, 0, 1, 4, math.inf]
    assert off(score_summary([3.0], 1.0, 0.25), "mode_tv", 0.25) == 2  # (3 - 1) / .5
    assert off(score_summary([-1.0], 1.0, 0.25), "mode_tv", 0.25) == 2, "below counts like above"
    assert off(score_summary([3.0], 1.0, 0.25), "energy_distance", 0.25) == 1, (
        "a square counts half"
    )
    assert off(score_summary([-1.0, 3.0, 1.0], 1.0, 0.25), "mode_tv", 0.25) == 2, (
        "seeds do not cancel"
    )
    assert math.isnan(off(score_summary([3.0]), "mode_tv", NAN))
    assert math.isnan(off(score_summary([3.0], 1.0, 0.0), "mode_tv", 0.0)), "a floor without spread"
    unfit = score_summary([9.0], 1.0, 0.25)._replace(status=FloorStatus.UNFIT)
    assert math.isnan(off(unfit, "w2", 0.25))


def test_a_wide_bar_excuses_no_more_than_a_nat():
    assert [edge_of_log_Z(se) for se in (0.0, 0.2, 3.0, math.inf, NAN)] == [0.1, 0.4, 1, 1, 0.1]
    cell = score_summary([-8.0, 8.0])._replace(
        merits=(8.0, 8.0)
    )  # |error| by seed; the median is 0
    assert off(cell._replace(se=0.01), "log_Z_err", NAN) == pytest.approx(math.log2(80))
    assert off(cell._replace(se=1e9), "log_Z_err", NAN) == 3


def test_fewer_draws_count_as_the_edge_of_their_wider_floor():
    few = score_summary([0.02], 0.03, 0.05)._replace(few=True)
    assert off(few, "mode_tv", 0.0125) == 2  # 2 * .05 over 2 * .0125


def test_draws_that_are_no_numbers_are_infinitely_far_off():
    cell = score_summary([0.01, 0.01], 0.0, 0.01)
    assert off(cell, "mode_tv", 0.01, broken=1) == 0 and off(cell, "mode_tv", 0.01, 3) == math.inf
    cells = {"energy_w2": {"fine": cell}, "log_Z_err": {"fine": score_summary([0.0])}}
    judgements = judged(cells, {("energy_w2", "lost"): 2, ("log_Z_err", "void"): 3})
    assert (
        judgements["fine"].level
        and judgements["lost"].doublings == math.inf == judgements["void"].doublings
    )
    assert judgements["lost"].lacking == ("log Z",) and judgements["void"].lacking == ("energies",)


def test_reasons_in_records_say_what_is_broken():
    rows = [
        ("energy_w2", "a", NAN, "3 of 40 draws have zero density: their energy is infinite"),
        ("log_Z_err", "a", NAN, "2 of 40 log-weights are NaN or +inf"),
        ("log_Z_rev_err", "a", NAN, "the estimate is -inf: a weight that must be positive is zero"),
        ("log_Z_err", "b", NAN, "the method gives no weights"),
        ("mode_tv", "b", 0.1, ""),
        ("ess_model", "b", NAN, "40 of 40 log-weights are NaN or +inf"),  # no score of a rank
    ]
    broken = broken_seeds(DataFrame(rows, columns=["metric", "sampler", "value", "reason"]))
    assert set(broken) == {(m, "a") for m in ("energy_w2", "log_Z_err", "log_Z_rev_err")}


def test_the_worst_group_decides_and_what_is_lacking_is_said():
    cells = {
        "energy_distance": {
            "near": score_summary([0.0], 0.0, 1.0),
            "far": score_summary([8.0], 0.0, 1.0),
        },
        "energy_w2": {
            "near": score_summary([512.0], 0.0, 1.0),
            "far": score_summary([0.0], 0.0, 1.0),
        },
        "log_Z_err": {"near": score_summary([27.0])},
        "log_Z_own_err": {"near": score_summary([1e9]), "far": score_summary([0.2])},
    }
    judgements = judged(cells)
    assert judgements["near"].worst == Off("log Z", "log_Z_err", math.log2(270))
    assert "log_Z_own_err" not in [o.metric for o in judgements["near"].scores]
    assert judgements["far"].worst == Off("distance", "energy_distance", 1.0)
    assert judgements["far"].of("log Z") == Off("log Z", "log_Z_own_err", 1.0)
    assert judgements["near"].lacking == judgements["far"].lacking == ()
    assert judged({"mmd": {"x": score_summary([1.0], 0.0, 0.1)}}) == {}
    del cells["log_Z_own_err"]["far"]
    assert judged(cells)["far"].lacking == ("log Z",)


# ranks


def scored(**doublings):
    return {name: Judged((Off("distance", "w2", d),), ()) for name, d in doublings.items()}


def runs_of(names, values=1000, trained=True, **more):
    """A budget of 1,000 calls; "free" takes no gradients."""
    rows = []
    for name in names:
        row = {"id": name, "sampler": name, "finished": True, "budget": 1000}
        row |= {"trained": trained or name != "free", "values": values, "flops": NAN}
        row |= {"grads": 0 if name == "free" else values, "parameters": 0}
        rows.append({**row, **more.get(name, {})})
    return DataFrame(rows)


def curve(last, middle):
    return {"spend": [10, 500, 1000], "flops": [1e6, 5e7, 1e8], "distance": [9.0, middle, last],
            "log_Z_err": [None] * 3, "metric": "w2",
            "floor": {"mean": 0.0, "sd": 0.5, "n": 50}}  # fmt: skip


def ranks(judgements, curves, **options):
    order_by_name = orders(runs_of(judgements, **options), judgements, curves)
    return {name: (order.rank, order.priced) for name, order in order_by_name.items()}


def test_an_equal_cost_moves_methods_that_pay_for_gradients():
    judgements = scored(free=3.0, paid=2.0, floor=0.0, late=0.0)
    curves = {"paid": curve(4, 16), "floor": curve(0.1, 0.5), "late": curve(0.1, 64)}
    assert ranks(judgements, curves) == {
        "free": (4, 2),
        "paid": (3, 3),
        "floor": (1, 1),
        "late": (1, 4),
    }
    assert ranks(judgements, {}, values=500) == {
        **{"free": (4, 4), "paid": (3, 3), "floor": (1, 1), "late": (1, 1)}
    }
    assert ranks(judgements, {})["paid"] == (3, None)  # its cost is too high, and there is no curve
    pair = scored(free=1.0, paid=2.0)
    assert ranks(pair, {"paid": curve(9, 1)})["paid"] == (2, 2)  # a curve that rises is no gain


def test_at_equal_calls_and_compute_everybody_is_read_where_the_least_learned_one_ends():
    """ "slow" learns 500 calls and 1e8 flops long, "lean" 1,000 calls and 5e7 flops."""
    judgements = scored(slow=3.0, lean=2.0, classic=1.0, near=1.5)
    more = {
        "slow": {"values": 500, "grads": 0, "flops": 1e8, "parameters": 9},
        "lean": {"grads": 0, "flops": 5e7, "parameters": 9},
        "classic": {"grads": 0, "flops": 0.0},
        "near": {"values": 520, "grads": 0, "flops": NAN},  # within 5 % of 500
    }
    curves = {"slow": curve(8, 32), "lean": curve(4, 32)}
    order = orders(runs_of(judgements, **more), judgements, curves)
    assert [order[n].rank for n in judgements] == [4, 3, 1, 2]
    assert [order[n].calls for n in judgements] == [
        2,
        3,
        None,
        1,
    ]  # lean: 2 + 3 doublings at 500 calls
    assert [order[n].compute for n in judgements] == [3, 2, 1, None]  # slow: 3 + 2 doublings at 5e7
    assert any("equal calls" in why for why in order["classic"].why)
    assert any("equal compute" in why for why in order["near"].why) and not order["slow"].why
    runs = runs_of(judgements, **more)
    assert (equal_spend(runs, "calls"), equal_spend(runs, "flops")) == (500, 5e7)


def test_records_without_flops_and_tables_without_learning_have_no_such_rank():
    judgements = scored(a=1.0, b=2.0)
    old = orders(runs_of(judgements, a={"parameters": 9}), judgements, {})
    assert [(o.calls, o.compute) for o in old.values()] == [(1, None), (2, None)]
    plain = orders(runs_of(judgements), judgements, {})
    assert all((o.calls, o.compute) == (None, None) for o in plain.values())
    assert all("equal" not in why for o in plain.values() for why in o.why)
    unfinished = runs_of(judgements, a={"parameters": 9, "finished": False})
    assert math.isnan(equal_spend(unfinished, "calls"))


@pytest.mark.parametrize("note", [UNPAID, "the allowance did not pay for a single step"])
def test_a_record_says_that_training_did_not_begin(tmp_path, note):
    """In the words of `run`, and in those of records of version 0.1."""
    put(tmp_path, "free", 0, {}, notes=[note])
    put(tmp_path, "paid", 0, {}, notes=["something else"])
    runs = collect(tmp_path).runs
    assert dict(zip(runs["sampler"], runs["trained"], strict=True)) == {"free": False, "paid": True}


def test_a_method_that_never_trained_or_has_no_score_has_no_rank():
    judgements = scored(free=0.5, paid=2.0)
    assert ranks(judgements, {}, trained=False, values=500) == {
        "free": (None, None),
        "paid": (1, 1),
    }
    (order,) = orders(runs_of(["x"]), {}, {}).values()
    assert order.rank is None and order.why == ("no score to go by",)


def test_the_worst_score_of_a_curve():
    energies = {"energy_w2": [None, 8.0, 1.0], "floor_energy_w2": {"mean": 0.0, "sd": 1.0}}
    log_Z = {"log_Z_err": [-6.4, None, 0.05], "log_Z_se": [0.05, None, None]}
    worst = worst_of_curve({**curve(1, 2), **energies, **log_Z})
    assert worst == [pytest.approx(6.0), 2.0, 0.0]
    squared = {**curve(1, 4), "metric": "energy_distance"}
    assert worst_of_curve(squared)[1:] == [1.0, 0.0]


# beside the base


def test_what_is_not_better_than_the_base_is_marked():
    law = GROUPS["distance"][0]

    def two(by_law, energies):
        return Judged((Off("distance", law, by_law), Off("energies", "energy_w2", energies)), ())

    judgements = {"base": two(1.0, 4.0), "better": two(0.5, 3.0), "worse": two(0.5, 5.0),
             "blob": two(2.0, 3.0), "level": two(0.0, 0.0)}  # fmt: skip
    marks = behind(judgements, "base")
    assert set(marks) == {"worse", "blob"}
    assert marks["worse"] == "in its worst score (energy_w2 32× against energy_w2 16×)"
    assert marks["blob"] == f"in distance ({law} 4.0× against {law} 2.0×)"
    assert behind(judgements, None) == {}
    assert behind({name: two(0.0, 0.0) for name in ("base", "x")}, "base") == {}


FLOOR = {"mean": 0.01, "sd": 0.005, "n": 40, "unfit": False}


def test_every_form_of_the_table_shows_the_mark_the_base_and_the_exact_draws(tmp_path):
    base = {"name": UNTRAINED, "params": {"reference": {"name": "Brownian", "params": {}}}}
    put(tmp_path, UNTRAINED, 0, {"w2": (0.2, FLOOR)}, made_by=base)
    put(tmp_path, "moved", 0, {"w2": (0.1, FLOOR)}, train_flops=2e9, ended_by="flops")
    put(tmp_path, "harmed", 0, {"w2": (0.9, FLOOR)})
    frames = collect(tmp_path)
    (board,) = boards(frames)
    assert {row.sampler for row in board.rows if row.behind} == {"harmed"}
    table = markdown(frames, [board], tmp_path)
    assert "| `harmed` ✗ | 3 |" in table and "| `untrained` | 2 |" in table
    assert "- ✗ not better than the untrained base: `harmed` (in its worst score (w2 89×" in table
    assert "| *noise floor* |" in table and "| 2e+09 |" in table and "| training: FLOP |" in table
    assert r"\texttt{harmed}$^\times$" in latex("x", [board])
    assert "noise floor" in latex("x", [board])


def test_a_worse_distance_is_marked_beside_a_better_one():
    """The energy distance of a method is worse than that of the base, its w2 better."""
    base = Judged((Off("distance", "energy_distance", 1.0), Off("distance", "w2", 3.0)), ())
    mine = Judged((Off("distance", "energy_distance", 1.1), Off("distance", "w2", 2.0)), ())
    marks = behind({"base": base, "mine": mine}, "base")
    assert marks == {"mine": "in distance (energy_distance 2.1× against energy_distance 2.0×)"}
