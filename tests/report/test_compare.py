"""What may be said of scores: bold, places, corrections for many comparisons."""

import math

import numpy as np

from tiltbench.report.compare import best


def made_cell(values, mean=math.nan, sd=math.nan, low=None):
    from tiltbench.report.compare import Cell, verdict

    middle = float(np.median(values))
    seen = verdict(middle, mean, sd)
    return Cell(middle, min(values), max(values), math.nan, mean, sd, seen,
                tuple(range(len(values))), tuple(values))  # fmt: skip


def test_bold_means_not_told_apart_from_the_best():

    noise = np.random.default_rng(0).normal(0, 0.1, 5)
    cells = {
        "a": made_cell(1.0 + noise),
        "b": made_cell(1.01 + noise[::-1]),
        "c": made_cell(3.0 + noise),
    }
    assert best(cells) == {"a", "b"}
    assert best({name: made_cell(c.merits[:3]) for name, c in cells.items()}) == set()


def test_scores_at_the_floor_tie_and_below_it_never_win():

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
