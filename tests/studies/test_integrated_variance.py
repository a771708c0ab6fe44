"""Integrated conditional variances: rules, closed forms, and what is measured against them."""

import math

import numpy as np
import pytest
import torch

from tests.tools.worlds import rng
from tiltbench.samplers.loss import reward_and_grad
from tiltbench.studies.common.regression import optimum, sigmas, targets
from tiltbench.studies.integrated_variance import claims, measured
from tiltbench.studies.integrated_variance.exact import eta, gaussian_variance, integral
from tiltbench.studies.integrated_variance.integrated import (
    Value,
    at_the_end,
    by_pairs,
    by_paths,
    gauss,
    on_gaussian,
    on_mixture,
    slope,
    trapezoid,
    value,
)
from tiltbench.studies.integrated_variance.lean_moment import (
    chain,
    exponential,
    halves,
    lean_moment,
)
from tiltbench.study import Verdict
from tiltbench.targets.bases.schedules import (
    Foellmer,
    RectifiedFlow,
    Trigonometric,
    VariancePreserving,
)
from tiltbench.targets.densities.gaussian import Gaussian
from tiltbench.targets.tilts.tilt_quadratic import TiltQuadratic

SCHEDULES = (RectifiedFlow(), VariancePreserving(), Trigonometric(), Foellmer())
MEAN, VAR = 1.2, 0.3
NORMAL = Gaussian(dim=1, mean=MEAN, std=math.sqrt(VAR))
CUTS = (0.1, 0.01, 0.001)
KNOTS = (*sorted(CUTS), 0.5, *(1 - c for c in CUTS))
NAMES = {"ids": lambda s: getattr(s, "name", None)}


def closed(loss, schedule, low, high):
    return integral(lambda t: gaussian_variance(loss, schedule, t, VAR, 1.0), low, high)


@pytest.mark.parametrize("rule", [gauss(KNOTS, 6), trapezoid(KNOTS, 0.02)], ids=["gauss", "line"])
def test_rules_integrate_powers_at_either_end(rule):
    t = rule.times
    for low, high in ((0.001, 0.5), (0.01, 0.99), (0.5, 0.999)):
        w = rule.over(low, high)
        assert w.sum() == pytest.approx(high - low, rel=2e-4)
        assert w @ t**-3 == pytest.approx((low**-2 - high**-2) / 2, rel=2e-4)
        assert w @ (1 / (1 - t)) == pytest.approx(math.log((1 - low) / (1 - high)), rel=2e-4)


@pytest.mark.parametrize("pull", measured.PULLS, ids=lambda p: p.name)
def test_the_pull_integrates_to_its_variance(pull):
    """int sigma^2 c^2 dt = s^2 (1 - alpha_0^2 s^2 / D_0)."""
    assert integral(pull.integrand) == pytest.approx(pull.expected, rel=1e-10)


def test_the_pull_integrates_to_one_less_the_memory():
    """math.md 7: int eta (alpha/D)^2 dt = .499978 for the linear-beta DDPM, nu_1 for Brownian."""
    by_name = {p.name: p.expected for p in measured.PULLS}
    ddpm = by_name["VariancePreserving(gamma_noise=20.0, gamma_data=0.1), s = 1"]
    assert ddpm / 2 == pytest.approx(0.499978, abs=5e-7)
    assert by_name["Brownian(steps=32, scale=2.0, ratio=5.0)"] == pytest.approx(4)
    checks = measured.identity(4_000)
    assert max(abs(c.sampled.z(c.pull.expected)) for c in checks) < 4


@pytest.mark.parametrize("loss,figures", [
    ("CSM", (0.0820, 1.846, 21.34)),
    ("TSM", (5978, 20.51, 0.0361)),
    ("NSM", (0.4356, 2.513, 0.0173)),
])  # fmt: skip
def test_the_variances_of_the_design_note(loss, figures):
    """math.md 11, rectified flow at t = .1, .5, .9, closed form and by pairs."""
    rule = trapezoid((0.1, 0.5, 0.9), 10.0)
    case = on_gaussian(NORMAL, RectifiedFlow(), 1.0, rule)
    variances = np.stack([by_pairs(case, 5_000, rng(i))[loss] for i in range(8)])
    for t, stated, column in zip(rule.times, figures, variances.T, strict=True):
        exact = gaussian_variance(loss, RectifiedFlow(), float(t), VAR, 1.0)
        assert exact == pytest.approx(stated, rel=3e-3)
        assert abs(value(column).z(exact)) < 4.5


@pytest.mark.parametrize("schedule", SCHEDULES, **NAMES)
def test_integrals_on_a_gaussian_are_the_closed_forms(schedule):
    rule, line = gauss(KNOTS, 6), trapezoid(KNOTS, 0.2)
    case = on_gaussian(NORMAL, schedule, 1.0, rule)
    runs = [by_pairs(case, 300, rng(i)) for i in range(12)]
    walked = on_gaussian(NORMAL, schedule, 1.0, line)
    paths = by_paths(walked, 12 * 300, rng(99)).reshape(-1, 12, 300).mean(-1).T
    for cut in CUTS:
        for loss in ("CSM", "TSM", "NSM", "AS"):
            mean = value(np.stack([r[loss] for r in runs]) @ rule.over(cut, 1 - cut))
            assert abs(mean.z(closed(loss, schedule, cut, 1 - cut))) < 4.5, (loss, cut)
        mean = value(paths @ line.over(cut, 1 - cut))
        assert abs(mean.z(closed("AM", schedule, cut, 1 - cut))) < 4.5, cut


@pytest.mark.parametrize("schedule", SCHEDULES, **NAMES)
def test_slopes_of_the_closed_form_are_those_claimed(schedule):
    """One-sided integrals between 1e-4 and 1e-5: 2 q to 1 % and the power of 1/delta to .002."""
    cuts = (1e-4, 1e-5)
    csm = np.array([[closed("CSM", schedule, 0.5, 1 - c) for c in cuts]] * 2)
    tsm = np.array([[closed("TSM", schedule, c, 0.5) for c in cuts]] * 2)
    assert slope(csm, cuts).mean == pytest.approx(2 * measured.HALF[schedule.name], rel=0.01)
    power = slope(np.log(tsm), cuts).mean
    assert power == pytest.approx(measured.EXPONENT[schedule.name], abs=0.002)
    # the size: I beta^2 / alpha^2 with I = 1 / tau^2
    size = schedule.noise_power(1e-5) / schedule.signal(1e-5) ** 2 / VAR
    assert tsm[0, -1] == pytest.approx(size, rel=2e-3)


def test_vp_is_not_yet_logarithmic_at_a_thousandth():
    cuts = (3e-3, 1e-3)
    csm = np.array([[closed("CSM", VariancePreserving(), 0.5, 1 - c) for c in cuts]] * 2)
    assert slope(csm, cuts).mean == pytest.approx(1.16, abs=0.02)


def test_the_integral_of_the_pulled_gradient_is_the_bound_less_twice_kl():
    kl = (VAR + MEAN**2 - 1 - math.log(VAR)) / 2
    bound = (1 / VAR - 1) ** 2 * VAR + MEAN**2
    for schedule in (RectifiedFlow(), Trigonometric(), Foellmer()):
        whole = integral(lambda t, s=schedule: gaussian_variance("NSM", s, t, VAR, 1.0))
        assert whole == pytest.approx(bound - 2 * kl, rel=1e-6)
    case = on_gaussian(NORMAL, RectifiedFlow(), 1.0, gauss(KNOTS, 2))
    ends = at_the_end(case, 2_000, 12, rng(3))
    expected = (1 / VAR, bound, bound - 2 * kl)
    assert all(abs(value(v).z(e)) < 4.5 for v, e in zip(ends, expected, strict=True))


@pytest.mark.parametrize("slopes", [halves, chain])
def test_the_lean_moment_of_a_gaussian_base(slopes):
    """E|a_t|^2 = c_t^2 E|grad r|^2: exact for a chain of Gaussian kernels, O(step^2) by halves."""
    normal = Gaussian(dim=2, mean=0.5, std=0.6)
    case = on_gaussian(normal, RectifiedFlow(), 1.0, trapezoid((0.1, 0.5, 0.999), 0.2))
    moment = lean_moment(case, 5.5, 48, slopes)
    power = 2 * (0.5**2 + 0.36 * (1 / 0.36 - 1) ** 2)
    t = np.array(case.base.times[1:-1])
    expected = (t / (t**2 + (1 - t) ** 2)) ** 2 * power
    assert np.allclose(moment, expected, rtol=2e-5 if slopes is chain else 0.02)


def test_the_exponential_of_a_symmetric_matrix():
    a, b, c = 0.3, -0.7, 1.1
    exact = torch.linalg.matrix_exp(torch.tensor([[a, b], [b, c]], dtype=torch.float64))
    result = exponential(torch.tensor([a, b, c], dtype=torch.float64))
    assert torch.allclose(result, torch.stack([exact[0, 0], exact[0, 1], exact[1, 1]]))


def test_the_lean_moment_of_a_mixture_base_is_that_of_its_paths():
    """At coarse steps, where means over paths have settled; t > .5."""
    rule = trapezoid((0.5, 0.7, 0.9, 0.99), 0.3)
    case = on_mixture(TiltQuadratic(), rule)
    exact = np.array(sigmas(case.base))[1:-1] ** 2 * lean_moment(case, 5.5, 56, chain)
    drift = np.mean([by_pairs(case, 2_000, rng(i))["u*"] for i in range(4)], 0)
    paths = by_paths(case, 8_000, rng(9)).reshape(-1, 16, 500).mean(-1)
    for at in (0, int(np.argmin(abs(rule.times - 0.7)))):
        assert abs(value(paths[at]).z(exact[at] - drift[at])) < 4.5


def test_the_mean_of_every_target_on_a_mixture_is_the_optimal_control():
    """E[(T - u*) . X_t] = 0: what makes E|T - u*|^2 a conditional variance."""
    case = on_mixture(TiltQuadratic(schedule=VariancePreserving()), trapezoid((0.5, 0.8), 10.0))
    x1 = case.truth.sample(20_000, rng(1))
    for k in (1, 2):
        x = case.base.renoise(x1, k, rng(k))
        u = optimum(case.base, case.noised_score, k, x)
        labels = targets(case.base, k, x, x1, reward_and_grad(case.problem, x1)[1])
        for loss in ("CSM", "TSM", "NSM"):
            product = ((labels[loss] - u) * x).sum(-1).reshape(20, -1).mean(-1).numpy()
            assert abs(product.mean()) < 4.5 * product.std() / math.sqrt(20)


def test_sigma_is_that_of_the_base():
    case = on_gaussian(NORMAL, Trigonometric(), 1.0, gauss(KNOTS, 2))
    expected = [math.sqrt(2 * eta(Trigonometric(), t)) for t in case.base.times[1:-1]]
    assert sigmas(case.base)[1:-1] == pytest.approx(expected, rel=1e-9)


def test_a_verdict_can_come_out_either_way():
    near, far, between = (Value(1.0 + d, 0.01) for d in (0.01, 0.5, 0.05))

    class Named:
        label = "case"

    for measured_value, verdict in ((near, "supported"), (far, "refuted"), (between, "open")):
        one = measured.Agreement([Named()], [measured_value], [1.0])
        assert claims.agreement("claim", one).verdict == Verdict(verdict)


def test_values_read_as_they_should():
    assert str(Value(1.23456, 0.0123)) == "1.235 ± 0.012"
    assert str(Value(123456.0, 789.0)) == "1.235e+05 ± 7.9e+02"
    assert str(Value(1.0, 0.0)) == "1.000000 ± 0.000000" and Value(1.0, 0.0).z(1.0) == 0
    assert value(np.array([1.0, 2.0, 3.0])).se == pytest.approx(1 / math.sqrt(3))
