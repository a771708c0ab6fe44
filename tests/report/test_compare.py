"""What may be said of scores: bold, places, corrections for many comparisons."""

import math

import numpy as np

from tiltbench.report.compare import best


def score_summary(values, mean=math.nan, sd=math.nan, low=None):
    from tiltbench.report.compare import ScoreSummary, floor_status

    middle = float(np.median(values))
    seen = floor_status(middle, mean, sd)
    return ScoreSummary(middle, min(values), max(values), math.nan, mean, sd, seen,
                tuple(range(len(values))), tuple(values))  # fmt: skip


def test_bold_means_not_significantly_different_from_the_best():

    noise = np.random.default_rng(0).normal(0, 0.1, 5)
    cells = {
        "a": score_summary(1.0 + noise),
        "b": score_summary(1.01 + noise[::-1]),
        "c": score_summary(3.0 + noise),
    }
    assert best(cells) == {"a", "b"}
    assert best({name: score_summary(c.merits[:3]) for name, c in cells.items()}) == set()


def test_scores_at_the_floor_tie_and_below_it_never_win():

    cells = {
        "at": score_summary([1.0, 1.1, 0.9, 1.0, 1.05], 1.0, 0.1),
        "at too": score_summary([1.15, 1.2, 1.1, 1.15, 1.1], 1.0, 0.1),
        "above": score_summary([1.3, 1.31, 1.3, 1.3, 1.3], 1.0, 0.1),
        "below": score_summary([0.5, 0.5, 0.5, 0.5, 0.5], 1.0, 0.1),
    }
    assert best(cells) == {"at", "at too"}
    del cells["at"], cells["at too"]
    few = score_summary([1.25] * 5, 1.0, 0.1)._replace(few=True)  # of fewer draws than the others
    assert best({**cells, "few": few}) == {"above"}


def test_holm_corrects_for_the_number_of_comparisons():
    from tiltbench.report.compare import holm

    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == {"a"}
    assert holm({"a": 0.01, "b": 0.02, "c": 0.04}) == {"a", "b", "c"}
    assert holm({"a": 0.04, "b": 0.04}) == set()


def test_holm_with_paired_t_is_wrong_at_most_as_often_as_stated():
    """Four samplers of one law: how often is any significantly different from the best
    of five seeds?  Choosing the best by the data costs something; the rate stays near the level."""

    rng = np.random.default_rng(1)
    wrong = 0
    for _ in range(300):
        table = rng.normal(0, 1, (4, 5))
        wrong += len(best({str(i): score_summary(row) for i, row in enumerate(table)})) < 4
    assert wrong / 300 < 0.12
