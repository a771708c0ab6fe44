"""log q by the ODE of the probability flow: closed forms, weights, and which law it is."""

import math

import pytest
import torch

from tests.tools.worlds import rng, z_score
from tiltbench.plan.spec import build_sampler, build_target, parse
from tiltbench.samplers.flows.divergence import Exact, Hutchinson, along, fitting
from tiltbench.samplers.flows.probability_flow import ProbabilityFlow, Solver, _worst
from tiltbench.samplers.flows.weighed import given, sample
from tiltbench.samplers.networks.adapter import Adapter
from tiltbench.samplers.networks.perceptron import Guided, Mlp
from tiltbench.samplers.sampler import Unsupported
from tiltbench.targets.bases.interpolant import Constant, Regularised
from tiltbench.targets.bases.mixture_flow import MixtureFlow
from tiltbench.targets.bases.process import Controlled, simulate
from tiltbench.targets.bases.references import Brownian, Scattered, Stationary
from tiltbench.targets.bases.schedules import Foellmer, RectifiedFlow, VariancePreserving
from tiltbench.targets.checks import Diverged
from tiltbench.targets.cost import Cost
from tiltbench.targets.digits.digits import digits
from tiltbench.targets.problem import log_weight, pose

PAIR = (0.4, 0.6), ((-1.5, 0.0), (1.5, 0.5)), (0.3, 0.2)
FINE = Solver(1e-7, 1e-7, longest=1.0)
NO_MEMORY = VariancePreserving(gamma_noise=70.0)  # alpha_0 = 3e-8: it starts from N(0, I)


class Best(Controlled):
    """u* at every time: beta^2 / alpha (grad log p*_t - grad log p_t) / reach."""

    def __init__(self, base, noised_score, part=1.0):
        self.base, self.noised_score, self.part = base, noised_score, part

    def control(self, x, t, hint=None):
        time = max(float(t.flatten()[0]), 1e-6)  # at t = 0 both scores are those of the noise
        alpha, beta, reach = (f(time) for f in (self.base.signal, self.base.noise, self.base.reach))
        if not reach:
            return 0 * x
        at = self.base.moment(self.base.angle(time))
        base_score = -self.base.ends(x / at.size, at)[1] / (at.noise * at.size)
        levels = (torch.tensor(v, dtype=x.dtype) for v in (alpha, beta))
        return self.part * beta**2 / alpha * (self.noised_score(x, *levels) - base_score) / reach


# closed forms


@pytest.mark.parametrize("schedule", [RectifiedFlow(), NO_MEMORY, Foellmer()], ids=lambda s: s.name)
def test_the_density_of_a_mixture(schedule):
    base = MixtureFlow(*PAIR, schedule=schedule)
    flow = ProbabilityFlow(base, 2, solver=FINE)
    draws = flow.draw(64, Exact(), rng())
    assert (draws.log_q - base.log_end(draws.x)).abs().max() < 1e-5
    x = base.end((64, 2), rng(1), torch.float64)
    assert (flow.log_density(x, Exact(), rng()).log_q - base.log_end(x)).abs().max() < 1e-5
    assert 0 < draws.evaluations < 300 and not draws.noise.any()


def test_a_flow_from_a_base_with_some_signal_at_its_start_is_off_by_that():
    """It starts from N(0, I), as its chain does, and not from the noised law."""
    base = MixtureFlow(*PAIR, schedule=VariancePreserving())  # alpha_0 = .0066
    x = base.end((64, 2), rng(1), torch.float64)
    off = (ProbabilityFlow(base, 2).log_density(x, Exact(), rng()).log_q - base.log_end(x)).abs()
    assert 1e-4 < off.max() < 5 * 0.0066


@pytest.mark.parametrize("base", [Brownian(), Brownian(ratio=1.0), Stationary(gamma_noise=70.0)])
def test_the_density_at_the_optimum_of_a_gaussian_reference(base):
    """N(m, s^2 I) from N(0, I), a start from a point included."""
    mean, var = torch.tensor([0.7, -0.4], dtype=torch.float64), 0.3

    def noised_score(x, alpha, beta):
        return (alpha * mean - x) / (alpha**2 * var + beta**2)

    def log_density(x):
        far = (x - mean).square().sum(-1)
        return -far / (2 * var) - math.log(2 * math.pi * var)

    flow = ProbabilityFlow(base, 2, Best(base, noised_score), FINE)
    x = mean + math.sqrt(var) * torch.randn(32, 2, generator=rng(), dtype=torch.float64)
    assert (flow.log_density(x, Exact(), rng()).log_q - log_density(x)).abs().max() < 1e-5
    draws = flow.draw(32, Exact(), rng(2))
    assert (draws.log_q - log_density(draws.x)).abs().max() < 1e-5


@pytest.mark.parametrize("name", ["tilt_linear", "tilt_quadratic"])
def test_at_the_optimum_of_a_tilt_every_weight_is_Z(name):
    target = build_target(parse(name))
    truth, problem = target.truth(), pose(target, Brownian())
    flow = ProbabilityFlow(problem.base, 2, Best(problem.base, truth.noised_score))
    for weighed in (
        sample(flow, problem, 24, Exact(), rng()),
        given(flow, problem, truth.sample(24, rng(1)), Exact(), rng()),
    ):
        assert (weighed.log_w - truth.log_Z).abs().max() < 1e-4


# which law it is


@pytest.mark.parametrize("part, ode, chain", [(1.0, 1 / 4, 1 / 4), (0.5, 1 / 2, math.log(4) / 3)])
def test_away_from_the_optimum_the_ode_has_another_law_than_the_chain(part, ode, chain):
    """N(0, 1) controlled by a part p of what leads to N(0, 1/4): u = -3 p x / (4 - 3 t).

    The ODE ends with variance 4^-p.  That of dX = u dt + dW obeys V' = 1 - 6 p V / (4 - 3 t)."""
    base = Brownian(steps=200, ratio=1.0)
    best = Best(base, lambda x, a, b: -x / (a**2 / 4 + b**2), part)
    draws = ProbabilityFlow(base, 1, best, FINE).draw(16, Exact(), rng())
    gaussian = -draws.x[:, 0].square() / (2 * ode) - math.log(2 * math.pi * ode) / 2
    assert (draws.log_q - gaussian).abs().max() < 1e-5
    end = simulate(base, best, (20_000, 1), rng(1), dtype=torch.float64).x[-1]
    assert float(end.var()) == pytest.approx(chain, rel=0.04)


def test_weights_of_the_flow_and_of_paths_agree_about_Z():
    """Of a control that is none of an optimum: both are unbiased for Z."""
    target = build_target(parse("tilt_linear"))
    problem, truth = pose(target, Brownian()), target.truth()
    half = Best(problem.base, truth.noised_score, 0.5)
    weighed = sample(ProbabilityFlow(problem.base, 2, half), problem, 400, Exact(), rng())
    w = (weighed.log_w - truth.log_Z).exp()
    assert abs(z_score(w, 1.0)) < 3.5 and w.std() > 0.05
    path = simulate(problem.base, half, (4000, 2), rng(1))
    paths = (log_weight(problem, path) - truth.log_Z).exp()
    assert abs(z_score(paths, 1.0)) < 3.5


# networks


def test_an_adapter_that_has_learned_nothing_has_the_flow_of_its_base():
    base = digits(steps=10)
    model = Adapter().build(64, base, rng())
    plain, tuned = ProbabilityFlow(base, 64), model.network.probability_flow(base, 64)
    y = torch.randn(3, 64, generator=rng(), dtype=torch.float64)
    f, g = plain.velocity(), tuned.velocity()
    for angle in (0.0, 0.7, math.pi / 2):
        assert torch.equal(f(angle, y), g(angle, y)) and f(angle, y).isfinite().all()


def test_a_network_is_solved_in_float64_and_left_as_it_is():
    base, model = Brownian(), Mlp(width=8).build(2, Brownian(), rng())
    for p in model.network.parameters():
        p.data.add_(0.02)
    flow = model.network.probability_flow(base, 2)
    before = model.forward_points
    draws = flow.draw(5, Exact(), rng())
    back = flow.log_density(draws.x, Exact(), rng())
    assert (draws.log_q - back.log_q).abs().max() < 1e-4 and draws.log_q.dtype == torch.float64
    assert model.forward_points == before
    assert next(model.network.parameters()).dtype == torch.float32
    assert next(model.network.parameters()).requires_grad


def test_what_oscillates_within_a_step_is_not_missed():
    """dy = sin(100 angle) d angle, slow at both ends of a long step."""
    fast = 100.0

    def f(angle, y):
        return torch.full_like(y, 1e-4 * math.sin(fast * angle))

    end = math.pi / 2
    exact = 1e-4 * (1 - math.cos(fast * end)) / fast
    zero = torch.zeros(1, 1, dtype=torch.float64)
    solution, evaluations = Solver(1e-6, 1e-4).solve(f, zero, 0.0, end)
    assert float(solution) == pytest.approx(exact, abs=1e-6) and evaluations > 6 * end / 0.05


def test_a_step_is_as_wrong_as_its_worst_point():
    error = torch.zeros(100, 2)
    error[7] = torch.tensor([3.0, 4.0])
    assert float(_worst(error)) == pytest.approx(math.sqrt(12.5))


def test_samplers_offer_their_flow():
    target = build_target(parse("tilt_linear[steps=10]"))
    problem = pose(target, Brownian())
    for name, there in (("log_variance[model=Mlp[width=8]]", True), ("untrained", True)):
        sampler = build_sampler(parse(name))
        state = sampler.init(problem, Cost(100, 100), rng())
        draws = sampler.flow(problem, state).draw(4, Exact(), rng())
        # nothing is learned: the base's own law
        assert (draws.log_q - problem.base.log_end(draws.x)).abs().max() < 1e-4
    for name in ("cmcd_lv", "smc"):
        sampler = build_sampler(parse(name))
        state = sampler.init(problem, Cost(10_000, 10_000), rng())
        assert sampler.flow(problem, state) is None


# divergences


def test_hutchinson_is_unbiased_and_tells_its_variance():
    matrix = torch.randn(6, 6, generator=rng(), dtype=torch.float64)
    y = torch.randn(4000, 6, generator=rng(1), dtype=torch.float64)
    few = Hutchinson(3)
    _, each = along(lambda y: y @ matrix.T, y, few.directions(Brownian(), (4000, 6), rng(2)))
    total = few.total(each)
    assert abs(z_score(total, float(matrix.trace()))) < 3.5
    assert float(few.noise(each).mean()) == pytest.approx(float(total.var()), rel=0.1)
    _, each = along(lambda y: y @ matrix.T, y[:2], Exact().directions(Brownian(), (2, 6), rng()))
    assert torch.allclose(Exact().total(each), matrix.trace().expand(2))
    assert isinstance(fitting(64), Exact) and isinstance(fitting(65), Hutchinson)


def test_particles_have_a_density_on_their_subspace():
    """The centre of mass is removed: rank, not dimension, is what the constant counts."""
    target = build_target(parse("dw4"))
    base = pose(target, Brownian()).base
    draws = ProbabilityFlow(base, 8).draw(6, Exact(), rng())
    assert torch.allclose(draws.log_q, base.log_end(draws.x), atol=1e-5)
    assert draws.x.reshape(6, 4, 2).mean(1).abs().max() < 1e-9


# bad input


def test_what_has_no_flow_says_so():
    remembering = MixtureFlow(*PAIR, stepping=Constant())
    with pytest.raises(Unsupported, match=r"not memoryless, corr\(X_0, X_1\) = 0.\d+: no flow"):
        ProbabilityFlow(remembering, 2, Mlp().build(2, remembering, rng()).network)
    ProbabilityFlow(remembering, 2)  # of the base itself: the noise of its chain is no matter
    ProbabilityFlow(MixtureFlow(*PAIR, stepping=Regularised()), 2, Best(None, None))  # h = .02
    with pytest.raises(Unsupported, match="not memoryless"):
        ProbabilityFlow(Scattered(), 2, Best(None, None))
    with pytest.raises(Unsupported, match="second derivatives of the reward"):
        Guided().build(2, Brownian(), rng()).network.probability_flow(Brownian(), 2)
    with pytest.raises(Unsupported, match="known on its grid only, and has no flow"):
        escort = build_sampler(parse("cmcd_lv"))
        ProbabilityFlow(escort.posed(pose(build_target(parse("gmm9")), escort.reference)).base, 2)
    with pytest.raises(ValueError, match="rtol is 0; it must be from 1e-12 to 1"):
        Solver(rtol=0)
    with pytest.raises(ValueError, match="most is 3; a single step takes 10"):
        Solver(most=3)
    with pytest.raises(ValueError, match="longest is 0; it must be positive"):
        Solver(longest=0)
    with pytest.raises(ValueError, match="probes is 1; it must be 2 or more"):
        Hutchinson(1)


class Spoilt(Controlled):
    def control(self, x, t, hint=None):
        return torch.full_like(x, math.nan) if float(t[0]) > 0.5 else 0 * x


def test_an_ode_that_cannot_be_solved_says_so():
    flow = ProbabilityFlow(MixtureFlow(*PAIR), 2, solver=Solver(1e-10, 1e-10, most=60))
    with pytest.raises(Diverged, match="more than 60 evaluations at rtol 1e-10: raise rtol"):
        flow.draw(4, Exact(), rng())
    with pytest.raises(Diverged, match="cannot be solved"):
        ProbabilityFlow(Brownian(), 2, Spoilt()).draw(4, Exact(), rng())
