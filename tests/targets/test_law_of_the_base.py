"""log Z of the law of the base: what the chain of K steps leaves out, weights are told of."""

import math

import pytest
import torch

from tests.tools.worlds import rng, z_score
from tiltbench.estimators import jarzynski
from tiltbench.plan.spec import build_sampler, build_target, parse
from tiltbench.samplers.baselines.guidance import Guidance
from tiltbench.targets.bases.interpolant import Ancestral, Constant, Regularised
from tiltbench.targets.bases.mixture_flow import MixtureFlow
from tiltbench.targets.bases.optimal import Optimal
from tiltbench.targets.bases.process import Controlled, retrace, simulate
from tiltbench.targets.bases.references import Brownian, Stationary
from tiltbench.targets.bases.schedules import Foellmer, RectifiedFlow, VariancePreserving
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import pose

PLANE = {"weights": (0.4, 0.6), "means": ((-1.5, 0.0), (1.5, 0.5)), "variances": (0.3, 0.2)}
SLOPE = torch.tensor([0.8, -0.5], dtype=torch.float64)
N = 20_000


class Wave(Controlled):
    """A smooth control that has nothing to do with the problem."""

    def control(self, x, t, hint=None):
        return 0.5 * torch.sin(2 * x.flip(-1) + 3 * t[..., None])


def sides(base, n=N, model=None):
    """(without the law, with it), each exp(log_w) / Z forward and its inverse in reverse."""
    log_Z, law = base.law.tilted_linear(SLOPE)
    model = model or Wave()
    forward = simulate(base, model, (n, 2), rng(1), dtype=torch.float64)
    backward = retrace(base, model, law.sample(n, rng(2)), rng(3))
    for path, sign in ((forward, 1), (backward, -1)):
        chain = path.x[-1] @ SLOPE - base.log_ratio(path)
        for log_w in (chain, chain + base.log_law_over_chain(path)):
            yield (sign * (log_w - log_Z)).exp()


@pytest.mark.parametrize(
    "schedule, stepping",
    [
        (RectifiedFlow(), Ancestral()),
        (VariancePreserving(), Ancestral()),
        (Foellmer(), Ancestral()),  # from a point
        (RectifiedFlow(), Regularised(h=0.1)),
        (RectifiedFlow(), Constant()),  # not memoryless
    ],
    ids=str,
)
def test_both_sides_are_exact_at_any_number_of_steps(schedule, stepping):
    base = MixtureFlow(**PLANE, schedule=schedule, stepping=stepping, steps=8)
    _, ahead, _, back = sides(base)
    assert abs(z_score(ahead, 1)) < 4 and abs(z_score(back, 1)) < 4


def test_without_the_law_neither_side_is_exact():
    """The control is the optimum, so that the scatter does not hide it."""
    target = build_target(parse("tilt_linear[steps=8]"))
    best = Optimal(target.base, target.truth().noised_score)
    ahead, ahead_law, back, back_law = sides(target.base, model=best)
    assert abs(z_score(ahead, 1)) > 5 and abs(z_score(back, 1)) > 5
    assert abs(z_score(ahead_law, 1)) < 4 and abs(z_score(back_law, 1)) < 4


def test_what_the_chain_leaves_out_is_of_first_order():
    """Backward, E[1/w] of the chain is off by what falls like 1/K; extrapolated (Richardson) from K
    and 2K to 1/Z, up to 1/K^2, it is within a quarter of the bias at K."""
    target = build_target(parse("tilt_linear"))
    biases = []
    for steps in (8, 16):
        base = MixtureFlow(**PLANE, steps=steps)
        best = Optimal(base, target.truth().noised_score)
        _, _, chain, law = sides(base, 2 * N, best)
        # E law = 1: the law's weights on the same paths are a control variate
        slope = float(((chain - chain.mean()) * (law - 1)).mean() / law.var())
        biases.append(float((chain - slope * (law - 1)).mean()) - 1)
    assert 0.7 < math.log2(biases[0] / biases[1]) < 1.5
    assert abs(2 * biases[1] - biases[0]) < biases[0] / 4


@pytest.mark.parametrize("schedule", [RectifiedFlow(), VariancePreserving(), Foellmer()], ids=str)
def test_the_chain_of_a_gaussian_is_its_law_path_by_path(schedule):
    base = MixtureFlow((1.0,), ((0.0, 0.0),), (0.7,), schedule=schedule, steps=7)
    path = simulate(base, Wave(), (50, 2), rng(4), dtype=torch.float64)
    torch.testing.assert_close(
        base.log_law_over_chain(path), path.x.new_zeros(50), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("base", [Brownian(), Stationary()], ids=["Brownian", "Stationary"])
def test_a_gaussian_reference_leaves_out_nothing(base):
    path = simulate(base, Wave(), (5, 2), rng(5))
    assert base.reversed_exactly and base.log_law_over_chain(path).tolist() == [0.0] * 5


def measured(sampler, target, n=N):
    sampler = build_sampler(parse(sampler))
    problem = pose(target, sampler.reference)
    state = sampler.init(problem, Cost(10**6, 10**6), rng(0))
    return sampler, problem, state


@pytest.mark.parametrize("name", ["log_variance", "untrained", "cmcd_lv", "guidance"])
def test_samplers_weigh_against_the_law(name):
    """An untrained control, an escort and guidance, on a coarse grid."""
    target = build_target(parse("tilt_linear[steps=8]"))
    truth = target.truth()
    sampler, problem, state = measured(name, target)
    ahead = sampler.draw(problem, state, N, rng(1)).log_w - truth.log_Z
    assert abs(z_score(ahead.exp(), 1)) < 4
    if name != "guidance":  # whose reverse weights have no variance
        back = sampler.reverse(problem, state, truth.sample(N, rng(2)).float(), rng(3)).log_w
        assert abs(z_score((truth.log_Z - back).exp(), 1)) < 4


def test_rewards_of_the_base_are_weighed_against_the_law():
    target = build_target(parse("tilt_quadratic[dim=10,steps=10]"))
    sampler, problem, state = measured("importance_resampling", target)
    for _ in range(20):
        state = sampler.step(problem, state, rng(len(state.x)))
    estimate = sampler.draw(problem, state, 10, rng(1)).log_Z
    assert abs(estimate.value - target.truth().log_Z) < 4 * estimate.se
    bare = torch.cat([problem.reward(x) for x in state.x])
    assert abs(jarzynski(bare).value - target.truth().log_Z) > 4 * estimate.se


def test_weights_along_given_paths_are_those_of_paths_traced_back():
    target = build_target(parse("tilt_linear[steps=6]"))
    ends = target.truth().sample(300, rng(1)).float()
    for sampler in (build_sampler(parse("adjoint_matching")), Guidance()):
        problem = pose(target, sampler.reference)
        state = sampler.init(problem, Cost(100, 100), rng(0))
        back = sampler.reverse(problem, state, ends, rng(2))
        again = sampler.along(problem, state, back.x, rng(3))
        torch.testing.assert_close(again.log_w, back.log_w)
        torch.testing.assert_close(again.u, back.u)
    escort = build_sampler(parse("cmcd_lv"))
    problem = pose(target, escort.reference)
    state = escort.init(problem, Cost(100, 100), rng(0))
    assert escort.along(problem, state, back.x, rng(3)) is None
