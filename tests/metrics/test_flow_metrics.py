"""The law of a flow: closed forms, what estimated divergences spoil, and real runs."""

import math

import pytest
import torch

from tests.tools.worlds import rng
from tiltbench import api
from tiltbench.metric import Outcome, Unknown
from tiltbench.metrics.flow import (
    NOISIEST,
    nll,
    ode_ess,
    ode_evaluations,
    ode_kl,
    ode_log_Z_err,
)
from tiltbench.records.record import read_outcome
from tiltbench.run.phases import run_cell
from tiltbench.samplers.sampler import Draws
from tiltbench.targets.target import Truth

LOG_Z = 0.7
TRUTH = Truth("closed form", log_Z=LOG_Z)


def outcome(shift, noise=0.0, n=4000):
    """q = N(shift, 1), p* = N(0, 1): ess exp(-shift^2), KL shift^2 / 2."""
    own = shift + torch.randn(n, generator=rng(), dtype=torch.float64)
    exact = torch.randn(n, generator=rng(1), dtype=torch.float64)

    def log_normal(x, mean):
        return -(x - mean).square() / 2 - math.log(2 * math.pi) / 2

    def log_w(x):
        return LOG_Z + log_normal(x, 0.0) - log_normal(x, shift)

    probes = {
        "ode_log_q": log_normal(exact, shift),
        "ode_log_w": log_w(own),
        "ode_log_w_exact": log_w(exact),
        "ode_noise": torch.full_like(own, noise),
        "ode_evaluations": torch.tensor(212),
    }
    return Outcome(Draws(own[:, None]), None, probes)


@pytest.mark.parametrize(
    "metric, exact",
    [
        (nll, lambda s: math.log(2 * math.pi) / 2 + (1 + s * s) / 2),
        (ode_kl, lambda s: s * s / 2),
        (ode_ess, lambda s: math.exp(-s * s)),
        (ode_log_Z_err, lambda s: 0.0),
        (ode_evaluations, lambda s: 212),
    ],
    ids=lambda m: getattr(m, "name", ""),
)
def test_two_gaussians(metric, exact):
    estimate = metric.fn(None, TRUTH, outcome(0.5), rng())
    assert abs(estimate.value - exact(0.5)) < 3.5 * estimate.se + 1e-9
    assert estimate.se < 0.05


def test_weights_of_an_estimated_divergence_are_refused_and_its_mean_is_not():
    noisy = outcome(0.5, noise=2 * NOISIEST)
    for metric in (ode_ess, ode_log_Z_err):
        with pytest.raises(Unknown, match="log q has a variance of 0.1 by its directions"):
            metric.fn(None, TRUTH, noisy, rng())
        metric.fn(None, TRUTH, outcome(0.5, noise=NOISIEST / 2), rng())
    assert nll.fn(None, TRUTH, noisy, rng()) == nll.fn(None, TRUTH, outcome(0.5), rng())


def test_a_run_measures_its_flow_where_that_is_asked_for(tmp_path):
    """The base as it is: q is p_base, and the weights of its draws are exp r."""
    given = ("tilt_linear[steps=10]", "untrained", 500)
    bare, asked = api.cell(*given, draws=30), api.cell(*given, draws=30, ode=20)
    assert not read_outcome(tmp_path, run_cell(bare, tmp_path).id).probes
    record = run_cell(asked, tmp_path)
    probes = read_outcome(tmp_path, record.id).probes
    assert len(probes["ode_log_w"]) == len(probes["ode_log_q"]) == 20
    assert record.cost["ode_flops"] > 0 and not record.cost["notes"]
    spent = [run.cost["measure"][0] for run in (record, run_cell(bare, tmp_path))]
    assert spent[0] - spent[1] == 40  # a value a draw, and one for each exact one
