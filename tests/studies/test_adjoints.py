"""Lean adjoint norms and the bias of regressions: bounds, closed forms, z-scores."""

import math

import pytest
import torch

from tests.tools.worlds import rng
from tiltbench.studies.adjoint_norms import study as adjoint_norms
from tiltbench.studies.adjoint_norms.study import bound, controls, follow, softest, twins
from tiltbench.studies.bias import study as bias
from tiltbench.studies.bias.regressed import closed, continued, judged, points, share
from tiltbench.studies.common.tilts import flow, mixture, optimal, quadratic
from tiltbench.targets.bases.process import simulate
from tiltbench.targets.bases.schedules import RectifiedFlow, VariancePreserving

NORMS = {world.name: world for world in adjoint_norms.worlds()}
BIAS = {world.name: world for world in bias.worlds()}
SCHEDULES = pytest.mark.parametrize(
    "schedule", [RectifiedFlow(), VariancePreserving()], ids=lambda s: s.name
)


def followed(monkeypatch, name, control, schedule=RectifiedFlow(), paths=1_000, steps=20):
    monkeypatch.setattr(adjoint_norms, "PATHS", paths)
    world = NORMS[name]
    base = flow(world.law, schedule, steps)
    return follow(world, "any", control, controls(world, base)[control], base)


# --- study 5: norms ---


@SCHEDULES
@pytest.mark.parametrize("control", ["none", "optimal", "random network"])
def test_lean_adjoint_on_a_gaussian_base_has_its_closed_form(monkeypatch, schedule, control):
    """|a_t| = alpha / (alpha^2 + m beta^2) |grad r(X_1)|, whatever steers the paths (math.md 4)."""
    run = followed(monkeypatch, "Gaussian, m = 2", control, schedule, paths=50)
    assert float((run.lean / bound(run.base, 2.0) - 1).abs().max()) < 1e-10


@SCHEDULES
@pytest.mark.parametrize("m", [0.25, 1.0, 4.0])
def test_the_bound_is_never_violated_on_a_log_concave_base(monkeypatch, schedule, m):
    run = followed(monkeypatch, f"log-concave, m = {m:g}", "optimal", schedule)
    beyond = run.beyond(run.lean, m)
    assert int((beyond > 1 + 1e-10).sum()) == 0
    assert float(beyond.max()) > 0.98  # it is nearly reached
    assert float(run.beyond(run.lean, 2 * m).max()) > 1.01  # and no better m would do


def test_the_bound_is_violated_on_a_bimodal_base(monkeypatch):
    run = followed(monkeypatch, "bimodal, linear r", "optimal", steps=50)
    assert float(run.beyond(run.lean, run.world.m).max()) > 10
    low = softest(run.world.law)
    assert low < -10
    assert float(run.beyond(run.lean, low).max()) <= 1 + 1e-10  # the bound of the true m holds


@pytest.mark.parametrize("m", [0.25, 1.0, 4.0])
def test_twins_are_as_curved_as_stated(m):
    assert softest(twins(m)) == pytest.approx(m, rel=1e-9)


def test_without_control_the_full_adjoint_is_the_lean_one(monkeypatch):
    run = followed(monkeypatch, "log-concave, m = 1", "none", paths=50)
    assert torch.equal(run.lean, run.full)


def test_both_adjoints_have_the_mean_u_star_at_the_optimum(monkeypatch):
    run = followed(monkeypatch, "log-concave, m = 1", "optimal", steps=100)
    assert run.miss.most < 0.02 and run.miss.resolved > 20
    u, noise = torch.randn(2, 100, 4_000, 2, generator=rng(3), dtype=torch.float64)
    lost = adjoint_norms.missed(0.4 * u + 0.1 * noise, u, u)  # 1.4 u for u: the check has power
    assert lost.resolved == lost.cells and 0.3 < lost.most < 0.5
    assert adjoint_norms.missed(100 * noise, u, u).resolved == 0  # and says where it has none
    assert not torch.allclose(run.lean, run.full, rtol=0.05)


# --- study 4: bias ---


def at(world, strength, schedule=RectifiedFlow(), n=2_000, steps=100, seed=1):
    base = flow(world.law, schedule, steps)
    now, best = (world.tilting.law(world.law, v) for v in (strength, 1.0))
    source = rng(seed)
    return points(base, now, best, bias.TIMES, n, source), now, source


def test_unweighted_csm_regresses_to_the_current_control():
    """E[CSM | X_t] = u_lambda, which is sigma grad log(q_t / p_t) and what steers paths there."""
    world = BIAS["bimodal base, quadratic r"]
    p, now, source = at(world, 0.5)
    labels = bias.means_of(p, p.ends(now, 20, source), world.tilting.slope)["CSM"]
    far = ((labels - p.now) * torch.sin(p.x)).sum(-1)  # E[(CSM - u) phi(X_t)] = 0
    z = far.mean(1) / (far.std(1) / math.sqrt(far.shape[1]))
    assert float(z.abs().max()) < 4
    with torch.no_grad():
        path = simulate(p.base, optimal(p.base, now), (4_000, 2), rng(2), dtype=torch.float64)
    mean = now.weight @ now.mean
    error = path.x[-1].std(0) / math.sqrt(4_000)
    assert bool(((path.x[-1].mean(0) - mean).abs() < 4 * error + 0.02).all())


@SCHEDULES
def test_on_a_gaussian_base_novel_score_matching_is_adjoint_sampling_is_adjoint_matching(schedule):
    for name in ("Gaussian base, linear r", "Gaussian base, quadratic r"):
        world = BIAS[name]
        p, now, source = at(world, 0.5, schedule, n=50, steps=40)
        means = closed(p, world.tilting, now, 0.5)
        assert torch.allclose(means["NSM"], means["AS"], rtol=1e-9, atol=1e-9)
        assert torch.allclose(means["AM"], means["AS"], rtol=1e-9, atol=1e-9)  # u_lambda / lambda
        x1 = p.ends(now, 3, source)
        labels = bias.targets(p.base, p.k, p.x, x1, world.tilting.slope(x1))["AS"]
        lean = continued(p, world.tilting, x1, source)
        assert torch.allclose(lean, labels, rtol=1e-9, atol=1e-9)  # path by path


def test_a_linear_reward_on_a_gaussian_base_leaves_no_bias():
    world = BIAS["Gaussian base, linear r"]
    p, now, _ = at(world, 0.25, n=50)
    assert torch.allclose(closed(p, world.tilting, now, 0.25)["AS"], p.best, atol=1e-10)


@pytest.mark.parametrize("strength", [0.0, 0.5])
def test_adjoint_matching_regresses_to_u_lambda_over_lambda(strength):
    """Not log-concave (a^2 = 2.1 v), but near enough for plain averages; up to O(1/K)."""
    law = mixture((0.4, 0.6), ((-0.8, 0.0), (0.8, 0.2)), (0.3, 0.3))
    world = bias.World("near", law, quadratic((0.5, 0.3)), False)
    p, now, source = at(world, strength, n=800, steps=60)
    lean = continued(p, world.tilting, p.ends(now, 3, source), source).mean(0)
    mean = closed(p, world.tilting, now, strength)["AM"]
    for phi in (torch.ones_like, torch.sin):
        miss = ((lean - mean) * phi(p.x)).sum(-1)
        size = (mean * phi(p.x)).sum(-1).abs().mean(1)
        error = miss.std(1) / math.sqrt(miss.shape[1])
        assert bool((miss.mean(1).abs() < 4 * error + 0.02 * size).all())
        wrong = ((lean - p.now) * phi(p.x)).sum(-1)  # there is power
        assert float((wrong.mean(1).abs() / error).max()) > 8
    if strength == 0:
        least = world.tilting.law(law, 1e-4)
        assert torch.allclose(closed(p, world.tilting, least, 1e-4)["AM"], mean, atol=1e-3)


@pytest.mark.parametrize("loss", ["CSM", "TSM", "NSM"])
@pytest.mark.parametrize("goal", [0.25, 1.0])
def test_twins_agree_with_the_closed_form_and_full_weights_are_unbiased(loss, goal):
    world = BIAS["bimodal base, quadratic r"]
    p, _, source = at(world, 0.25)
    law = world.tilting.law(world.law, goal)
    twin = [bias.means_of(p, p.ends(law, 8, source), world.tilting.slope)[loss] for _ in range(2)]
    mean = closed(p, world.tilting, law, goal)[loss]
    result = judged(("", "", 0.25, "", loss), p, (twin[0], twin[1]), mean, 5)
    assert abs(result.z) < 4
    if goal == 1.0:
        assert result.left.value < 1e-9  # E[T | X_t] = u*
    else:
        assert result.left.value == pytest.approx(1) if loss == "CSM" else result.left.value > 1.5


def test_the_share_left_is_a_ratio_with_its_error():
    source = rng(3)
    before = 1 + torch.rand(3, 4_000, generator=source, dtype=torch.float64)
    noise = torch.randn(3, 4_000, generator=source, dtype=torch.float64)
    left = share(0.25 * before + 0.1 * noise, before)
    assert abs(left.value - 0.25) < 4 * left.se
    assert left.se == pytest.approx(0.1 / math.sqrt(12_000) / 1.5, rel=0.05)
