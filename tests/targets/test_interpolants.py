"""Interpolants: schedules, the mixture's closed forms, steppings, what the noise decides."""

import itertools
import math

import pytest
import torch

from tests.tools.worlds import rng, weights_of, z_score
from tiltbench.plan.spec import build_target, parse
from tiltbench.targets.bases import noised_mixture
from tiltbench.targets.bases.components import Components
from tiltbench.targets.bases.interpolant import (
    Ancestral,
    Constant,
    Converted,
    Euler,
    Interpolant,
    Regularised,
)
from tiltbench.targets.bases.mixture_flow import MixtureFlow
from tiltbench.targets.bases.noising import Noising
from tiltbench.targets.bases.optimal import Optimal
from tiltbench.targets.bases.process import Controlled, Process, retrace, simulate
from tiltbench.targets.bases.schedules import RectifiedFlow, VariancePreserving
from tiltbench.targets.problem import Problem
from tiltbench.targets.registry import SCHEDULES

ALL = [SCHEDULES.load(name)() for name in sorted(SCHEDULES.entries)]
each = pytest.mark.parametrize("schedule", ALL, ids=[s.name for s in ALL])
STEPPINGS = [Ancestral(), Regularised(h=0.1), Converted(level=1.0, h=0.1), Constant()]
stepped = pytest.mark.parametrize("stepping", STEPPINGS, ids=[s.name for s in STEPPINGS])

LINE = {"weights": (0.4, 0.6), "means": ((-1.5,), (1.2,)), "variances": (0.3, 0.2)}
PLANE = {"weights": (0.4, 0.6), "means": ((-1.5, 0.0), (1.5, 0.5)), "variances": (0.3, 0.2)}
# 2 eta, which is sigma^2 of the process whose noise is memoryless
NOISE = {
    "RectifiedFlow": lambda t: 2 * (1 - t) / t,
    "VariancePreserving": lambda t: 20 - 19.9 * t,
    "Trigonometric": lambda t: math.pi / math.tan(math.pi * t / 2),
    "Foellmer": lambda t: 1.0,
}


def gaussian(mean, var, **more):
    return MixtureFlow((1.0,), ((mean,),), (var,), **more)


class Zero(Controlled):
    def control(self, x, t, hint=None):
        return torch.zeros_like(x)


class Random(Controlled):
    """A smooth control that has nothing to do with the problem."""

    def control(self, x, t, hint=None):
        return torch.sin(2 * x.flip(-1) + 3 * t[..., None]) - 0.3 * x


def slope(x, y):
    x, y = (torch.tensor(v, dtype=torch.float64).log() for v in (x, y))
    return float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())


WORLDS = {  # few coordinates, many of them, and more than are taken at once
    "plane": PLANE,
    "wide": {
        "weights": (0.5, 0.2, 0.3),
        "means": tuple(tuple(math.sin(7 * j + i) for i in range(9)) for j in range(3)),
        "variances": (0.3, 0.2, 0.5),
    },
    "wider": {
        "weights": (0.4, 0.6),
        "means": tuple(tuple(math.sin(7 * j + i) for i in range(150)) for j in range(2)),
        "variances": (0.3, 0.2),
    },
    "many": {
        "weights": (0.1,) * 10,
        "means": tuple((math.sin(3 * j), math.cos(5 * j)) for j in range(10)),
        "variances": tuple(0.1 + 0.05 * j for j in range(10)),
    },
}
worlds = pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)


def points_of(base, n=6):
    """(K + 1, n, D) float64: noised draws at every time of the grid."""
    x1 = base.law.sample(n, rng(1))
    return torch.stack([base.renoise(x1, k, rng(2)) for k in range(base.steps + 1)])


@each
@worlds
def test_a_mixture_along_its_grid_is_the_noised_mixture(world, schedule):
    base = MixtureFlow(**world, schedule=schedule, steps=5)
    at = torch.arange(base.steps + 1)
    points = points_of(base)
    expected = [(base.denoise(x, k), base.score(x, k)) for k, x in enumerate(points)]
    for k, x in enumerate(points):
        levels = base.signals[k], base.noises[k] if k else base.noises[0] or 1.0
        assert torch.allclose(expected[k][0], base.law.denoise(x, *levels), rtol=1e-10, atol=1e-10)
        assert torch.allclose(expected[k][1], base.law.score(x, *levels), rtol=1e-10, atol=1e-10)
        near = [*expected[k], *base.current(x, k)]
        away = [*expected[k], base.velocity(x, k), expected[k][1]]
        alike = base.denoise(x, at[k : k + 1].expand(len(x))), base.score(x, k), *base.current(x, k)
        for a, b, c in zip(near, away, alike, strict=True):
            assert torch.allclose(a, b, rtol=1e-10) and torch.allclose(a, c, rtol=1e-10)
        assert base.denoise(x.float(), k).dtype == torch.float32
    whole = base.denoise(points, at[:, None])  # a level for many points at once
    assert torch.allclose(whole, torch.stack([end for end, _ in expected]), rtol=1e-10)
    assert torch.allclose(base.denoise(points[2][0], 2), expected[2][0][0], rtol=1e-10)


@pytest.mark.parametrize("m, d", [(2, 5), (5, 2), (5, 6), (20, 30)])
def test_a_mixture_is_noised_by_numbers_and_by_tensors_alike(m, d):
    """Whichever way its distances are taken."""
    mean = 2 * torch.randn(m, d, generator=rng(1), dtype=torch.float64)
    law = Components(torch.full((m,), 1 / m).double(), mean, torch.linspace(0.2, 1, m).double())
    x = torch.randn(7, d, generator=rng(2), dtype=torch.float64, requires_grad=True)
    noised = law.noised(0.7, 0.5)
    log_p = noised.log_density(x)
    (slope,) = torch.autograd.grad(log_p.sum(), x)
    assert torch.allclose(noised.score(x), slope)
    for signal in (0.7, torch.tensor(0.7).double(), torch.full((7, 1), 0.7).double()):
        assert torch.allclose(law.log_density(x, signal, 0.5), log_p)
        assert torch.allclose(law.score(x, signal, 0.5), slope)


@stepped
@worlds
@pytest.mark.parametrize("at_once", [2**22, 1], ids=["whole", "parts"])
def test_a_mixture_is_pulled_back_as_autograd_does(world, stepping, at_once, monkeypatch):
    monkeypatch.setattr(noised_mixture, "AT_ONCE", at_once)
    base = MixtureFlow(**world, stepping=stepping, steps=4)
    points = points_of(base)
    a = torch.randn(points[0].shape, generator=rng(3), dtype=torch.float64)
    back = base.pull_backs(points)
    for k in reversed(range(base.steps)):
        expected = Process.pull_back(base, points[k], k, a)
        assert torch.allclose(back(k, a), expected, rtol=1e-9, atol=1e-12)
        assert torch.allclose(base.pull_back(points[k], k, a), expected, rtol=1e-9, atol=1e-12)
        a = expected
    alone = base.pull_backs(points[:, 0])
    assert torch.allclose(alone(0, a[0]), back(0, a)[0], rtol=1e-9)


@stepped
def test_a_step_of_a_mixture_is_that_of_any_interpolant(stepping):
    base = MixtureFlow(**PLANE, stepping=stepping, steps=4)
    for k, x in enumerate(points_of(base)[:-1]):
        mean = Interpolant.mixed(base, x, k, stepping.mix(base, k))
        assert torch.allclose(base.base(x, k).mean, mean, rtol=1e-10)
        assert torch.allclose(base.mixed(x, k, stepping.mix(base, k)), mean, rtol=1e-10)


def test_one_component_is_drawn_as_torch_draws_it():
    base = MixtureFlow(**PLANE, steps=4)
    x = points_of(base, 50)[2]
    share = base.law.share(x, base.signals[2], base.noises[2])
    j = torch.multinomial(share, 1, generator=(g := rng(4)))[:, 0]
    xi = torch.randn(x.shape, generator=g, dtype=x.dtype)
    a, b, var = base.signals[2], base.noises[2], base.law.var[j][:, None]
    gain, mean = a * var / (a * a * var + b * b), base.law.mean[j]
    expected = mean + gain * (x - a * mean) + (var * (1 - a * gain)).sqrt() * xi
    assert torch.allclose(base.posterior(x, torch.full((50,), 2), rng(4)), expected)


# schedules


@each
def test_ends_of_a_schedule(schedule):
    start = {"VariancePreserving": math.exp(-20.1 / 4)}.get(schedule.name, 0.0)
    assert schedule.signal(0.0) == pytest.approx(start, abs=1e-15)
    assert schedule.signal(1.0) == 1 and schedule.noise_power(1.0) == 0
    assert VariancePreserving().signal(0.0) == pytest.approx(0.0066, abs=5e-5)


@each
def test_rates_of_a_schedule(schedule):
    h = 1e-5
    for t in (0.0 + h, 0.13, 0.5, 0.87, 1.0 - h):
        for f, rate in (
            (schedule.signal, schedule.signal_rate),
            (schedule.noise_power, schedule.noise_power_rate),
        ):
            assert (f(t + h) - f(t - h)) / (2 * h) == pytest.approx(rate(t), rel=1e-6, abs=1e-6)


@each
def test_memoryless_noise_of_a_schedule(schedule):
    """eta = kappa beta^2 - (beta^2)'/2 > 0, and the ancestral step has sigma^2 = 2 eta."""
    for t in (0.05, 0.2, 0.5, 0.8, 0.99):
        kappa = schedule.signal_rate(t) / schedule.signal(t)
        eta = kappa * schedule.noise_power(t) - schedule.noise_power_rate(t) / 2
        assert eta > 0
        assert 2 * eta == pytest.approx(NOISE[schedule.name](t), rel=1e-9)
    base = MixtureFlow(**PLANE, schedule=schedule, steps=400)
    for k in (80, 200, 320):
        fresh = base.stepping.parts(base, k)[2] * base.steps
        middle = (base.times[k] + base.times[k + 1]) / 2
        assert fresh == pytest.approx(NOISE[schedule.name](middle), rel=0.03)
        assert base.stds[k] ** 2 * base.steps == pytest.approx(fresh, rel=0.03)


def test_regularised_noise_tends_to_the_memoryless():
    noise = NOISE["RectifiedFlow"]
    for h in (1e-1, 1e-2, 1e-3):
        worst = max(abs(Regularised(h=h).sigma(t) ** 2 / noise(t) - 1) for t in (0.2, 0.5, 0.8))
        assert 0.1 * h < worst < 20 * h


# closed forms against Bayes, by quadrature on the line


def bayes(base, x, k):
    """(E, Var of X_1 given X_{t_k} = x, log p_{t_k}(x)) by the trapezoidal rule."""
    y = torch.linspace(-6, 6, 24_001, dtype=torch.float64)
    alpha, beta = base.signals[k], base.noises[k]
    joint = base.log_end(y[:, None]) - (x[:, None] - alpha * y).square() / (2 * beta**2)
    log_p = joint.logsumexp(-1) + math.log(float(y[1] - y[0]) / (beta * math.sqrt(2 * math.pi)))
    share = torch.softmax(joint, -1)
    mean = share @ y
    return mean, share @ y.square() - mean.square(), log_p


@each
def test_denoiser_uncertainty_and_score_against_bayes(schedule):
    base = MixtureFlow(**LINE, schedule=schedule, steps=20)
    x = torch.linspace(-3, 3, 7, dtype=torch.float64, requires_grad=True)
    for k in (1, 7, 14, 19):
        mean, var, log_p = bayes(base, x, k)
        score = torch.autograd.grad(log_p.sum(), x)[0]
        at = x.detach()[:, None]
        assert torch.allclose(base.denoise(at, k)[:, 0], mean, atol=1e-9)
        left = base.law.left(at, base.signals[k], base.noises[k])
        assert torch.allclose(left, var, atol=1e-9)
        assert torch.allclose(base.score(at, k)[:, 0], score, atol=1e-8)
        tweedie = (at + base.noises[k] ** 2 * base.score(at, k)) / base.signals[k]
        assert torch.allclose(base.denoise(at, k), tweedie, atol=1e-9)
        mixed = torch.full((7,), k)
        assert torch.allclose(base.denoise(at, mixed), base.denoise(at, k))
        assert torch.allclose(base.score(at, mixed), base.score(at, k))
        assert torch.allclose(base.velocity(at, mixed), base.velocity(at, k))


def test_uncertainty_is_the_mean_of_what_is_left():
    base = MixtureFlow(**PLANE, steps=5)
    x1 = base.end((40_000, 2), rng(1), torch.float64)
    for k in range(5):
        x = base.renoise(x1, k, rng(2 + k))
        error = (x1 - base.denoise(x, k)).square().mean(-1)
        assert error.mean() == pytest.approx(base.uncertainty[k] ** 2, rel=0.03)


@each
def test_posterior_has_the_moments_of_bayes(schedule):
    base = MixtureFlow(**LINE, schedule=schedule, steps=20)
    n = 40_000
    k = torch.tensor([1, 7, 14, 19]).repeat(n, 1)
    x = torch.tensor([0.1, -0.4, 0.2, -1.0], dtype=torch.float64).repeat(n, 1)
    draws = base.posterior(x[..., None], k, rng(3))[..., 0]
    for i, step in enumerate((1, 7, 14, 19)):
        mean, var, _ = bayes(base, x[:1, i], step)
        assert abs(z_score(draws[:, i], float(mean))) < 4
        assert abs(z_score((draws[:, i] - mean).square(), float(var))) < 4


@each
def test_start_and_end_of_the_closed_forms(schedule):
    """No division by a vanishing level; a point start knows nothing of the end."""
    base = MixtureFlow(**PLANE, schedule=schedule, steps=4)
    x = torch.zeros(3, 2) if schedule.noise_power(0.0) == 0 else torch.randn(3, 2, generator=rng(4))
    prior = (base.law.weight @ base.law.mean).float().expand(3, 2)
    assert torch.allclose(base.denoise(x, 0), prior, atol=0.05)  # alpha_0 of VP is not 0
    end = torch.randn(3, 2, generator=rng(4))
    assert torch.allclose(base.denoise(end, 4), end, atol=1e-6)
    for k in (0, 4):
        for f in (base.score, base.velocity, base.denoise_rate):
            assert f(x, k).isfinite().all()


@each
def test_rate_of_the_denoiser_by_differences(schedule):
    base = MixtureFlow(**PLANE, schedule=schedule, steps=4000)
    h = 1 / base.steps
    x = torch.randn(5, 2, generator=rng(5), dtype=torch.float64)
    for k in (400, 2000, 3600):
        expected = (base.denoise(x, k + 1) - base.denoise(x, k - 1)) / (2 * h)
        assert torch.allclose(base.denoise_rate(x, k), expected, rtol=1e-3, atol=1e-3)
    mixed = torch.tensor([0, 400, 2000, 3600, 4000])
    x[0] = 0  # where a point start is
    rates = base.denoise_rate(x, mixed)
    for i, k in enumerate(mixed.tolist()):
        assert torch.allclose(rates[i], base.denoise_rate(x[i], k))
        # one-sided at the ends, to second order
        if k in (0, 4000):
            near = [base.denoise(x[i], abs(k - j)) for j in (0, 1, 2)]
            sign = 1 if k == 0 else -1
            expected = sign * (4 * near[1] - 3 * near[0] - near[2]) / (2 * h)
            assert torch.allclose(rates[i], expected, rtol=0.01, atol=0.01), k


def cdf(base, x, k):
    """P(X_{t_k} < x) on the line."""
    law = base.law.noised(base.signals[k], base.noises[k])
    return torch.special.ndtr((x - law.mean[:, 0]) / law.var.sqrt()) @ law.weight


@each
def test_velocity_transports_the_noised_law(schedule):
    """The flow is monotone, so that every path keeps its quantile."""
    base = MixtureFlow(**LINE, schedule=schedule, steps=200)
    k0 = 2 if schedule.noise_power(0.0) == 0 else 0  # a point start has no quantiles
    x = base.start_std if k0 == 0 else math.sqrt(base.noise(base.times[2]) ** 2)
    x = x * torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    quantile = cdf(base, x, k0)
    assert (quantile.diff() > 0).all()
    for k in range(k0, base.steps):
        v = base.velocity(x, k)
        x = x + (v + base.velocity(x + v / base.steps, k + 1)) / (2 * base.steps)
        if k % 50 == 49:
            assert torch.allclose(cdf(base, x, k + 1), quantile, atol=2e-3), k


# steppings


def terminal(base, control=lambda x, k: 0 * x):
    """(mean, variance) of the end of a chain whose steps are affine, on the line."""
    x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    mean, var = 0.0, base.start_std**2
    for k, (s, t) in enumerate(zip(base.times, base.times[1:], strict=False)):
        kernel = base.base(x, k)
        at = (kernel.mean + kernel.std * math.sqrt(t - s) * control(x, k))[:, 0]
        gain = float(at[1] - at[0])
        mean, var = gain * mean + float(at[0]), gain**2 * var + kernel.std**2
    return mean, var


@each
def test_ancestral_chain_of_a_gaussian_is_exact_at_four_steps(schedule):
    base = gaussian(0.0, 0.25, schedule=schedule, steps=4)
    assert terminal(base) == pytest.approx((0.0, 0.25), abs=1e-12)
    moved = gaussian(1.0, 0.25, schedule=schedule, steps=4)
    assert terminal(moved) == pytest.approx((1.0, 0.25), abs=1.1e-5)  # alpha_0 of VP is not 0
    problem = Problem(1, base, lambda x: (0.8 * x).sum(-1))
    w = weights_of(problem, simulate(base, Random(), (100_000, 1), rng(6), dtype=torch.float64))
    assert abs(z_score(w.exp(), math.exp(0.8**2 * 0.25 / 2))) < 4
    ends = 0.2 + 0.5 * torch.randn(50_000, 1, generator=rng(7), dtype=torch.float64)
    w = weights_of(problem, retrace(base, Random(), ends, rng(8)))  # p* = N(.2, .25)
    assert abs(z_score((-w).exp(), math.exp(-(0.8**2) * 0.25 / 2))) < 4


@each
def test_ancestral_chain_has_the_noised_law(schedule):
    base = MixtureFlow(**PLANE, schedule=schedule, steps=50)
    n = 10_000
    path = simulate(base, Zero(), (n, 2), rng(9), dtype=torch.float64)
    for k in (0, 12, 25, 37, 50):
        law = base.law.noised(base.signals[k], base.noises[k])
        if k == 0 and base.noises[0] == 0:
            assert not path.x[0].any()
            continue
        exact = law.sample(n, rng(10 + k))
        for f in (lambda x: x[:, 0], lambda x: x[:, 1], lambda x: x.square().sum(-1), torch.sin):
            a, b = f(path.x[k]).reshape(n, -1)[:, 0], f(exact).reshape(n, -1)[:, 0]
            error = math.sqrt(float(a.var() + b.var()) / n)
            assert abs(float(a.mean() - b.mean())) < 4 * error + 0.5 / base.steps, k


def test_reversal_of_the_ancestral_chain_is_the_noising_chain():
    base = MixtureFlow(**PLANE, steps=5)
    x1 = base.end((50_000, 2), rng(11), torch.float64)
    path = retrace(base, Zero(), x1, rng(12))
    for k in range(6):
        residual = path.x[k] - base.signals[k] * x1
        assert k == 5 or abs(z_score(residual.square().flatten(), base.noises[k] ** 2)) < 4
        assert abs(z_score((residual * x1).sum(-1), 0.0)) < 4 or k == 5


def log_Z_of_the_chain(base):
    """log E exp(.8 X_K), the law of the chain carried on a grid."""
    y = torch.linspace(-6, 6, 801, dtype=torch.float64)
    p = torch.exp(-y.square() / (2 * base.start_std**2))
    for k in range(base.steps):
        mean, std = base.base(y[:, None], k)
        kernel = torch.exp(-(y - mean).square() / (2 * std**2))
        p = (p / p.sum()) @ (kernel / kernel.sum(-1, keepdim=True))
    return math.log(float(p @ torch.exp(0.8 * y) / p.sum()))


def test_order_of_the_ancestral_chain():
    """The law of the chain of a mixture is O(1/K) from that of the base: -.0044 of log Z at 40."""
    counts = [20, 40, 80]
    exact = MixtureFlow(**LINE).law.tilted_linear(torch.tensor([0.8], dtype=torch.float64))[0]
    errors = [abs(log_Z_of_the_chain(MixtureFlow(**LINE, steps=n)) - exact) for n in counts]
    assert errors[1] == pytest.approx(0.0044, abs=2e-4)
    assert slope(counts, errors) == pytest.approx(-1, abs=0.06)


@stepped
@pytest.mark.parametrize("steps", [4])
def test_weights_are_exact_for_the_chain_s_own_Z(stepping, steps):
    """E[exp log_w] under a random control is E[exp r] without one, at four steps."""
    base = MixtureFlow(**PLANE, stepping=stepping, steps=steps)
    problem = Problem(2, base, lambda x: 0.8 * x[..., 0] - 0.5 * x[..., 1])
    free, bent = (
        weights_of(problem, simulate(base, model, (30_000, 2), rng(seed), dtype=torch.float64))
        for model, seed in ((Zero(), 13), (Random(), 14))
    )
    error = math.sqrt(sum(float(w.exp().var()) / len(w) for w in (free, bent)))
    assert abs(float(bent.exp().mean() - free.exp().mean())) < 4 * error
    assert error < 0.1 * float(free.exp().mean())  # it has power


# what the noise decides (math.md 2)


def test_memory():
    for h in (0.01, 0.02, 0.05):
        assert gaussian(0.0, 1.0, stepping=Regularised(h=h)).memory == pytest.approx(h, rel=0.2)
    assert gaussian(0.0, 1.0, stepping=Constant()).memory == pytest.approx(0.456, abs=5e-4)
    assert gaussian(0.0, 1.0).memory == 0
    assert gaussian(0.0, 1.0, schedule=VariancePreserving()).memory == pytest.approx(
        0.0066, abs=1e-4
    )


@pytest.mark.parametrize("stepping", [Regularised(h=0.01), Constant()], ids=["h", "constant"])
def test_any_noise_ends_in_the_base(stepping):
    mean, var = terminal(gaussian(1.0, 0.25, stepping=stepping, steps=200))
    assert mean == pytest.approx(1.0, abs=1e-9)
    assert var == pytest.approx(0.25, rel=1e-3)


def test_the_memoryless_drift_with_regularised_noise_is_biased():
    """2 v - kappa x, which is right for sigma^2 = 2 eta only: +2.3 % of the variance at h = .01."""
    base = gaussian(1.0, 0.25, stepping=Regularised(h=0.01), steps=1500)
    x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    dt, var = 1 / base.steps, base.noise(1 / base.steps) ** 2
    for k in range(1, base.steps):
        at = (x + dt * (2 * base.velocity(x, k) - x / base.times[k]))[:, 0]
        var = float(at[1] - at[0]) ** 2 * var + base.stepping.sigma(base.times[k]) ** 2 * dt
    assert var / 0.25 - 1 == pytest.approx(0.023, abs=0.002)


GOAL, WIDTH = 1.2, 0.3  # the target N(1.2, .3) of math.md 2


def optimum_with_memory(base):
    """sigma grad log E_base[exp r(X_1) | X_t = x], (X_t, X_1) jointly Gaussian with correlation
    exp(-int_t^1 sigma^2 / (2 D)), r = log N(x; m, tau^2) - log N(x; 0, 1)."""
    n = 200  # midpoints a step
    rate = []
    for k in range(base.steps):
        mid = [(k + (i + 0.5) / n) / base.steps for i in range(n)]
        rate.append(sum(1 / (2 * (t * t + (1 - t) ** 2)) for t in mid) / (n * base.steps))

    def control(x, k):
        t, rho = base.times[k], math.exp(-sum(rate[k:]))
        gain, var = rho / math.sqrt(t * t + (1 - t) ** 2), 1 - rho**2
        precision = 1 / var + 1 / WIDTH - 1
        mean = (gain * x / var + GOAL / WIDTH) / precision  # of X_1 under the tilted law
        return gain / var * (mean - gain * x)

    return control


def test_a_noise_with_memory_misses_the_target():
    """The optimum of the control problem ends in N(1.1124, .3037), not in N(1.2, .3)."""
    ends = []
    for steps in (100, 200):
        base = gaussian(0.0, 1.0, stepping=Constant(), steps=steps)
        ends.append(terminal(base, optimum_with_memory(base)))
    (m1, v1), (m2, v2) = ends
    assert 2 * m2 - m1 == pytest.approx(1.1124, abs=2e-4)
    assert 2 * v2 - v1 == pytest.approx(0.3037, abs=2e-4)
    assert abs(m2 - GOAL) > 0.08  # measurably wrong


@each
def test_the_memoryless_optimum_ends_in_the_target(schedule):
    def noised_score(x, signal, noise):
        var = (signal**2 * WIDTH + noise**2)[..., None]
        return (signal[..., None] * GOAL - x) / var

    variances = []
    for steps in (50, 100):
        base = gaussian(0.0, 1.0, schedule=schedule, steps=steps)
        best = Optimal(base, noised_score)

        def control(x, k, base=base, best=best):
            return best.control(x, torch.tensor(base.times[k]))

        mean, var = terminal(base, control)
        assert mean == pytest.approx(GOAL, abs=2e-5)
        variances.append(var)
    assert 2 * variances[1] - variances[0] == pytest.approx(WIDTH, abs=5e-4)
    assert variances[1] == pytest.approx(WIDTH, abs=0.01)


@each
def test_optimum_of_a_tilted_mixture_ends_in_the_target(schedule):
    target = build_target(parse(f"tilt_linear[schedule={schedule.name},steps=50]"))
    truth = target.truth()
    best = Optimal(target.base, truth.noised_score)
    path = simulate(target.base, best, (5_000, 2), rng(15), dtype=torch.float64)
    for f, mean, sd, _ in truth.observables.values():
        assert abs(float(f(path.x[-1]).mean()) - mean) < 4 * sd / math.sqrt(5_000) + 3 * sd / 50


def test_log_weights_at_the_optimum_vary_like_one_over_steps():
    """Forward and backward.  The means tend to log Z; that of the backward weights is no bound at
    finite K, since the noising chain reverses the base and not its chain."""
    counts, forward, backward = [20, 40], [], []
    for steps in counts:
        target = build_target(parse(f"tilt_linear[steps={steps}]"))
        truth, base = target.truth(), target.base
        problem = Problem(2, base, target.reward)
        best = Optimal(base, truth.noised_score)
        there = weights_of(problem, simulate(base, best, (5_000, 2), rng(16), dtype=torch.float64))
        back = weights_of(problem, retrace(base, best, truth.sample(5_000, rng(17)), rng(18)))
        for log_w in (there, back):
            assert abs(float(log_w.mean()) - truth.log_Z) < 1.5 / steps
        forward.append(float(there.var()))
        backward.append(float(back.var()))
    assert slope(counts, forward) == pytest.approx(-1, abs=0.25)
    assert slope(counts, backward) == pytest.approx(-1, abs=0.25)


def test_fields_refuse_nonsense():
    with pytest.raises(ValueError, match="steps is 0"):
        MixtureFlow(**PLANE, steps=0)
    with pytest.raises(ValueError, match="h is 0"):
        Regularised(h=0)
    with pytest.raises(ValueError, match="level is -1"):
        Constant(level=-1)
    with pytest.raises(ValueError, match="gamma_noise"):
        VariancePreserving(gamma_noise=0)
    assert RectifiedFlow() == MixtureFlow(**PLANE).schedule


class Widening(Euler):
    """A noise that changes fast, so that its two ends differ."""

    name = "Widening"

    def check(self, schedule):
        pass

    def sigma(self, t):
        return 0.4 + 2 * t


def test_both_kernels_of_an_euler_step_have_the_noise_of_its_earlier_end():
    """Forward x + dt (v + sigma^2/2 s) at the earlier end, backward x - dt (v - sigma^2/2 s) at the
    later, each with sigma at the earlier: on a Gaussian flow, by hand."""
    base = MixtureFlow((1.0,), ((0.0,),), (0.7,), stepping=Widening(), steps=5)
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    for k in range(1, 4):
        dt, sigma = base.times[k + 1] - base.times[k], 0.4 + 2 * base.times[k]
        ahead, behind = base.base(x, k), base.backward(x, k)
        assert ahead.std == pytest.approx(sigma * math.sqrt(dt))
        assert behind.std == pytest.approx(ahead.std)
        (v, s), (w, p) = base.current(x, k), base.current(x, k + 1)
        torch.testing.assert_close(ahead.mean, x + dt * (v + sigma**2 / 2 * s))
        torch.testing.assert_close(behind.mean, x - dt * (w - sigma**2 / 2 * p))


def test_reversed_euler_steps_are_right_to_second_order_in_a_step():
    """X_k given X_{k+1} of the continuous process, Gaussian: the variance that comes back from a
    draw of p_{k+1} is that of p_k up to dt^2 a step; with sigma of the later end up to dt only."""
    errors = []
    for steps in (20, 40, 80):
        base = MixtureFlow((1.0,), ((0.0,),), (0.7,), stepping=Widening(), steps=steps)
        k, one = steps // 2, torch.ones(1, 1, dtype=torch.float64)

        def var(k, base=base):
            return (base.signals[k] ** 2) * 0.7 + base.noises[k] ** 2

        kernel = base.backward(one, k)  # linear in x
        back = float(kernel.mean) ** 2 * var(k + 1) + kernel.std**2
        errors.append(abs(back - var(k)))
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert min(orders) > 1.8


def escorted_change(steps, eps=0.8):
    """Paths of v + w + eps s with w = x / 2 on a Gaussian flow; what `log_change` is given of them,
    and the exact change of log p_t."""
    base = MixtureFlow((1.0,), ((0.0, 0.0),), (0.5,), steps=steps)
    x, path = base.start((4_000, 2), rng(0), torch.float64), []
    for k in range(steps + 1):
        path.append(x)
        v, s = base.current(x, k)
        noise = torch.randn(x.shape, generator=rng(k + 1), dtype=torch.float64)
        x = x + (v + x / 2 + eps * s) / steps + math.sqrt(2 * eps / steps) * noise
    x, dt = torch.stack(path), torch.full((steps,), 1 / steps, dtype=torch.float64)
    v, s = base.currents(x, [base.current(each, k) for k, each in enumerate(path)])
    first, last = (base.signals[k] ** 2 / 2 + base.noises[k] ** 2 for k in (0, steps))
    exact = x[0].square().sum(-1) / (2 * first) - x[-1].square().sum(-1) / (2 * last)
    exact = exact - math.log(last / first)
    return base, (x, v, s, x / 2, dt, torch.full_like(dt, eps)), exact


def test_the_change_of_density_without_the_density_is_of_first_order():
    """math.md 5.3: the mean error falls like dt."""
    errors = []
    for steps in (10, 20, 40, 80):
        base, path_terms, exact = escorted_change(steps)
        errors.append(float((Noising.log_change(base, *path_terms)[-1] - exact).mean()))
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert max(abs(order - 1) for order in orders) < 0.3


def test_the_change_along_a_reversed_path_is_the_opposite():
    """Crooks' identity at any number of steps: it takes both ends of every step alike, the escort's
    part included, which w at one end alone would not."""
    base, (x, v, s, w, dt, eps), _ = escorted_change(6)
    ahead = Noising.log_change(base, x, v, s, w, dt, eps)[-1]
    back = Noising.log_change(base, x.flip(0), -v.flip(0), s.flip(0), -w.flip(0), dt, eps)[-1]
    torch.testing.assert_close(back, -ahead, rtol=1e-9, atol=1e-9)
    assert ahead.std() > 0.1
