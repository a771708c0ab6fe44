"""Coverage of intervals: what counts as held, and what smoothing of weights does."""

import math

import numpy as np
import pytest
import torch

from tests.tools.worlds import rng
from tiltbench.estimators import jarzynski
from tiltbench.plan.spec import build_target
from tiltbench.samplers.weights import Estimate
from tiltbench.studies.coverage.claims import within
from tiltbench.studies.coverage.measured import SIDES, MeasuredControl, Weights, covered, smoothed
from tiltbench.study import Verdict

LOG_Z = 0.6062365187503385  # of tilt_linear


def test_an_interval_without_an_end_is_none():
    errors = np.array([[0.1, 0.1], [0.3, 0.1], [9.0, math.nan], [9.0, math.inf]])
    coverage = covered(errors)
    assert coverage.value == 0.5 and coverage.n == 2
    assert covered(errors, np.array([True, False, False, False])).value == 1
    assert math.isnan(covered(errors[2:]).value)


def test_repetitions_of_gaussian_weights_cover_from_every_side():
    """log_w ~ N(log Z -+ sd^2/2, sd^2), and before they were .3 off."""
    xi = torch.randn(2, 60, 400, generator=rng(0), dtype=torch.float64)
    right = Weights(LOG_Z - 0.08 + 0.4 * xi[0], LOG_Z + 0.08 + 0.4 * xi[1])
    wrong = Weights(*(side + 0.3 for side in right))
    target = build_target({"name": "tilt_linear"})
    control = MeasuredControl("made up", "none", True, target, target.truth(), wrong, right)
    for side in SIDES:
        estimate = control.estimates[side]
        assert covered(estimate.before).value == 0 and covered(estimate.after).value > 0.85
        np.testing.assert_allclose(estimate.before[:, 0] - estimate.bare[:, 0], 0.3)
        if side != "Bennett":
            assert abs(estimate.smooth[:, 0].mean()) < 0.02 and np.median(estimate.k) < 0.6


def test_smoothing_leaves_light_tails_nearly_alone_and_tames_heavy_ones():
    light = 0.2 * torch.randn(2_000, generator=rng(1), dtype=torch.float64) + 7
    assert smoothed(light).value == pytest.approx(jarzynski(light).value, abs=1e-3)
    assert smoothed(light).se == pytest.approx(jarzynski(light).se, rel=0.05)
    heavy = -0.6 * torch.rand(2_000, generator=rng(2), dtype=torch.float64).log()
    heavy[0] = heavy.max() + 3  # one weight beyond the tail
    assert smoothed(heavy).value < jarzynski(heavy).value


def test_the_verdict_on_a_band_leaves_room_for_the_error():
    def cases(*values):
        return [("a", Estimate(value, 0.015, 200)) for value in values]

    assert within(cases(0.93, 0.97)) is Verdict.SUPPORTED
    assert within(cases(0.93, 0.91)) is Verdict.OPEN
    assert within(cases(0.93, 0.5)) is Verdict.REFUTED
    assert within([]) is Verdict.OPEN
