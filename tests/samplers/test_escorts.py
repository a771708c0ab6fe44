"""Escorted annealing: identities, closed forms and figures of math.md 5.2, 5.3, 6 and 11."""

import math
from dataclasses import fields, replace

import pymbar
import pytest
import torch

from tests.tools.worlds import Mixture, rng, z_score
from tiltbench.estimators import bar
from tiltbench.plan.spec import build_sampler, spec
from tiltbench.run.meter import BudgetExceeded, Meter
from tiltbench.samplers.diffusion import Preset
from tiltbench.samplers.escorts import nets_pinn as pinn
from tiltbench.samplers.escorts.nets_action import action
from tiltbench.samplers.networks.control import Control, Sloped, by_products
from tiltbench.samplers.networks.free_energy import FreeEnergy
from tiltbench.samplers.networks.model import Model
from tiltbench.samplers.networks.perceptron import Guided, Mlp, Potential
from tiltbench.samplers.recipes.annealing import Ramp, ThroughDenoiser
from tiltbench.samplers.recipes.escort import EscortPath, MeasuredPath
from tiltbench.samplers.recipes.escorted import Escorted, Transported, divergences
from tiltbench.samplers.recipes.recipe import Base
from tiltbench.samplers.registry import ANNEALINGS, SAMPLERS
from tiltbench.samplers.sampler import Unsupported
from tiltbench.samplers.weights import ess, expectation, log_mean_exp
from tiltbench.targets.bases.confined import Confined
from tiltbench.targets.bases.mixture_flow import MixtureFlow
from tiltbench.targets.bases.process import Controlled, along
from tiltbench.targets.bases.references import Brownian, Scattered, Stationary
from tiltbench.targets.bases.schedules import Foellmer
from tiltbench.targets.cost import Cost
from tiltbench.targets.densities.dw4 import Dw4
from tiltbench.targets.problem import Problem

PAIR = MixtureFlow((0.4, 0.6), ((-1.5, 0.0), (1.5, 0.5)), (0.3, 0.2))
SLOPE = torch.tensor([0.8, -0.5])
LOG_Z = 0.606237
PRESETS = {
    name: plugin.sampler
    for name, plugin in ((name, SAMPLERS.load(name)) for name in SAMPLERS.entries)
    if isinstance(plugin, Preset) and plugin.sampler.recipe != Base()
}
presets = pytest.mark.parametrize("name", PRESETS)
annealings = pytest.mark.parametrize(
    "annealing", [ANNEALINGS.load(name)() for name in ANNEALINGS.entries], ids=lambda a: a.name
)


def tilted(steps):
    return Problem(2, replace(PAIR, steps=steps), lambda x: (x * SLOPE.to(x)).sum(-1))


def problem_on(escort, problem):
    return Problem(problem.dim, escort, problem.reward)


def with_noise(recipe, problem, eps):
    """The recipe's escort with the same eps, length^2, at every step, as math.md has it."""
    escort = recipe.process(problem, problem.reward)
    return replace(escort, diffusion=(eps,) * escort.steps)


class Flowing(Controlled):
    """w = lambda'(t) push, the same at every x: divergence 0."""

    def __init__(self, push, spread):
        self.push, self.spread = torch.as_tensor(push), spread

    def control(self, x, t, hint=None):
        rate = (6 * t * (1 - t))[..., None]
        return (rate * self.push.to(x) / self.spread).expand_as(x)


STILL, STILL1, STILL12 = (Flowing(torch.zeros(d), 1.0) for d in (2, 1, 12))


class Random(Control):
    """A smooth escort that has nothing to do with the problem."""

    def control(self, x, t, hint=None):
        return 0.5 * torch.sin(2 * x.flip(-1) + 3 * t[..., None])


def free_of_divergence(path):
    known = {part.name: getattr(path, part.name) for part in fields(EscortPath)}
    return MeasuredPath(**known, growth=torch.zeros_like(path.height))


@pytest.mark.parametrize("eps, share", [(0.0, 0.58), (2.0, 0.70)])
def test_jarzynski_figures(eps, share):
    problem = tilted(100)
    escort = with_noise(Transported(), problem, eps)
    path = free_of_divergence(escort.simulate(STILL, (10_000, 2), rng(1)))
    log_w = escort.log_w_along(path)[-1]
    assert log_mean_exp(log_w) == pytest.approx(0.606, abs=0.016)
    assert ess(log_w) == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize(
    "push, elbo, eubo, share",
    [
        pytest.param(0.0, 0.195, 0.897, None, marks=pytest.mark.slow),
        (0.35, 0.350, 0.784, 0.77),
    ],
)
def test_crooks_figures(push, elbo, eubo, share):
    problem = tilted(100)
    escort = with_noise(Escorted(Ramp()), problem, 1.0)
    model = Flowing(push * SLOPE, PAIR.spread)
    log_w = escort.log_w_along(escort.simulate(model, (10_000, 2), rng(1)))[-1]
    _, law = PAIR.law.tilted_linear(SLOPE.double())
    back = escort.retrace(model, law.sample(10_000, rng(2)).float(), rng(3))
    log_v = escort.log_w_along(back)[-1]
    assert float(log_w.mean()) == pytest.approx(elbo, abs=0.01)
    assert float(log_v.mean()) == pytest.approx(eubo, abs=0.01)
    assert share is None or ess(log_w) == pytest.approx(share, abs=0.02)
    estimate = bar(log_w, log_v)
    assert abs(estimate.value - LOG_Z) < 3 * estimate.se
    theirs = pymbar.bar(-log_w.numpy(), log_v.numpy())
    assert estimate.value == pytest.approx(-theirs["Delta_f"], abs=1e-6)
    # p_fwd(a) e^a = Z p_bwd(a): not the means alone but every part of the two histograms
    for low, high in ((-9.0, 0.2), (0.2, 0.6), (0.6, 1.0), (1.0, 9.0)):
        forward = ((log_w > low) & (log_w < high)) * log_w.exp()
        reverse = ((log_v > low) & (log_v < high)).double() * math.exp(LOG_Z)
        error = math.sqrt(float(forward.var() + reverse.var()) / 10_000)
        assert abs(float(forward.mean() - reverse.mean())) < 4 * error + 0.01


class Gaussian:
    """p* = N(s^2 c, s^2 I) on a static N(0, s^2 I): the perfect escort is w = s^2 lambda' c."""

    def __init__(self, steps=16, scale=1.3, slope=(0.6, 0.4)):
        self.base, self.slope = Stationary(steps=steps, scale=scale), torch.tensor(slope)
        self.power = scale**2 * float(self.slope.square().sum())
        self.log_Z = self.power / 2
        self.perfect = Flowing(scale**2 * self.slope, scale)

    def problem(self):
        return Problem(2, self.base, lambda x: (x * self.slope.to(x)).sum(-1))

    def sample(self, n, generator):
        return self.base.end((n, 2), generator) + self.base.scale**2 * self.slope

    def near(self, theta):
        return Model(Nearby(self, theta), energy=Known(self.free_energy_rate))

    def free_energy_rate(self, t):
        share, rate = t * t * (3 - 2 * t), 6 * t * (1 - t)
        return -share * rate * self.power


class Nearby(Sloped):
    """phi of the perfect escort, + theta (x / 2 + sin x)."""

    def __init__(self, world, theta=0.0):
        super().__init__()
        self.world, self.theta = world, torch.nn.Parameter(torch.tensor(float(theta)))

    def potential(self, x, t):
        rate = (6 * t * (1 - t))[..., None]
        s = self.world.base.scale
        straight = rate * s**2 * self.world.slope.to(x) * x
        return (straight + self.theta * s * (x / 2 + x.sin())).sum(-1)

    def control(self, x, t, hint=None):
        return self.world.perfect.control(x, t) + self.theta * (0.5 + x.cos())


class Known(torch.nn.Module):
    """F of a world that knows it, in the place of the one that is learned."""

    def __init__(self, rate):
        super().__init__()
        self.rate = rate
        self.log_Z = torch.nn.Parameter(torch.zeros(()))


@pytest.mark.parametrize("eps", [0.0, 0.3])
def test_the_perfect_escort_has_no_variance(eps):
    world = Gaussian(steps=50)
    problem, model = world.problem(), world.near(0.0)
    escort = Transported(eps=eps).process(problem, problem.reward)
    with torch.no_grad():
        paths = (
            escort.simulate(model, (500, 2), rng(1)),
            escort.retrace(model, world.sample(500, rng(2)), rng(3)),
        )
    for path in paths:
        log_w = escort.log_w_along(free_of_divergence(path))[-1]
        assert float(log_w.std()) < 1e-6
        assert float(log_w.mean()) == pytest.approx(world.log_Z, abs=1e-3)
        batch = pinn.label(problem_on(escort, problem), model, path, 0.5, rng())
        with torch.no_grad():
            assert float(pinn.value(model, escort, batch, rng(4))) < 1e-10
            assert float(pinn.value(world.near(0.1), escort, batch, rng(4))) > 1e-3


class Squeezing(Control):
    """The perfect escort of r = -a |x|^2 / 2 on N(0, s^2 I): w = (log sigma_t)' x."""

    def __init__(self, base, strength):
        super().__init__()
        self.base, self.strength = base, strength

    def control(self, x, t, hint=None):
        share, rate, s = t * t * (3 - 2 * t), 6 * t * (1 - t), self.base.scale
        power = 1 / s**2 + share * self.strength  # 1 / sigma_t^2
        return (-rate * self.strength / (2 * power * s))[..., None] * x


def test_a_perfect_escort_with_a_divergence():
    base, strength = Stationary(steps=50, scale=1.4), 1.5
    problem = Problem(2, base, lambda x: -strength * x.square().sum(-1) / 2)
    recipe, model = Transported(eps=0.1), Model(Squeezing(base, strength))
    escort = recipe.process(problem, problem.reward)
    path = escort.simulate(model, (200, 2), rng())
    path = recipe.weighed(Problem(2, escort, problem.reward), model, path)
    log_w = escort.log_w_along(path)[-1]
    assert float(log_w.std()) < 1e-5
    assert float(log_w.mean()) == pytest.approx(-math.log(1 + strength * 1.4**2), abs=1e-3)


def test_the_divergence_form_is_a_trapezium_rule():
    problem = tilted(4)
    escort = Transported(eps=0.0).process(problem, problem.reward)
    path = free_of_divergence(escort.simulate(STILL, (3, 2), rng()))
    none, t = torch.zeros_like(path.x), path.t[:, None].expand(5, 3)
    path = replace(path, velocity=none, growth=t, change=t, u=none)
    assert torch.allclose(escort.log_w_along(path).float(), t.square())


@pytest.mark.parametrize("recipe", [Escorted(eps=0.2, ratio=3.0), Transported(eps=0.2, ratio=3.0)])
def test_noise_falls_with_the_ratio(recipe):
    problem = tilted(4)
    escort = recipe.process(problem, problem.reward)
    std = escort.simulate(STILL, (3, 2), rng()).std
    assert torch.allclose(std.square() * 2, torch.tensor(falling(0.2, 3.0)))


def falling(eps, ratio):
    """eps E|X_t|^2 / d ratio^(-2t) of PAIR along the rectified flow, at four steps."""
    return [
        eps * ((k / 4 * PAIR.spread) ** 2 + (1 - k / 4) ** 2) / ratio ** (k / 2) for k in range(4)
    ]


def test_both_ways_a_step_climbs_by_its_own_noise():
    """eps_t of a step's earlier end, also from its later end; and what a path records of it."""
    problem = tilted(4)
    escort = Escorted(Ramp(), eps=0.2, ratio=3.0).process(problem, problem.reward)
    for path in (
        escort.simulate(STILL, (3, 2), rng(1), dtype=torch.float64),
        escort.retrace(STILL, torch.randn(3, 2, generator=rng(2), dtype=torch.float64), rng(3)),
    ):
        for k, t in enumerate(escort.times[:-1]):
            eps, dt = falling(0.2, 3.0)[k], 0.25
            for j, way, kernel in ((k, 1, escort.base), (k + 1, -1, escort.backward)):
                x, s = path.x[j], escort.times[j]
                velocity, score = problem.base.current(x, j)
                pull = s * s * (3 - 2 * s) * SLOPE.double()
                mean = x + dt * (way * velocity + eps * (score + pull))
                assert torch.allclose(kernel(x, k).mean, mean, rtol=1e-6)
                assert kernel(x, k).std == pytest.approx(math.sqrt(2 * eps * dt))
            assert torch.allclose(path.mean[k], escort.base(path.x[k], k).mean, rtol=1e-6)


def bend(x):
    return 0.5 * torch.sin(2 * x).sum(-1) - 0.3 * x[..., 0] ** 2


@annealings
@pytest.mark.parametrize(
    "base",
    [Stationary(steps=4, scale=1.7), Scattered(steps=4, scale=0.8, ratio=1.0, prior=1.5)],
    ids=lambda b: b.name,
)
@pytest.mark.parametrize("kind", ["density", "tilt"])
def test_a_known_density_gives_exact_weights_at_four_steps(kind, base, annealing):
    """For a random escort, forward and backward: E exp A = Z, E exp -A = 1/Z."""
    if kind == "density":
        world = Mixture(base)
        problem, ends, log_Z = world.problem(), world.sample(60_000, rng(2)), world.log_Z
    else:
        s, slope = base.spread, torch.tensor([0.4, -0.3], dtype=torch.float64)
        problem = Problem(2, base, lambda x: x @ slope.to(x))
        ends = base.end((60_000, 2), rng(2), torch.float64) + s**2 * slope
        log_Z = s**2 * float(slope.square().sum()) / 2
    escort = Escorted(annealing, eps=0.3, ratio=1.5).process(problem, problem.reward)
    forward = escort.simulate(Random(), (60_000, 2), rng(1), dtype=torch.float64)
    log_w = problem.reward(forward.x[-1]) - escort.log_ratio(forward)
    assert abs(z_score((log_w - log_Z).exp(), 1.0)) < 4
    assert torch.allclose(log_w, escort.log_w_along(forward)[-1])
    backward = escort.retrace(Random(), ends, rng(3))
    log_v = problem.reward(ends) - escort.log_ratio(backward)
    assert abs(z_score((log_Z - log_v).exp(), 1.0)) < 4
    assert torch.allclose(along(Random(), forward), forward.u)


def test_zero_density_is_zero_weight():
    base = Stationary(steps=4)
    problem = Problem(1, base, lambda x: torch.where(x[..., 0] > 0, -x[..., 0], -torch.inf))
    escort = Escorted(eps=0.2).process(problem, problem.reward)
    path = escort.simulate(Random(), (40_000, 1), rng(1))
    log_w = problem.reward(path.x[-1]).double() - escort.log_ratio(path)
    assert bool((log_w == -torch.inf).any()) and not bool(log_w.isnan().any())
    at_start = path.x[0, :, 0] <= 0  # where r is -inf, and r_0 is 0 all the same
    assert at_start.any() and not escort.log_w_along(path)[0].any() and not path.change[0].any()
    truth = math.exp(0.5) * 0.5 * math.erfc(1 / math.sqrt(2))
    assert abs(z_score(log_w.exp(), truth)) < 4
    other = Transported(eps=0.2).process(problem, problem.reward)
    with pytest.raises(Unsupported, match="finite everywhere"):
        Transported(eps=0.2).simulate(problem_on(other, problem), Model(Random()), 1000, rng(1))


def test_what_cannot_be_weighed_is_refused():
    for wrong in (0.0, 1e-4, math.inf):
        with pytest.raises(ValueError, match="eps is"):
            Escorted(eps=wrong)
    for wrong in (-0.1, math.inf, math.nan):
        with pytest.raises(ValueError, match="eps is"):
            Transported(eps=wrong)


def bias(recipe, eps, push, steps, paths):
    """E exp A / Z - 1 of the escort w = lambda'(t) push c, eps in units of spread^2."""
    problem, model = tilted(steps), Flowing(push * SLOPE, PAIR.spread)
    escort = with_noise(recipe, problem, eps * PAIR.spread**2)
    path = free_of_divergence(escort.simulate(model, (paths, 2), rng(1)))
    return float((escort.log_w_along(path)[-1] - LOG_Z).exp().mean()) - 1


@pytest.mark.parametrize(
    "recipe, eps, push",
    [(Escorted(Ramp()), 0.35, 0.35), (Transported(), 0.0, 0.0)],
    ids=lambda p: str(p),
)
def test_bias_falls_with_the_step(recipe, eps, push):
    """Without the base's density the identities hold as dt -> 0: a bias of order one."""
    biases = [bias(recipe, eps, push, steps, 40_000) for steps in (5, 20)]
    assert 0.02 < abs(biases[0]) < 0.1
    order = math.log(biases[0] / biases[-1]) / math.log(4)
    assert 0.7 < order < 1.4


def test_a_carried_step_is_none_of_the_base_own():
    """With w dt left in the base's steps this bias is -.108, of order dt / eps."""
    assert abs(bias(Escorted(Ramp()), 0.1, 0.35, 10, 40_000)) < 0.03


@annealings
@pytest.mark.parametrize("recipe", [Escorted(eps=0.5), Transported(eps=0.5)], ids=lambda r: r.name)
def test_expectations_along_the_way(recipe, annealing):
    """Weighted by exp A_k the points are drawn from pi_t; both annealings end in Z."""
    problem, k = tilted(60), 36
    escort = replace(recipe, annealing=annealing).process(problem, problem.reward)
    path = free_of_divergence(escort.simulate(STILL, (8000, 2), rng(1)))
    log_w = escort.log_w_along(path)
    end = expectation(log_w[-1], path.x[-1, :, 0])
    assert abs(end.value - 1.44073) < 4 * end.se + 0.02
    assert log_mean_exp(log_w[-1]) == pytest.approx(LOG_Z, abs=0.04)
    if annealing != Ramp():
        return
    t = escort.times[k]
    slope = t * t * (3 - 2 * t) * SLOPE.double()
    log_Z, law = PAIR.law.noised(t, 1 - t).tilted_linear(slope)
    assert log_mean_exp(log_w[k]) == pytest.approx(log_Z, abs=0.02)
    for i in range(2):
        mean = expectation(log_w[k], path.x[k, :, i])
        assert abs(mean.value - float(law.weight @ law.mean[:, i])) < 4 * mean.se + 0.01


def test_the_error_of_a_weighted_mean():
    x = torch.randn(400, 300, generator=rng(), dtype=torch.float64)
    estimates = [expectation(0.8 * row, row) for row in x]
    means = torch.tensor([estimate.value for estimate in estimates])
    errors = torch.tensor([estimate.se for estimate in estimates])
    assert abs(z_score(means, 0.8)) < 5  # a ratio of means is biased by a little
    assert float(errors.mean() / means.std()) == pytest.approx(1, abs=0.12)
    plain = expectation(torch.zeros(300), x[0])
    assert plain.value == pytest.approx(float(x[0].mean()))
    assert plain.se == pytest.approx(float(x[0].std()) / math.sqrt(300))


@annealings
@pytest.mark.parametrize("base", [PAIR, Stationary(steps=50)], ids=lambda b: b.name)
def test_annealings_know_their_slopes(base, annealing):
    x = torch.randn(40, 2, generator=rng(), dtype=torch.float64)
    base = replace(base, steps=300)
    met = [annealing.at(base, bend, x, k) for k in range(301)]
    height, change = annealing.along(base, met)
    centred = (height[2:] - height[:-2]) * 150
    assert torch.allclose(change[1:-1], centred, atol=4e-3)
    for k in (1, 90, 210, 299):
        y = x.clone().requires_grad_()
        again, _ = annealing.along(base, [*met[:k], annealing.at(base, bend, y, k), *met[k + 1 :]])
        assert torch.allclose(torch.autograd.grad(again.sum(), y)[0], met[k].pull)
    assert torch.equal(height[0], torch.zeros(40, dtype=torch.float64))
    assert torch.allclose(height[-1], bend(x))


def test_hints_are_the_slopes_of_the_tilt():
    """A guided escort sees one hint: walking forward, walking back, and weighed again."""
    world = Gaussian(steps=3)
    problem, model = world.problem(), Guided(width=8).build(2, world.base, rng())
    with torch.no_grad():
        model.network.field.time[-1].bias[-1] = 1.0
        escort = Escorted().process(problem, problem.reward)
        for path in (
            escort.simulate(model, (5, 2), rng(1), guided=True),
            escort.retrace(model, world.sample(5, rng(2)), rng(3), guided=True),
        ):
            t = path.t[:, None, None]
            pull = (t * t * (3 - 2 * t) * world.slope).expand_as(path.x)
            assert torch.allclose(path.hint, pull, atol=1e-6)
            assert torch.allclose(path.u, 1.3 * pull, atol=1e-5)
            assert torch.allclose(along(model, path), path.u, atol=1e-6)


def test_what_action_matching_regresses_on_is_centred_by_its_weights():
    """Cov_pi(dA/dt, phi) of a constant phi is 0 at every time: with the weights under pi_t, which
    differ from those of the paths."""
    world = Gaussian(steps=5)
    problem = world.problem()
    escort = Escorted(eps=0.5).process(problem, problem.reward)
    model = Potential(width=8).build(2, world.base, rng())
    with torch.no_grad():
        path = escort.simulate(model, (60, 2), rng(1))
    batch = action.label(problem_on(escort, problem), model, path, 0.5, rng())
    weight, pressure = batch["weight"].double(), batch["pressure"].double()
    torch.testing.assert_close(
        weight, torch.softmax(escort.log_w_along(path), 1), atol=1e-6, rtol=0
    )
    assert (weight * pressure).sum(1).abs().max() < 1e-5 * pressure.abs().max()
    assert pressure[1:-1].mean(1).abs().max() > 1e-2 * pressure.abs().max()


def test_F_starts_where_the_first_paths_say():
    world = Gaussian(steps=20)
    problem, model = world.problem(), Mlp(width=8).build(2, world.base, rng())
    escort = Transported(eps=0.5).process(problem, problem.reward)
    with torch.no_grad():
        path = escort.simulate(model, (200, 2), rng())
        batch = pinn.label(problem_on(escort, problem), model, path, 0.0, rng())
        log_w = escort.log_w_along(free_of_divergence(path))
        fitted = -model.free_energy(path.t.double())
        assert torch.allclose(fitted, log_w.mean(1), atol=0.02 * world.log_Z)
        here = float(pinn.value(model, escort, batch, rng()))
        model.log_Z.add_(0.5)
        assert float(pinn.value(model, escort, batch, rng())) > here + 0.1


class Flow:
    """N(0, I) as a rectified flow, v = D'/(2 D) x with D = t^2 + (1-t)^2, tilted by r = c.x.

    pi_t = N(lambda D c, D I), F = -lambda^2 |c|^2 D / 2; perfect: w = (lambda' D + lambda D'/2) c.
    """

    def __init__(self, steps=20):
        self.base = MixtureFlow((1.0,), ((0.0, 0.0),), (1.0,), steps=steps)
        self.slope = torch.tensor([0.8, -0.5])

    def problem(self):
        return Problem(2, self.base, lambda x: (x * self.slope.to(x)).sum(-1))

    def near(self, theta):
        control = Beside(self, theta)
        return Model(control, energy=Known(control.free_energy_rate))


class Beside(Sloped):
    """The perfect escort of a Flow + theta (1/2 + cos x), as a gradient, with F exact."""

    def __init__(self, world, theta):
        super().__init__()
        self.world, self.theta = world, torch.nn.Parameter(torch.tensor(float(theta)))

    def push(self, t):
        share, rate, wide, widening = t * t * (3 - 2 * t), 6 * t * (1 - t), *self.width(t)
        return (rate * wide + share * widening / 2)[..., None]

    def width(self, t):
        return t**2 + (1 - t) ** 2, 4 * t - 2

    def potential(self, x, t):
        straight = self.push(t) * self.world.slope.to(x) * x
        return (straight + self.theta * (x / 2 + x.sin())).sum(-1)

    def control(self, x, t, hint=None):
        w = self.push(t) * self.world.slope.to(x) + self.theta * (0.5 + x.cos())
        return w / self.world.base.spread

    def free_energy_rate(self, t):
        share, rate, (wide, widening) = t * t * (3 - 2 * t), 6 * t * (1 - t), self.width(t)
        return -(share * rate * wide + share**2 * widening / 2) * self.world.slope.square().sum()


def test_the_residual_of_the_perfect_escort_is_zero_where_the_base_flows():
    world = Flow()
    problem, model = world.problem(), world.near(0.0)
    escort = Transported(eps=0.3).process(problem, problem.reward)
    with torch.no_grad():
        path = escort.simulate(model, (200, 2), rng(1))
        batch = pinn.label(problem_on(escort, problem), model, path, 0.5, rng())
        assert float(pinn.value(model, escort, batch, rng(4))) < 1e-8
        assert float(pinn.value(world.near(0.1), escort, batch, rng(4))) > 1e-3


def slopes(name, theta, batches=8, world=None):
    world = world or Gaussian()
    problem = world.problem()
    sampler = replace(PRESETS[name], paths=256)
    per_seed = []
    for seed in range(batches):
        model = world.near(theta)
        batch = sampler.batch(problem, model, 0.5, rng(seed))
        value = sampler.loss.value(model, sampler.posed(problem).base, batch, rng(seed))
        per_seed.append(torch.autograd.grad(value, model.network.theta)[0].double())
    return torch.stack(per_seed)


@presets
def test_stationary_and_attracting_at_the_perfect_escort(name):
    check_slopes(*(slopes(name, theta) for theta in (0.0, 0.3, -0.3)))


@presets
def test_stationary_where_the_base_flows(name):
    """v is not 0 here; the kernel ratio is right as dt -> 0 only."""
    check_slopes(*(slopes(name, theta, world=Flow()) for theta in (0.0, 0.3, -0.3)))


def check_slopes(at, right, left):
    assert z_score(right, 0) > 4 and z_score(left, 0) < -4
    allowed = 4 * at.std() / math.sqrt(len(at)) + 0.05 * float(right.mean() - left.mean())
    assert abs(at.mean()) < allowed


@presets
@pytest.mark.parametrize("guided", [False, True], ids=["unguided", "guided"])
def test_price_is_what_a_step_pays(name, guided):
    if guided and not name.startswith("cmcd"):
        pytest.skip("its network is not guided")
    sampler = replace(PRESETS[name], reference=Stationary(steps=5, scale=2.0), paths=7)
    sampler = replace(sampler, model=Guided(width=16)) if guided else sampler
    meter = Meter(Cost(10**6, 10**6))
    posed = Mixture(sampler.reference).problem()
    problem = Problem(2, sampler.reference, meter.watch(posed.reward))
    state = sampler.init(problem, meter.budget, rng())
    for n in (1, 2):
        state = sampler.step(problem, state, rng())
        assert meter.spent == sampler.price(problem, state.model).times(n) == state.paid
    meter.spent = Cost()
    sampler.draw(problem, state, 3, rng())
    assert meter.spent == Cost(3 * 7, 3 * 6)


def test_a_step_refused_in_its_backward_pass_has_paid_for_nothing():
    """One gradient short of a second step, which finds out when its batch is there already."""
    base = Stationary(steps=5, scale=2.0)
    sampler = replace(PRESETS["cmcd_kl"], reference=base, paths=7, model=Mlp(width=8))
    price = sampler.recipe.price(sampler.loss, 7, 5, False)
    meter = Meter(price.times(2).minus(Cost(grads=1)))
    problem = Problem(2, base, meter.watch(Mixture(base).problem().reward))
    state = sampler.init(problem, meter.budget, rng())
    state = sampler.step(problem, state, rng())
    before = {key: value.clone() for key, value in sampler.tensors(state).items()}
    ring, (batch,) = state.ring, state.ring
    with pytest.raises(BudgetExceeded):
        sampler.step(problem, state, rng())
    assert meter.spent.values == 2 * price.values  # the batch was simulated
    assert state.paid == price and state.iteration == 1
    assert state.ring is ring and len(ring) == 1 and ring[0] is batch
    assert all(torch.equal(before[key], value) for key, value in sampler.tensors(state).items())


@presets
def test_training_approaches_the_target(name):
    world = Gaussian(steps=10, slope=(1.0, -0.6))
    problem = world.problem()
    again = {} if PRESETS[name].loss.through_path else {"repeats": 1, "memory": 4}
    sampler = replace(PRESETS[name], reference=world.base, paths=64, lr=5e-3, **again)
    sampler = replace(sampler, model=replace(sampler.model, width=16))
    # one Gaussian is no narrower at the end: the noise need not fall
    sampler = replace(sampler, recipe=replace(sampler.recipe, eps=0.5, ratio=1.0))
    steps = 100
    state = sampler.init(problem, Cost(), rng(1))
    before = sampler.draw(problem, state, 1000, rng(2)).log_w
    state.budget = sampler.price(problem, state.model).times(steps)
    generator = rng(1)
    for _ in range(steps):
        state = sampler.step(problem, state, generator)
    after = sampler.draw(problem, state, 1000, rng(2))
    gap = [world.log_Z - float(log_w.mean()) for log_w in (before, after.log_w)]
    assert abs(gap[1]) < 0.15 * gap[0] + 0.003  # resampled, it is near before
    assert ess(after.log_w) > 0.65
    back = sampler.reverse(problem, state, world.sample(1000, rng(4)), rng(5))
    if back is None:  # resampled
        return
    both = bar(after.log_w, back.log_w)
    assert abs(both.value - world.log_Z) < 4 * both.se + 0.02
    if not sampler.loss.learns_log_Z:
        return
    assert after.log_Z.value == pytest.approx(world.log_Z, abs=0.1)
    t = torch.linspace(0, 1, 11)
    truth = -(t**4) * (3 - 2 * t) ** 2 * world.log_Z
    assert torch.allclose(state.model.free_energy(t).float(), truth, atol=0.15)
    # the same escort under any other noise, and weighed by the other form
    for recipe in (Transported(eps=0.0), Transported(ThroughDenoiser(), eps=0.3), Escorted()):
        draws = replace(sampler, recipe=recipe).draw(problem, state, 1000, rng(3))
        assert log_mean_exp(draws.log_w) == pytest.approx(world.log_Z, abs=0.1)


@presets
def test_equal_seeds_give_equal_runs(name):
    world = Gaussian(steps=4)
    sampler = replace(PRESETS[name], reference=world.base, paths=16)

    def run():
        torch.rand(1)  # the global generator plays no part
        generator = rng(3)
        state = sampler.init(world.problem(), Cost(10**4, 10**4), generator)
        for _ in range(3):
            state = sampler.step(world.problem(), state, generator)
        return sampler.draw(world.problem(), state, 10, rng(4)).log_w

    assert torch.equal(run(), run())


@presets
def test_presets_are_built_back_from_their_specs(name):
    sampler = build_sampler({"name": name, "params": {}})
    assert sampler == PRESETS[name]
    assert build_sampler(spec(sampler)) == sampler


def shaken(network, dim, process=None):
    model = network.build(dim, process or Stationary(scale=1.7), rng()).double()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=rng(1), dtype=p.dtype))
        model.network.field.out.weight.mul_(100)  # far enough for the squash to be felt
    return model


@pytest.mark.parametrize("network", [Mlp(width=8), Potential(width=8)], ids=lambda n: n.name)
def test_stretches_are_the_jacobian(network):
    model, x = shaken(network, 3), torch.randn(5, 3, generator=rng(2), dtype=torch.float64)
    t = torch.tensor(0.3)
    axes = torch.randn(5, 2, 3, generator=rng(3), dtype=torch.float64)
    u, stretches = model.stretched(x, t, axes)
    jacobian = torch.stack(
        [torch.autograd.functional.jacobian(lambda y: model.control(y, t), y) for y in x]
    )
    assert torch.allclose(u, model.control(x, t))
    assert torch.allclose(stretches, torch.einsum("bmi,bij,bmj->bm", axes, jacobian, axes))
    generic = by_products(lambda y: model.control(y, t), x, axes)[1]
    grads = [
        torch.autograd.grad(f.square().sum(), model.network.field.state.weight)[0]
        for f in (stretches, generic)
    ]
    assert torch.allclose(*grads)


def test_the_divergence_on_a_subspace_is_that_of_what_moves_there():
    """Of a control of particles, whose centre of mass stays: the trace of its Jacobian."""
    process = Confined(Stationary(scale=1.7), Dw4())
    model, axes = shaken(Mlp(width=8), 8, process), torch.eye(8, dtype=torch.float64)
    x, t = process.project(torch.randn(8, generator=rng(2), dtype=torch.float64)), torch.tensor(0.3)
    u, each = model.stretched(x, t, axes)
    assert u.unflatten(-1, (4, 2)).mean(0).abs().max() < 1e-12
    jacobian = torch.autograd.functional.jacobian(lambda y: model.control(y, t), x)
    torch.testing.assert_close(each.sum(), jacobian.trace())


def test_a_potential_is_what_its_control_descends_from():
    model, x = shaken(Potential(width=8), 3), torch.randn(5, 3, generator=rng(2)).double()
    x.requires_grad_()
    (slope,) = torch.autograd.grad(model.potential(x, torch.tensor(0.3)).sum(), x)
    assert torch.allclose(model.control(x, torch.tensor(0.3)), slope / 1.7)


def test_divergences_along_a_path():
    model, world = shaken(Mlp(width=8), 2).float(), Gaussian(steps=3)
    problem = world.problem()
    path = Transported().process(problem, problem.reward).simulate(model, (4, 2), rng())
    x, t = path.x[2, 1], path.t[2]
    jacobian = torch.autograd.functional.jacobian(lambda y: model.control(y, t), x)
    assert divergences(model, path)[2, 1] == pytest.approx(float(jacobian.trace()), rel=1e-4)


class Sheared(Control):
    """u = M x."""

    matrix = torch.randn(12, 12, generator=rng(7))

    def control(self, x, t, hint=None):
        return 0.3 * x @ self.matrix.T


def test_hutchinson_is_unbiased(monkeypatch):
    """The product of two independent residuals has the mean of the exact square."""
    problem = Problem(12, Stationary(steps=3), lambda x: 0.1 * x.sum(-1))
    escort, model = Transported().process(problem, problem.reward), Model(Sheared())
    path = escort.simulate(STILL12, (10, 12), rng())
    batch = pinn.label(problem_on(escort, problem), model, path, 0.5, rng())
    guesses = torch.stack([pinn.value(model, escort, batch, rng(i)).detach() for i in range(200)])
    monkeypatch.setattr(pinn, "EXACT", 12)
    exact = torch.stack([pinn.value(model, escort, batch, rng(i)).detach() for i in range(200)])
    assert (guesses - exact).std() > 0.1 * exact.mean()
    assert abs(z_score(guesses - exact, 0.0)) < 4


def test_F_is_bent_by_sines_of_their_own_waves():
    """F(t) = -t log Z + sum_j bend_j sin(j pi t) / (j pi)."""
    energy, t = FreeEnergy(), torch.linspace(0, 1, 7, dtype=torch.float64)
    with torch.no_grad():
        energy.log_Z.fill_(0.3)
        energy.bend.copy_(torch.arange(1.0, 9.0))
        stated = -0.3 * t
        for j in range(1, 9):
            stated = stated + j * torch.sin(j * math.pi * t) / (j * math.pi)
        torch.testing.assert_close(energy.at(t), stated)


def test_dF_dt_is_the_derivative_of_F():
    model = Mlp().build(2, Stationary(), rng())
    with torch.no_grad():
        model.log_Z.fill_(0.7)
        model.energy.bend.copy_(torch.randn(8, generator=rng()))
    t = torch.linspace(0, 1, 5, dtype=torch.float64, requires_grad=True)
    (rate,) = torch.autograd.grad(model.free_energy(t).sum(), t)
    assert torch.allclose(rate, model.free_energy_rate(t))


def test_what_does_not_apply_is_said():
    reward = Gaussian().problem().reward
    point = replace(PAIR, schedule=Foellmer())
    for base in (Brownian(), point):
        for recipe in (Escorted(), Transported()):
            with pytest.raises(Unsupported, match="reference=Stationary"):
                recipe.process(Problem(2, base, reward), reward)
    problem = Gaussian(steps=3).problem()
    wrong = {
        "recipe=Escorted": replace(PRESETS["cmcd_lv"], recipe=Transported()),
        "unguided network": replace(PRESETS["nets_pinn"], model=Guided()),
        "model=Potential": replace(PRESETS["nets_action"], model=Mlp()),
    }
    for words, sampler in wrong.items():
        with pytest.raises(Unsupported, match=words):
            sampler.step(problem, sampler.init(problem, Cost(), rng()), rng())
    with pytest.raises(ValueError, match="eps is 0.0; it must be positive"):
        Escorted(eps=0.0)
