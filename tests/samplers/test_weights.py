"""Tempering and resampling by log-weights."""

import pytest
import torch

from tests.tools.worlds import rng
from tiltbench.samplers.weights import ess, resample, temper
from tiltbench.targets.checks import Checks


def log_weights(n=300, spread=3.0):
    return spread * torch.randn(n, generator=rng(1), dtype=torch.float64)


@pytest.mark.parametrize("least", [0.2, 0.5, 0.9])
def test_weights_are_tempered_to_the_size_asked_for(least):
    """By nothing but their differences: log Z may be thousands of nats."""
    log_w = log_weights()
    beta = temper(log_w, least)
    assert 0 < beta < 1 and ess(beta * log_w) == pytest.approx(least, abs=1e-9)
    for shift in (1e3, -1e3):
        assert torch.allclose(temper(log_w + shift, least), beta, rtol=1e-9)
    assert temper(log_w, least, most=float(beta) / 2) == pytest.approx(float(beta) / 2)
    none = torch.full((5,), -torch.inf)
    assert temper(none, least) == 0
    one = torch.where(torch.arange(300) < 150, log_w, -torch.inf)  # half the weights are zero
    assert temper(one, 0.9) == 0 and temper(one, 0.4) > 0


def test_every_index_is_drawn_as_often_as_it_weighs_to_a_whole_number():
    log_w = log_weights(20, 1.0) + 500
    count = torch.bincount(resample(log_w, 1000, rng(2)), minlength=20)
    assert (count - 1000 * torch.softmax(log_w, 0)).abs().max() < 1


def test_nothing_is_resampled_from_no_weight():
    none, checks = torch.full((5,), -torch.inf), Checks()
    for seen in (None, checks):
        with pytest.raises(ValueError, match="nothing to resample from"):
            resample(none, 3, rng(), seen)
    reached = False
    with pytest.raises(ValueError, match="nothing to resample from"), checks.together():
        resample(none, 3, rng(), checks)
        reached = True
    assert reached  # told at the end, in the one read
