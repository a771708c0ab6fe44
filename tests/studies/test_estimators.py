"""Study `estimators`: its repetitions, coverage and claims on Gaussian work, and its prices."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import expit
from scipy.stats import norm

from tiltbench.plan.spec import build_sampler, build_target, parse
from tiltbench.run.meter import Meter
from tiltbench.samplers.weights import Estimate
from tiltbench.studies.common.trained import trained
from tiltbench.studies.convergence import study as convergence
from tiltbench.studies.estimators import claims, measured
from tiltbench.studies.estimators import study as estimators
from tiltbench.studies.estimators.repeated import (
    DIRECTIONS,
    Repeated,
    bias,
    coverage,
    jensen,
    order,
    repeat,
    rmse,
    sd,
)
from tiltbench.study import Verdict
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import pose

LOG_Z, SPREAD = 0.7, 0.7
RELATIVE = math.expm1(SPREAD**2)  # Var w / (E w)^2
CALLS = (50, 200)


@pytest.fixture(scope="module")
def pools():
    """Gaussian work of spread s obeys Crooks: log_w ~ N(log Z -+ s^2/2, s^2)."""
    g = torch.Generator().manual_seed(4)
    xi = SPREAD * torch.randn(2, 300, max(CALLS), generator=g, dtype=torch.float64)
    return LOG_Z - SPREAD**2 / 2 + xi[0], LOG_Z + SPREAD**2 / 2 + xi[1]


@pytest.fixture(scope="module")
def repeated(pools):
    return {
        name: [repeat(d, *pools, d.paths(calls, (1, 1))) for calls in CALLS]
        for name, d in DIRECTIONS.items()
    }


def z(estimate, aim):
    return abs(estimate.value - aim) / estimate.se


@pytest.mark.parametrize(("name", "sign"), [("forward", 1), ("reverse", -1)])
def test_one_sided_estimates_have_the_bias_and_sd_of_theory(repeated, name, sign):
    for n, each in zip(CALLS, repeated[name], strict=True):
        first = -sign * RELATIVE / (2 * n)
        assert z(bias(each, LOG_Z), first) < 4
        # the sd of exp(v) is exact; the second orders are of relative size RELATIVE / n
        gap = jensen(each.value, sign)
        assert abs(gap.value - first) < 4 * gap.se + 3 / n * abs(first)
        assert gap.se < bias(each, LOG_Z).se / 5
        assert z(sd(each), math.sqrt(RELATIVE / n)) < 4
        assert rmse(each, LOG_Z).value == pytest.approx(
            math.hypot(bias(each, LOG_Z).value, sd(each).value)
        )


def test_bennett_has_the_sd_of_theory_and_no_bias(repeated):
    """I = n / 2 E_forward f (1 - f) + m / 2 ..., and both sides add the same."""
    share = quad(lambda a: norm.pdf(a, -(SPREAD**2) / 2, SPREAD) * expit(a) * expit(-a), -10, 10)[0]
    for n, each in zip(CALLS, repeated["Bennett"], strict=True):
        assert z(sd(each), math.sqrt((1 / share - 4) / n)) < 4
        assert z(bias(each, LOG_Z), 0) < 4


def test_intervals_of_the_true_error_cover_95_percent(repeated):
    for each in repeated.values():
        assert z(coverage(each[-1], LOG_Z), 0.95) < 4
    half = [coverage(e[-1]._replace(se=e[-1].se / 2), LOG_Z) for e in repeated.values()]
    assert all(z(c, 2 * norm.cdf(0.98) - 1) < 4 for c in half)


def test_an_endless_interval_covers_nothing():
    c = coverage(Repeated(np.zeros(100), np.full(100, math.inf)), 0.0)
    assert c.value == 0 and 0 < c.se < 0.02


def test_the_order_is_that_of_the_data():
    n = np.array([10, 40, 160])
    slope = order(n, [Estimate(-3 / k, 0.01 / k, 1) for k in n])
    assert slope.value == pytest.approx(-1) and 0 < slope.se < 0.01


def test_the_limit_is_the_constant_of_the_fit():
    errors = [Estimate(0.3 - 2 / k + 5 / k**2, 0.01 / k, 1) for k in convergence.STEPS]
    limit = convergence.limit_of(errors)
    assert limit.value == pytest.approx(0.3) and 0 < limit.se < 0.01


def result(repeated, direction, shrink=1.0, offset=0.0):
    quality = 1 / (1 + RELATIVE)  # the ESS of Gaussian work
    each = [Repeated(f.value + offset, f.se * shrink) for f in repeated[direction]]
    limit = Estimate(LOG_Z + offset, 1e-3, 1)
    return measured.Result(
        "toy", "trained", "toy", direction, False, LOG_Z, limit, quality, list(CALLS), each
    )


def test_claims_follow_the_data(repeated):
    sound = [result(repeated, d) for d in DIRECTIONS]
    assert claims.jensen_bias(measured.jensens(sound)).verdict == Verdict.SUPPORTED
    assert claims.square_root_law(measured.scattered(sound)).verdict == Verdict.SUPPORTED
    assert claims.covers_truth(sound).verdict == Verdict.SUPPORTED
    assert claims.honest(sound, -1, "").verdict == Verdict.SUPPORTED
    assert claims.no_larger_rmse("", measured.bennett(sound)).verdict != Verdict.REFUTED
    biased = [result(repeated, d, offset=0.5 * (d == "Bennett")) for d in DIRECTIONS]
    assert claims.no_larger_rmse("", measured.bennett(biased)).verdict == Verdict.REFUTED
    timid = [result(repeated, d, shrink=0.5) for d in DIRECTIONS]
    assert claims.honest(timid, -1, "").verdict == Verdict.REFUTED
    shifted = [result(repeated, d, offset=0.5) for d in DIRECTIONS]
    assert claims.honest(shifted, -1, "").verdict == Verdict.SUPPORTED
    assert claims.covers_truth(shifted).verdict == Verdict.REFUTED
    boasting = [replace(r, quality=0.95) for r in sound]
    assert claims.jensen_bias(measured.jensens(boasting)).verdict == Verdict.REFUTED


@pytest.mark.parametrize("family", range(3))
def test_calls_are_equal_in_fact(monkeypatch, family):
    """What a second meter counts is what was to be spent, but for a part of a path a side."""
    monkeypatch.setattr(estimators, "REPETITIONS", 2)
    monkeypatch.setattr(estimators, "CALLS", (40, 80))
    target = build_target(parse("gaussian"))
    chosen = estimators.SETTINGS[0].families[family]
    sides = estimators.pools_of(target, chosen, 0, "cpu")
    price = sides[0].price.calls, sides[1].price.calls
    assert price == ((1, 1) if family == 0 else (18, 18))  # K + 1 points, and r once more
    sampler = build_sampler(parse(chosen.sampler))
    state = trained(target, sampler, 0, "cpu")
    for direction in DIRECTIONS.values():
        n, m = direction.paths(80, price)
        assert sides[0].log_w.shape[1] >= n and sides[1].log_w.shape[1] >= m
        meter = Meter(Cost(10**6, 10**6))
        problem, g = pose(target, sampler.reference, meter.watch), torch.Generator().manual_seed(0)
        sampler.draw(problem, state, n, g) if n else None
        sampler.reverse(problem, state, target.truth().sample(m, g), g) if m else None
        assert 80 - 2 * max(price) < meter.spent.calls <= 80
