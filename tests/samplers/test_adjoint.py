"""Adjoints on any base, the Schroedinger bridge and the trust region: identities, closed forms."""

import math
from dataclasses import replace

import pytest
import torch

from tests.tools.worlds import Mixture, Shifted, rng, z_score
from tiltbench.samplers.diffusion import Diffusion
from tiltbench.samplers.loss import reward_and_grad
from tiltbench.samplers.losses._trust_region import RADIUS, divergence, exponent
from tiltbench.samplers.losses.adjoint_matching import adjoint_matching
from tiltbench.samplers.losses.adjoint_matching_full import adjoint_matching_full
from tiltbench.samplers.losses.adjoint_sampling import adjoint_sampling
from tiltbench.samplers.losses.adjoint_schroedinger_bridge import (
    adjoint_schroedinger_bridge,
    bridge,
)
from tiltbench.samplers.losses.log_variance import log_variance
from tiltbench.samplers.losses.relative_entropy import relative_entropy
from tiltbench.samplers.losses.trust_region_log_variance import trust_region_log_variance
from tiltbench.samplers.networks.control import Control
from tiltbench.samplers.networks.model import Model
from tiltbench.samplers.networks.perceptron import Corrected, Guided, Mlp
from tiltbench.samplers.sampler import Unsupported
from tiltbench.targets.bases.interpolant import Ancestral, Regularised
from tiltbench.targets.bases.mixture_flow import MixtureFlow
from tiltbench.targets.bases.optimal import Optimal
from tiltbench.targets.bases.process import Path, along, retrace, simulate
from tiltbench.targets.bases.references import Brownian, Scattered, Stationary
from tiltbench.targets.problem import Problem

SLOPE = torch.tensor([0.8, -0.5], dtype=torch.float64)


def two_humps(steps, stepping=Ancestral()):
    """math.md 11: the mixture base, its linear tilt, log Z, p* and u*."""
    base = MixtureFlow(
        weights=(0.4, 0.6),
        means=((-1.5, 0.0), (1.5, 0.5)),
        variances=(0.3, 0.2),
        stepping=stepping,
        steps=steps,
    )
    log_Z, law = base.law.tilted_linear(SLOPE)
    problem = Problem(2, base, lambda x: (x * SLOPE.to(x)).sum(-1))
    optimal = Optimal(base, lambda x, a, b: law.score(x, a[..., None], b[..., None]))
    return problem, log_Z, law, optimal


class Zero(Control):
    def control(self, x, t, hint=None):
        return torch.zeros_like(x)


def shaken(network, dim, base, seed=0, by=0.2):
    """A network moved off its start, in float64."""
    model = network.build(dim, base, rng(seed))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(by * torch.randn(p.shape, generator=rng(seed + 1), dtype=p.dtype))
    return model.double()


# --- the lean adjoint on any base (math.md 4) ---


def lean(problem, path):
    """a_k at every point, from what the loss stores."""
    y = adjoint_matching.label(problem, Zero(), path, 0.5, rng())["y"]
    return y * (path.dt.sqrt() / path.std)[:, None, None]


@pytest.mark.parametrize("stepping", [Ancestral(), Regularised(h=0.01)], ids=lambda s: s.name)
def test_mean_of_the_lean_adjoint_is_the_optimal_control(stepping):
    """E[(sigma a - u*) phi(X_t) | P*] = 0 for any phi, up to O(1/K); at K = 200 within its error.

    Under P* the noising kernel is the base's, so that paths are traced back from exact draws."""
    problem, _, law, optimal = two_humps(200, stepping)
    path = noised(problem.base, law.sample(2_000, rng(1)), rng(2))
    batch = adjoint_matching.label(problem, Zero(), path, 0.5, rng())
    u = along(optimal, path)
    # the last steps of Euler are left out: u* changes by its own size within one of them
    for k in (20, 60, 100, 140, 180):
        for phi in (lambda x: 1, lambda x: x, lambda x: torch.sin(2 * x.flip(-1))):
            moment = ((batch["y"][k] - u[k]) * phi(path.x[k])).sum(-1)
            size = (u[k] * phi(path.x[k])).sum(-1).abs().mean()
            error = moment.std() / math.sqrt(len(moment))
            assert abs(moment.mean()) < 4 * error + 0.03 * size
            assert error < 0.12 * (1 + size)  # there is power


def noised(base, x1, generator):
    """The noising chain X_{t_k} | X_{t_{k+1}}, exact for any memoryless process of these laws."""
    chain = replace(base, stepping=Ancestral())
    path = retrace(chain, Zero(), x1, generator)
    stds = torch.tensor(base.stds, dtype=path.x.dtype)
    return replace(path, std=stds)


def humps(means, variance=1.0, steps=12):
    count = len(means)
    return MixtureFlow((1 / count,) * count, means, (variance,) * count, steps=steps)


def bounds(base, m):
    alpha, beta = (torch.tensor(v[1:], dtype=torch.float64) for v in (base.signals, base.noises))
    return alpha / (alpha.square() + m * beta.square())


def growth(base, x):
    """|a_{k+1}| / |grad r(X_1)| along any points, on or off the process."""
    problem = Problem(2, base, lambda x: torch.sin(x).sum(-1) + x[..., 0] * x[..., 1])
    path = simulate(base, Zero(), x.shape[1:], rng(3), dtype=torch.float64)
    path = replace(path, x=x)
    _, g = reward_and_grad(problem, x[-1])
    return lean(problem, path).norm(dim=-1) / g.norm(dim=-1)


def anywhere(steps, n=500):
    return 3 * torch.randn(steps + 1, n, 2, generator=rng(4), dtype=torch.float64)


def test_lean_adjoint_on_a_gaussian_base_is_its_closed_form():
    """|a_t| = alpha / (alpha^2 + m beta^2) |grad r| for N(mu, I/m), at any K (math.md 4)."""
    base = humps(((0.7, -0.4),), variance=0.4)
    ratio = growth(base, anywhere(12))
    assert torch.allclose(ratio, bounds(base, 1 / 0.4)[:, None].expand_as(ratio), rtol=1e-6)


def test_lean_adjoint_is_bounded_on_a_log_concave_base_only():
    """N(-+ .5, 1) has -grad^2 log p >= 1 - .5^2; twelve steps keep the bound along every path."""
    base = humps(((-0.5, 0.0), (0.5, 0.0)))
    ratio = growth(base, anywhere(12)) / bounds(base, 0.75)[:, None]
    assert ratio.max() <= 1 + 1e-9
    assert ratio.max() > 0.95  # and it is reached
    assert (growth(base, anywhere(12)) / bounds(base, 0.80)[:, None]).max() > 1
    apart = humps(((-2.0, 0.0), (2.0, 0.0)), variance=0.2, steps=50)
    on = simulate(apart, Zero(), (500, 2), rng(5), dtype=torch.float64).x
    assert growth(apart, on).max() > 3  # two modes apart: it grows going backward


# --- both adjoints, exactly ---


@pytest.mark.parametrize("network", [Mlp(width=8), Guided(width=8)], ids=lambda n: n.name)
@pytest.mark.parametrize(
    "base",
    [two_humps(6)[0].base, two_humps(6, Regularised())[0].base, Stationary(steps=6)],
    ids=["Ancestral", "Regularised", "Stationary"],
)
@pytest.mark.parametrize("loss", [adjoint_matching, adjoint_matching_full], ids=repr)
def test_adjoint_is_the_gradient_of_the_objective_along_the_path(loss, base, network):
    """d/dx_k of r(x_K) - sum dt/2 |u|^2 with the noise and the hints held, by autograd; the lean
    adjoint holds u as well."""
    problem = Problem(2, base, lambda x: torch.sin(x).sum(-1))
    model = shaken(network, 2, base)
    guide = (lambda x: reward_and_grad(problem, x)[1]) if model.guided else None
    with torch.no_grad():
        path = simulate(base, model, (5, 2), rng(6), guide, torch.float64)
    batch = loss.label(problem, model, path, 0.5, rng())
    root = path.dt.sqrt()
    for k in range(base.steps - 1):
        x = start = path.x[k + 1].clone().requires_grad_()
        objective = torch.zeros(5, dtype=torch.float64)
        for j in range(k + 1, base.steps):
            hint = None if path.hint is None else path.hint[j]
            u = model.control(x, path.t[j], hint) if loss is adjoint_matching_full else path.u[j]
            push = path.std[j] * root[j]
            noise = path.x[j + 1] - path.mean[j] - push * path.u[j]
            x = base.base(x, j).mean + push * u + noise
            objective = objective - path.dt[j] / 2 * u.square().sum(-1)
        objective = objective + problem.reward(x)
        (expected,) = torch.autograd.grad(objective.sum(), start)
        adjoint = batch["y"][k] * root[k] / path.std[k]
        assert torch.allclose(adjoint, expected, rtol=1e-6, atol=1e-9)


def test_full_adjoint_regresses_with_the_gradient_of_relative_entropy():
    """On a uniform grid grad regress = 2 grad relative entropy, exactly; the lean one differs."""
    problem = two_humps(8)[0]
    model = shaken(Mlp(width=8), 2, problem.base, by=0.6).float()
    path = simulate(problem.base, model, (16, 2), rng(7))
    detached = Path(*(v.detach() for v in (path.t, path.x, path.mean, path.std, path.u)))
    gradients = {}
    for loss, along_path in (
        (relative_entropy, path),
        (adjoint_matching_full, detached),
        (adjoint_matching, detached),
    ):
        batch = loss.label(problem, model, along_path, 0.5, rng())
        value = loss.value(model, problem.base, batch, rng())
        weights = list(model.control_parameters())
        gradients[loss.name] = torch.cat([g.flatten() for g in torch.autograd.grad(value, weights)])
    truth = 2 * gradients["relative_entropy"]
    exact = (gradients["adjoint_matching_full"] - truth).norm()
    assert exact < 1e-4 * truth.norm()
    assert (gradients["adjoint_matching"] - truth).norm() > 100 * exact


@pytest.mark.parametrize("loss", [adjoint_matching, adjoint_matching_full, relative_entropy])
def test_losses_on_a_network_free_mixture_base_are_stationary_and_attracting(loss):
    problem, log_Z, _, optimal = two_humps(12)

    class Moved(Control):
        def __init__(self, theta):
            super().__init__()
            self.theta = torch.nn.Parameter(torch.tensor(theta))

        def control(self, x, t, hint=None):
            return optimal.control(x.detach(), t) + self.theta * (0.5 + torch.sin(x))

    sampler = Diffusion(loss, paths=256)

    def slope(theta):
        model, slopes = Model(Moved(theta)), []
        for seed in range(8):
            batch = sampler.batch(problem, model, 0.5, rng(seed))
            value = loss.value(model, problem.base, batch, rng(seed))
            slopes.append(torch.autograd.grad(value, model.network.theta)[0].double())
        return torch.stack(slopes)

    left, at, right = (slope(theta) for theta in (-0.3, 0.0, 0.3))
    assert left.mean() < 0 < right.mean()
    assert abs(z_score(left, 0)) > 4 and abs(z_score(right, 0)) > 4
    allowed = 4 * at.std() / math.sqrt(len(at)) + 0.04 * (right.mean() - left.mean())
    assert abs(at.mean()) < allowed


# --- the adjoint Schroedinger bridge (math.md 3) ---


def test_the_scattered_reference_remembers_its_start():
    base = Scattered(steps=4, scale=2.0, prior=1.5)
    x = simulate(base, Zero(), (50_000, 1), rng(8), dtype=torch.float64).x
    assert abs(z_score(x[0] * x[-1], 1.5**2)) < 4  # Cov(X_0, X_1) = prior^2, not 0
    assert abs(z_score(x[-1].square(), 1.5**2 + 4.0)) < 4
    with pytest.raises(ValueError, match="prior is 0.0"):
        Scattered(prior=0.0)


class Straight(Control):
    """u = slope_k x + level_k, in one dimension."""

    def __init__(self, base):
        super().__init__()
        self.base = base
        self.u = torch.nn.Parameter(torch.zeros(base.steps, 2, dtype=torch.float64))

    def control(self, x, t, hint=None):
        k = (t * self.base.steps).round().long()
        slope, level = self.u[k].unbind(-1)
        return slope[..., None] * x + level[..., None]


class AffineCorrector(torch.nn.Module):
    """h = sign (tilt x + rise)."""

    def __init__(self, sign):
        super().__init__()
        self.sign, self.h = sign, torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))

    def forward(self, x):
        return self.sign * (self.h[0] * x + self.h[1])


def newton(value, parameter):
    """The minimiser of a quadratic."""
    (g,) = torch.autograd.grad(value, parameter, create_graph=True)
    g = g.flatten()
    rows = [
        torch.autograd.grad(g[i], parameter, retain_graph=True)[0].flatten() for i in range(len(g))
    ]
    with torch.no_grad():
        step = torch.linalg.solve(torch.stack(rows), g)
        parameter.sub_(step.reshape(parameter.shape))


def bridge_to(sign, rounds=10, paths=8_000):
    """Mean and variance of X_1 when both stages are solved by least squares, h used with `sign`."""
    base = Scattered(steps=20, scale=1.0, ratio=1.0, prior=0.5)
    target = torch.distributions.Normal(1.2, math.sqrt(0.4))
    problem = Problem(1, base, lambda x: target.log_prob(x)[..., 0] - base.log_end(x))
    straight, line = Straight(base), AffineCorrector(sign)
    model = Model(straight, line)
    for seed in range(rounds):
        for stage in (straight.u, straight.u, line.h):
            with torch.no_grad():
                path = simulate(base, model, (paths, 1), rng(seed), dtype=torch.float64)
            batch = bridge.label(problem, model, path, 0.5, rng())
            if stage is line.h:
                line.sign = 1
            newton(bridge.value(model, base, batch, rng(seed)), stage)
            line.sign = sign
    mean, var = 0.0, base.prior**2
    for k, (slope, level) in enumerate(straight.u.tolist()):
        _, std = base.kernels[k]
        push = std / math.sqrt(base.steps)
        mean, var = mean + push * (slope * mean + level), (1 + push * slope) ** 2 * var + std**2
    return mean, var


def test_bridge_reaches_the_target_from_a_start_that_is_remembered():
    """N(1.2, .4) from N(0, .25), both stages by least squares; O(1/K) of the chain is allowed."""
    mean, var = bridge_to(1)
    assert mean == pytest.approx(1.2, abs=0.03)
    assert var == pytest.approx(0.4, abs=0.03)


def test_the_wrong_sign_of_the_corrector_gives_a_wrong_law():
    """With V^-1 = 1/s^2 + 1/tau^2 - c and q = prior^2 the stages, solved in closed form, settle at
    X_1 | X_0 ~ N(V (X_0/s^2 + m/tau^2 + d), V), h = c x + d: N(.6667, .2483), not N(1.2, .4)."""
    mean, var = bridge_to(-1)
    assert mean == pytest.approx(0.6667, abs=0.03)
    assert var == pytest.approx(0.2483, abs=0.03)


def test_without_memory_the_corrector_is_the_base_score_and_the_rest_adjoint_sampling():
    base = Brownian(steps=6, scale=2.0)
    problem = Mixture(base).problem()

    class Exact(torch.nn.Module):
        def forward(self, x):
            return base.score(x, base.steps)

    model = Model(Straight(base), Exact())
    path = simulate(base, Zero(), (64, 2), rng(9), dtype=torch.float64)
    ours, theirs = (
        loss.value(model, base, loss.label(problem, model, path, 0.5, rng()), rng(10))
        for loss in (bridge, adjoint_sampling)
    )
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-9)  # the corrector's term is zero


def test_corrector_starts_at_zero_and_is_asked_of_a_network_that_has_one():
    base = Scattered(steps=4)
    x = torch.randn(5, 3, generator=rng())
    assert torch.equal(Corrected(width=8).build(3, base, rng()).corrector(x), torch.zeros(5, 3))
    with pytest.raises(Unsupported, match="use model=Corrected"):
        Mlp(width=8).build(3, base, rng()).corrector(x)


@pytest.mark.parametrize("loss", [bridge, adjoint_sampling], ids=repr)
def test_bridges_need_a_linear_base(loss):
    problem = two_humps(4)[0]
    sampler = replace(adjoint_schroedinger_bridge.sampler, loss=loss, paths=4)
    model = sampler.model.build(2, problem.base, rng())
    with pytest.raises(Unsupported, match="bridges are known"):
        sampler.batch(problem, model, 0.0, rng())


# --- the trust region ---


def test_exponent_is_the_largest_within_the_radius():
    log_w = 3 * torch.randn(400, generator=rng(11), dtype=torch.float64) + 500
    beta = exponent(log_w, 0.7)
    assert 0 < beta < 1
    assert divergence(beta * log_w) == pytest.approx(0.7, abs=1e-9)
    assert divergence((beta + 1e-3) * log_w) > 0.7
    # the KL of a Gaussian log-weight is beta^2 sd^2 / 2
    wide = torch.randn(400_000, generator=rng(12), dtype=torch.float64)
    assert exponent(2 * wide, 0.5) == pytest.approx(0.5, rel=0.02)
    assert exponent(0.1 * log_w, 0.7) == 1.0
    assert divergence(torch.tensor([0.0, -torch.inf])) == pytest.approx(math.log(2))


def test_a_slack_region_is_log_variance_and_a_tight_one_is_a_weaker_tilt():
    """Beyond the radius the optimum of the batch is dP'/dP^v with the stated KL."""
    world = Shifted(Brownian(steps=6, scale=1.0), (0.2, -0.1))
    model = shaken(Mlp(width=8), 2, world.base, by=0.02).float()
    values = {}
    for loss in (trust_region_log_variance, log_variance):
        batch = Diffusion(loss, paths=64).batch(world.problem(), model, 0.5, rng(13))
        values[loss.name] = loss.value(model, world.base, batch, rng()).item()
    assert values["trust_region_log_variance"] == pytest.approx(values["log_variance"], rel=1e-9)
    steep = Shifted(Brownian(steps=6, scale=1.0), (3.0, -4.0))
    model = Mlp(width=8).build(2, steep.base, rng())
    batch = Diffusion(trust_region_log_variance, paths=64).batch(
        steep.problem(), model, 0.5, rng(14)
    )
    # v = 0: target = beta r, whose tempered weights stay within the radius
    assert divergence(batch["r"]) == pytest.approx(RADIUS, abs=1e-6)
    value = trust_region_log_variance.value(model, steep.base, batch, rng())
    assert value.item() == pytest.approx(batch["r"].var().item(), rel=1e-6)
