"""Processes: exact weights at any step count, exact reversal, orders at the optimum."""

import math
from dataclasses import dataclass, replace

import pytest
import torch

from tests.tools.worlds import Mixture, rng, weights_of, z_score
from tiltbench.samplers.weights import ess as effective_size
from tiltbench.samplers.weights import log_mean_exp
from tiltbench.targets.bases.linear import Linear
from tiltbench.targets.bases.process import Controlled, Path, Process, along, retrace, simulate
from tiltbench.targets.bases.references import Brownian, Stationary
from tiltbench.targets.checks import Diverged
from tiltbench.targets.gradient import Ungraded
from tiltbench.targets.problem import checked, of_points, pose
from tiltbench.targets.registry import REFERENCES
from tiltbench.targets.target import Density, Tilt, Truth

STEPS = 4
BASES = [REFERENCES.load(name)(steps=STEPS, scale=1.7) for name in REFERENCES.entries]
BASES.append(Brownian(steps=STEPS, scale=1.7, ratio=1.0))
ids = [repr(base) for base in BASES]


class Random(Controlled):
    """A smooth control that has nothing to do with the problem."""

    def control(self, x, t, hint=None):
        return torch.sin(2 * x.flip(-1) + 3 * t[..., None]) - 0.3 * x


@pytest.mark.parametrize("base", BASES, ids=ids)
def test_weights_are_exact_at_four_steps_for_a_random_control(base):
    problem = Mixture(base).problem()
    path = simulate(base, Random(), (200_000, 2), rng(1), dtype=torch.float64)
    w = weights_of(problem, path).exp()
    assert abs(z_score(w, math.exp(0.7))) < 4
    assert abs(math.log(w.mean()) - 0.7) < 0.1  # the z-score has power


@pytest.mark.parametrize("base", BASES, ids=ids)
def test_reverse_weights_are_exact_at_four_steps(base):
    target = Mixture(base)
    problem = target.problem()
    path = retrace(base, target, target.sample(100_000, rng(2)), rng(3))
    w = (-weights_of(problem, path)).exp()
    assert abs(z_score(w, math.exp(-0.7))) < 4


def test_controls_along_many_paths_are_taken_in_parts(monkeypatch):
    """Without a graph, with hints and without: the same controls, of few points at once."""
    seen = []

    class Remembering(Random):
        def control(self, x, t, hint=None):
            seen.append(x.shape[:-1].numel())
            return t[..., None] * x + (0 if hint is None else hint)

    path = simulate(BASES[0], Random(), (3, 2), rng(1))
    for hint in (None, path.x[:-1].sin()):
        path = replace(path, hint=hint)
        whole = along(Remembering(), path)
        assert seen == [4 * 3]
        assert torch.equal(whole, Remembering().control(path.x[:-1], path.t[:-1, None], hint))
        del seen[1:]
        for most, parts in ((7, [6, 6]), (2, [3] * 4)):  # one time at once, at the least
            monkeypatch.setattr("tiltbench.targets.bases.process.ALONG", most)
            assert torch.equal(along(Remembering(), path), whole)  # a graph holds it all
            with torch.no_grad():
                assert torch.equal(along(Remembering(), path), whole)
            assert seen == [12, 12, *parts]
            del seen[1:]
        monkeypatch.undo()
        seen.clear()


@pytest.mark.parametrize("base", BASES, ids=ids)
def test_retraced_paths_have_the_law_of_the_base(base):
    """Traced back from exact ends, uncontrolled paths have the base's covariances at every pair."""
    ends = base.end((200_000, 1), rng(4), torch.float64)
    path = retrace(base, Random(), ends, rng(5))
    for k, s in enumerate(base.times):
        for j in range(k, len(base.times)):
            gain, _ = base.between(s, base.times[j])
            product = (path.x[k] * path.x[j]).squeeze(-1)
            expected = gain * base.variance(s)
            assert product.mean() == expected == 0 or abs(z_score(product, expected)) < 4


@pytest.mark.parametrize("base", BASES, ids=ids)
def test_transitions_compose_and_agree_with_sigma(base):
    """between(s, u) = between(t, u) o between(s, t); var(t, t + h) = sigma^2 h."""
    g1, v1 = base.between(0.1, 0.4)
    g2, v2 = base.between(0.4, 0.9)
    gain, var = base.between(0.1, 0.9)
    assert gain == pytest.approx(g1 * g2, rel=1e-12)
    assert var == pytest.approx(g2**2 * v1 + v2, rel=1e-12)
    h = 1e-6
    for t in (0.0, 0.3, 0.7):
        assert base.between(t, t + h)[1] / h == pytest.approx(base.sigma(t) ** 2, rel=1e-4)
    # eta = sigma^2 / 2 = beta (kappa beta - beta') with kappa = alpha' / alpha (math.md, symbols)
    t, h = 0.6, 1e-5
    kappa = (math.log(base.signal(t + h)) - math.log(base.signal(t - h))) / (2 * h)
    slope = (base.noise(t + h) - base.noise(t - h)) / (2 * h)
    eta = base.noise(t) * (kappa * base.noise(t) - slope)
    assert eta == pytest.approx(base.sigma(t) ** 2 / 2, rel=1e-4)  # memoryless or not


@pytest.mark.parametrize("base", BASES, ids=ids)
def test_bridge_has_the_law_of_the_base_given_both_ends(base):
    x = simulate(base, _Zero(), (100_000, 1), rng(6), dtype=torch.float64).x
    for k in range(STEPS + 1):
        here = torch.full((100_000,), k)
        between = base.bridge(x[0], x[-1], here, rng(7 + k))
        for other in (x[0], x[-1], between):
            real, bridged = (x[k] * (x[k] if other is between else other), between * other)
            gap = (real - bridged).squeeze(-1)
            assert gap.abs().max() < 1e-9 or abs(z_score(gap, 0.0)) < 4


class _Zero(Controlled):
    def control(self, x, t, hint=None):
        return torch.zeros_like(x)


def test_variance_of_log_weights_falls_like_one_over_steps_at_the_optimum():
    counts, variances = [25, 50, 100], []
    for steps in counts:
        base = Brownian(steps=steps, scale=2.0, ratio=1.0)
        path = simulate(base, Mixture(base), (8_000, 2), rng(8), dtype=torch.float64)
        variances.append(weights_of(Mixture(base).problem(), path).var().item())
    slope = _slope(counts, variances)
    assert slope == pytest.approx(-1, abs=0.25)


def _slope(x, y):
    x = torch.tensor(x, dtype=torch.float64).log()
    y = torch.tensor(y, dtype=torch.float64).log()
    return float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())


@pytest.mark.parametrize(
    ("steps", "ess", "elbo"),
    [(25, 0.63, 0.368), (100, 0.87, 0.622), pytest.param(400, 0.96, 0.680, marks=pytest.mark.slow)],
)
def test_figures_of_the_closed_form_optimum(steps, ess, elbo):
    """math.md 11: Brownian base nu_1 = 4, optimum in closed form, 20k paths."""
    target = Mixture(Brownian(steps=steps, scale=2.0, ratio=1.0))
    path = simulate(target.base, target, (20_000, 2), rng(9), dtype=torch.float64)
    log_w = weights_of(target.problem(), path)
    share = torch.softmax(log_w, 0)
    error = math.sqrt(share.square().sum() - 1 / len(share))
    assert abs(log_mean_exp(log_w) - 0.7) < 4 * error
    assert effective_size(log_w) == pytest.approx(ess, abs=0.03)
    assert abs(z_score(log_w, elbo)) < 4.5  # the figure itself is rounded to three digits


def test_along_repeats_the_simulated_control():
    base = BASES[0]
    path = simulate(base, Random(), (5, 2), rng(10))
    assert torch.allclose(along(Random(), path), path.u, atol=1e-6)


@pytest.mark.parametrize("base", BASES, ids=ids)
def test_closed_form_pull_back_is_the_vector_jacobian_product(base):
    x, a = torch.randn(7, 3, generator=rng(11)), torch.randn(7, 3, generator=rng(12))
    for k in range(STEPS):
        assert torch.allclose(base.pull_back(x, k, a), Process.pull_back(base, x, k, a))


@pytest.mark.parametrize("base", BASES, ids=ids)
def test_what_a_control_is_regressed_on_is_the_lean_adjoint_in_its_units(base):
    """pull_k g = std_k / sqrt(dt_k) a_{k+1}: the adjoint at the end of a step."""
    path = simulate(base, Random(), (5, 3), rng(14), dtype=torch.float64)
    g = torch.randn(5, 3, generator=rng(15), dtype=torch.float64)
    for k, a in enumerate(base.adjoints(path.x, g)):
        unit = float(path.std[k]) / math.sqrt(base.times[k + 1] - base.times[k])
        pull = base.pull(torch.full((5,), k), g)
        torch.testing.assert_close(pull, unit * a, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("base", BASES, ids=ids)
def test_the_lean_adjoint_is_pulled_back_from_step_to_step(base):
    path = simulate(base, Random(), (5, 3), rng(14), dtype=torch.float64)
    a = torch.randn(5, 3, generator=rng(15), dtype=torch.float64)
    for adjoint, k in zip(base.adjoints(path.x, a).flip(0), reversed(range(STEPS)), strict=True):
        assert torch.allclose(adjoint, a, rtol=1e-12)
        a = Process.pull_back(base, path.x[k], k, a)


def test_log_ratio_is_the_ratio_of_the_kernels():
    base = BASES[1]
    path = simulate(base, Random(), (50, 3), rng(13), dtype=torch.float64)
    expected = torch.zeros(50, dtype=torch.float64)
    for k in range(STEPS):
        mean, std = base.base(path.x[k], k)
        shifted = mean + std * path.dt[k].sqrt() * path.u[k]
        for centre, sign in ((shifted, 1), (mean, -1)):
            law = torch.distributions.Normal(centre, std)
            expected += sign * law.log_prob(path.x[k + 1]).sum(-1)
    assert torch.allclose(base.log_ratio(path), expected, atol=1e-9)


@dataclass(frozen=True)
class _Half(Density):
    """A Gaussian on x_1 > 0, undefined for x_1 > 100."""

    name = "half"
    dim: int = 2
    scale: float = 3.0

    def log_rho(self, x):
        r = torch.where(x[..., 0] > 0, -x.square().sum(-1) / 2, -torch.inf)
        return torch.where(x[..., 0] > 100, torch.nan, r)

    def truth(self):
        return Truth("unknown")


def test_pose_widens_the_reference_and_checks_the_density():
    problem = pose(_Half(), Brownian(steps=STEPS, scale=0.5))
    assert isinstance(problem.base, Linear) and problem.base.spread == pytest.approx(1.5)
    inside = torch.tensor([[1.0, 1.0], [-1.0, 1.0]])
    assert problem.reward(inside)[0] == pytest.approx(-1 - float(problem.base.log_end(inside[0])))
    assert problem.reward(inside)[1] == -torch.inf
    with pytest.raises(Diverged, match=r"log rho of half is nan at 1 of 3 points.*\(200, 0\)"):
        problem.reward(torch.tensor([[1.0, 0], [200.0, 0], [1, 1]]))
    with pytest.raises(Diverged, match="1 of 3"):
        torch.func.vmap(problem.reward)(torch.tensor([[1.0, 0], [200.0, 0], [1, 1]]))
    r, g = problem.reward.value_and_grad(inside)
    x = inside[:1].clone().requires_grad_()
    (slope,) = torch.autograd.grad(problem.reward(x).sum(), x)
    assert torch.equal(r, problem.reward(inside)) and not g[1].any()  # no density, no gradient
    torch.testing.assert_close(g[:1], slope)
    again = problem.reward.recorded(inside.clone().requires_grad_())
    torch.testing.assert_close(again, (r, g))
    with pytest.raises(Diverged, match=r"log rho of half is nan at 1 of 3 points.*\(200, 0\)"):
        problem.reward.value_and_grad(torch.tensor([[1.0, 0], [200.0, 0], [1, 1]]))


class _Steps(Tilt):
    name, dim, base = "", 2, Stationary()

    def reward(self, x):
        return (x[..., 0] > 0).to(x.dtype)

    def truth(self):
        return Truth("unknown")


class _Box(_Half):
    def log_rho(self, x):
        return torch.where((x.abs() < 1).all(-1), 0.0, -torch.inf)


def test_what_records_no_graph_has_no_gradient_as_a_density_and_is_refused_as_a_reward():
    x = torch.tensor([[0.5, 0.5], [2.0, 0.0]])
    box = pose(_Box(), Stationary())
    r, g = box.reward.value_and_grad(x)
    assert torch.equal(g[0], -box.base.score(x, box.base.steps)[0]) and not g[1].any()
    assert r[1] == -torch.inf
    with pytest.raises(Ungraded, match="records none.*loss of values alone"):
        pose(_Steps(), Stationary()).reward.value_and_grad(x)


def test_a_density_of_the_wrong_shape_is_named():
    with pytest.raises(ValueError, match=r"shape \(3, 1\).*must be \(3,\)"):
        checked(lambda x: x[..., :1], "log rho of wide", 2)(torch.zeros(3, 2))
    with pytest.raises(ValueError, match="points of 2 coordinates, not 6"):
        checked(lambda x: x.sum(-1), "log rho of long", 2)(torch.zeros(1, 6))


@pytest.mark.parametrize(
    "stated, message",
    [
        (
            lambda x: (x.sum(-1), x[:1]),
            r"gradient of odd has shape \(1, 2\) at x of shape \(3, 2\)",
        ),
        (lambda x: (x.sum(-1), x.sum(-1)), r"gradient of odd has shape \(3,\) at x"),
        (lambda x: (x, x), r"odd has shape \(3, 2\) .* must be \(3,\), one number a point"),
        (
            lambda x: (x.sum(-1), x.double()),
            "gradient of odd is of torch.float64 on cpu; it must be like x, of torch.float32 on",
        ),
        (lambda x: x.sum(-1), "odd with its gradient must be two tensors, a value and a gradient"),
        (lambda x: (x.sum(-1), x, x), "odd with its gradient must be two tensors"),
        (lambda x: (x.sum(-1), 2.0), "odd with its gradient must be two tensors"),
        (lambda x: (None, x), "odd with its gradient must be two tensors"),
    ],
)
def test_a_stated_gradient_that_cannot_be_one_is_named(stated, message):
    with pytest.raises(ValueError, match=message):
        of_points(stated, lambda x: x.sum(-1), "odd", 2)(torch.zeros(3, 2))


class _Overwriting(_Steps):
    """Writes what it returns into one and the same two tensors."""

    def __init__(self):
        self.r, self.g = torch.zeros(3), torch.zeros(3, 2)

    def reward(self, x):
        return x.square().sum(-1)

    def reward_and_grad(self, x):
        self.r.copy_(self.reward(x))
        self.g.copy_(2 * x)
        return self.r, self.g


def test_what_a_tilt_writes_again_stays_with_whoever_has_it():
    problem, x = pose(_Overwriting(), Stationary()), torch.ones(3, 2)
    with problem.checks.together():
        first = problem.reward.value_and_grad(x)
        second = problem.reward.value_and_grad(3 * x)
        assert first[0].tolist() == [2.0] * 3 and torch.equal(first[1], 2 * x)
        assert second[0].tolist() == [18.0] * 3 and torch.equal(second[1], 6 * x)
        for part in first:
            part.fill_(torch.nan)  # what is checked at the end is not what was handed out
    with pytest.raises(Diverged, match="the reward of  is nan"), problem.checks.together():
        problem.reward.value_and_grad(x * torch.nan)
        problem.reward.value_and_grad(x)


@dataclass(frozen=True)
class _Leaning(_Half):
    """Three particles on a line, whose stated gradient has a part that moves their centre."""

    dim: int = 3
    particles = (3, 1)

    def log_rho(self, x):
        return -x.square().sum(-1) / 2

    def log_rho_and_grad(self, x):
        return self.log_rho(x), 1 - x


def test_a_stated_gradient_is_projected_onto_the_subspace():
    problem = pose(_Leaning(), Brownian(steps=STEPS))
    x = torch.randn(5, 3, generator=rng(1), requires_grad=True)
    (slope,) = torch.autograd.grad(problem.reward(x).sum(), x)
    r, g = problem.reward.value_and_grad(x)
    assert torch.allclose(r, problem.reward(x)) and torch.allclose(g, slope, atol=1e-6)
    assert g.abs().max() > 0.1 and g.sum(-1).abs().max() < 1e-6


def test_references_refuse_nonsense():
    with pytest.raises(ValueError, match="steps is 0"):
        Brownian(steps=0)
    assert Stationary().memory == pytest.approx(0.0066, abs=2e-4)


def test_path_is_immutable():
    path = simulate(BASES[0], Random(), (2, 2), rng())
    assert isinstance(path, Path)
    with pytest.raises(AttributeError):
        path.x = path.u
