"""Conditional variances of regression targets: closed forms, both estimators, u* by quadrature."""

import math

import pytest
import torch
from pandas import DataFrame

from tests.tools.worlds import rng
from tiltbench.samplers.losses._matching import target
from tiltbench.samplers.losses.conditional_score_matching import conditional
from tiltbench.samplers.losses.novel_score_matching import novel
from tiltbench.samplers.losses.target_score_matching import from_target
from tiltbench.studies.common.regression import sigmas, targets
from tiltbench.studies.conditional_variance import claims
from tiltbench.studies.conditional_variance.conditional import (
    LOSSES,
    closed_forms,
    under_control,
    under_optimum,
)
from tiltbench.studies.conditional_variance.noised import (
    World,
    gaussian,
    gmm9,
    many_well,
    product_score,
    slope,
    tilt,
)
from tiltbench.studies.conditional_variance.study import brief
from tiltbench.study import Verdict
from tiltbench.targets.bases.mixture_flow import MixtureFlow
from tiltbench.targets.bases.noising import pick
from tiltbench.targets.bases.optimal import Optimal
from tiltbench.targets.bases.process import Controlled
from tiltbench.targets.bases.references import Brownian
from tiltbench.targets.bases.schedules import Foellmer, RectifiedFlow, VariancePreserving
from tiltbench.targets.densities._tabulated import tabulate
from tiltbench.targets.problem import Problem

TIMES = (0.1, 0.5, 0.9)
schedules = pytest.mark.parametrize(
    "schedule", [RectifiedFlow(), VariancePreserving(), Foellmer()], ids=lambda s: s.name
)


class Idle(Controlled):
    """u = 0."""

    def control(self, x, t, hint=None):
        return torch.zeros_like(x)


def normal_world(schedule, tau2, s2, mean=1.2, steps=10):
    """N(mean, tau2) on the interpolant of N(0, s2)."""
    base = MixtureFlow((1.0,), ((0.0,),), (s2,), schedule, steps=steps)
    std = math.sqrt(tau2)

    def draw(n, source):
        return mean + std * torch.randn(n, 1, generator=source, dtype=torch.float64)

    def score(x, alpha, beta):
        return (alpha * mean - x) / (alpha**2 * tau2 + beta**2)

    problem = Problem(
        1, base, lambda x: -(x[..., 0] - mean).square() / (2 * tau2) - base.log_end(x)
    )
    return World(problem, base, draw, score, None)


def worst(variances, expected):
    """The largest |z| of Estimates against numbers, or Estimates, of the same keys."""
    zs = []
    for key, one in variances.items():
        other = expected[key]
        value, se = (other, 0.0) if isinstance(other, float) else (other.value, other.se)
        zs.append(abs(one.value - value) / math.hypot(one.se, se))
    return max(zs)


def exact(world, tau2, law):
    return {(loss, t): closed_forms(world, t, tau2, law)[loss] for loss in LOSSES for t in TIMES}


@schedules
@pytest.mark.parametrize("s2", [1.0, 2.5])
def test_variances_under_p_star_are_the_closed_forms(schedule, s2):
    world = normal_world(schedule, 0.3, s2)
    variances = under_optimum(world, TIMES, 20_000, rng(0))
    assert worst(variances, exact(world, 0.3, 0.3)) < 4
    assert all(e.se < 0.02 * e.value for e in variances.values())


def test_the_figures_of_math_md_11_come_out():
    stated = {
        "CSM": (0.0820, 1.846, 21.34),
        "TSM": (5978, 20.51, 0.0361),
        "NSM": (0.4356, 2.513, 0.0173),
    }
    world = gaussian(RectifiedFlow(), 10)
    for loss, values in stated.items():
        for t, value in zip(TIMES, values, strict=True):
            assert closed_forms(world, t, 0.3, 0.3)[loss] == pytest.approx(value, rel=3e-3)
    assert worst(under_optimum(world, TIMES, 20_000, rng(3)), exact(world, 0.3, 0.3)) < 4


@schedules
def test_twins_of_the_uncontrolled_chain_have_the_closed_forms_of_its_law(schedule):
    world = normal_world(schedule, 0.3, 1.5)
    variances = under_control(world, Idle(), TIMES, 20_000, rng(1))
    assert worst(variances, exact(world, 0.3, 1.5)) < 4


def test_twins_under_a_linear_optimum_are_exact_at_any_step():
    """r linear on a Gaussian base: the controlled chain is P* itself at K = 10."""
    world = normal_world(RectifiedFlow(), 1.0, 1.0)
    optimal = Optimal(world.base, lambda x, a, b: world.noised_score(x, a[..., None], b[..., None]))
    variances = under_control(world, optimal, TIMES, 20_000, rng(2))
    known = exact(world, 1.0, 1.0)
    score_matching = {key: e for key, e in variances.items() if key[0] in ("CSM", "TSM")}
    assert worst(score_matching, known) < 4
    assert max(e.value for key, e in variances.items() if key not in score_matching) < 1e-9


@pytest.mark.parametrize(
    ("name", "times", "losses"),
    [
        ("tilt_linear", (0.1, 0.5), {"CSM", "TSM", "NSM"}),  # CSM is 2.6 times that of u = 0
        ("tilt_quadratic", (0.9,), {"CSM", "TSM", "NSM", "AM"}),  # where AM has no heavy tail
    ],
)
def test_twins_under_the_optimum_agree_with_the_mean_known(name, times, losses):
    """On a mixture base, of which the chains are O(1/K) apart."""
    world = tilt(name)(RectifiedFlow(), 50)
    optimal = Optimal(world.base, world.noised_score)
    one = under_optimum(world, times, 4_000, rng(4))
    two = under_control(world, optimal, times, 4_000, rng(5))
    assert set(one) == set(two) and "AS" not in {loss for loss, _ in one}
    assert worst({key: e for key, e in two.items() if key[0] in losses}, one) < 4


@schedules
@pytest.mark.parametrize("build", [tilt("tilt_linear"), gmm9], ids=["mixture", "gaussian"])
def test_the_targets_are_those_of_the_losses(schedule, build):
    world = build(schedule, 10)
    base = world.base
    x1 = world.sample(50, rng(6))
    g = slope(world, x1)
    pull = g - base.score(x1, base.steps)
    k = torch.randint(1, base.steps, (50,), generator=rng(7))
    x = base.renoise(x1, k, rng(8))
    mine = targets(base, k, x, x1, pull)
    continuous = [
        sigma * alpha / beta**2 if beta else 0.0
        for sigma, alpha, beta in zip(sigmas(base), base.signals, base.noises, strict=True)
    ]
    unit = pick(continuous, k, x) / pick(base.lifts, k, x)
    for loss, blend in {"CSM": conditional, "TSM": from_target, "NSM": novel}.items():
        theirs = unit * target(base, blend(base), x, k, x1, g)
        torch.testing.assert_close(mine[loss], theirs, rtol=1e-9, atol=1e-9)


def test_adjoint_sampling_regresses_on_the_same():
    """With constant noise the chain's own units are those of continuous time."""
    base = Brownian(steps=10, ratio=1.0, scale=1.7)
    x, pull = torch.randn(2, 40, 3, generator=rng(9), dtype=torch.float64)
    k = torch.randint(1, base.steps, (40,), generator=rng(10))
    mine = targets(base, k, x, x, pull)["AS"]
    torch.testing.assert_close(mine, base.pull(k, pull), rtol=1e-6, atol=1e-6)
    bent = Brownian(steps=10, scale=1.7)
    known = [bent.sigma(t) for t in bent.times[1:]]
    assert sigmas(bent)[1:] == pytest.approx(known, rel=1e-4)


@pytest.mark.parametrize(("alpha", "beta"), [(0.1, 0.9), (0.5, 0.5), (0.98, 0.02)])
def test_the_score_by_quadrature(alpha, beta):
    """A Gaussian line in closed form; the wells from log q of the whole table, q convolved."""
    y = (alpha * torch.linspace(-2.5, 2.5, 41).double() + 0.3 * beta)[:, None].expand(-1, 2)
    line = tabulate(lambda x: -x.square() / 0.6, reach=6.0)
    exact_score = -y / (alpha**2 * 0.3 + beta**2)
    torch.testing.assert_close(product_score(line)(y, alpha, beta), exact_score)

    world = many_well(RectifiedFlow(), 10)
    line = tabulate(lambda x: -(x.square() - 4).square(), reach=math.sqrt(12))
    h = 1e-4 * beta

    def log_q(at):
        far = -(at[..., None] - alpha * line.x).square() / (2 * beta**2)
        return (line.p.log() + far).logsumexp(-1)

    exact_score = (log_q(y + h) - log_q(y - h)) / (2 * h)
    torch.testing.assert_close(
        world.noised_score(y, alpha, beta), exact_score, rtol=2e-3, atol=2e-3
    )


def test_worlds_draw_from_p_star_and_know_u_star():
    """E T = E u* for every target, so that E |T - u*|^2 is a variance."""
    for build in (gmm9, many_well, tilt("tilt_linear")):
        world = build(Foellmer(), 10)
        x1 = world.sample(20_000, rng(11))
        pull = slope(world, x1) - world.base.score(x1, world.base.steps)
        x = world.base.renoise(x1, 5, rng(12))
        best = sigmas(world.base)[5] * (
            world.noised_score(x, world.base.signals[5], world.base.noises[5])
            - world.base.score(x, 5)
        )
        for loss in ("CSM", "TSM", "NSM"):
            gap = targets(world.base, 5, x, x1, pull)[loss] - best
            for weight in (1.0, x, torch.tanh(x)):
                each = gap * weight
                z = each.mean(0) / (each.std(0) / math.sqrt(len(each)))
                assert z.abs().max() < 4, (build, loss)


def test_claims_can_be_supported_refuted_and_left_open():
    def rows(law, **values):
        return [
            ("gaussian", "RectifiedFlow", law, loss, t, value, 0.01, math.nan)
            for loss, each in values.items()
            for t, value in zip((0.1, 0.9), each, strict=True)
        ]

    heads = ["target", "schedule", "law", "loss", "t", "variance", "se", "exact"]
    data = DataFrame(
        rows("P*", CSM=(1.0, 9.0), TSM=(9.0, 1.0), NSM=(1.5, 1.5), AM=(2.0, 2.0), AS=(1.5, 1.5)),
        columns=heads,
    )
    assert claims.ends(data).verdict is Verdict.SUPPORTED
    assert claims.between(data, {}).verdict is Verdict.SUPPORTED
    assert claims.same(data).verdict is Verdict.REFUTED
    high = data.assign(variance=data.variance.where(data.loss != "NSM", 5.0))
    assert claims.between(high, {}).verdict is Verdict.REFUTED
    for off, verdict in ((1, Verdict.SUPPORTED), (4.5, Verdict.OPEN), (6, Verdict.REFUTED)):
        assert claims.closed(data.assign(exact=data.variance + off * data.se)).verdict is verdict
    late = data.assign(variance=data.variance.where(data.loss != "CSM", 0.5))
    assert claims.ends(late).verdict is Verdict.REFUTED


def test_numbers_are_written_with_their_errors():
    assert brief(1.8612, 0.0312) == "1.86(3)"
    assert brief(0.08208, 0.0013) == "0.0821(13)"
    assert brief(50.0, 12.0) == "50(12)"
    assert brief(999.6, 130.0) == "1.0(1)e3"
    assert brief(5978.0, 93.0) == "5.98(9)e3"
    assert brief(0.000378, 6.0e-6) == "3.78(6)e-4"
    assert brief(2.0, math.nan) == "2 ± nan"
