"""Steering without training: exact weights, limits, and the laws of those who use none."""

import math
from dataclasses import replace

import pytest
import torch

from tests.tools.worlds import Shifted, Tilted, rng, z_score
from tiltbench.plan.spec import build_sampler, build_target, parse
from tiltbench.run.meter import Meter
from tiltbench.samplers.sampler import Unsupported
from tiltbench.samplers.steering._population import Population
from tiltbench.samplers.steering.feynman_kac import (
    Difference,
    FeynmanKacDifference,
    FeynmanKacMax,
    FeynmanKacSum,
    Max,
    Sum,
)
from tiltbench.samplers.steering.twisted_smc import TwistedSmc
from tiltbench.samplers.steering.value_selection import ValueSelection
from tiltbench.samplers.weights import ess, expectation
from tiltbench.targets.bases.process import Additive
from tiltbench.targets.bases.references import Brownian, Stationary
from tiltbench.targets.cost import Cost
from tiltbench.targets.densities.gaussian import Gaussian
from tiltbench.targets.problem import Problem, pose

FEW = {"particles": 4, "every": 2, "least": 1.0}
POPULATIONS = [
    FeynmanKacDifference(**FEW),
    FeynmanKacMax(**FEW),
    FeynmanKacSum(**FEW),
    TwistedSmc(**FEW | {"every": 1}),
]
ALL = [*POPULATIONS, ValueSelection(candidates=3), ValueSelection(candidates=3, temperature=0.5)]
WORLDS = {
    "gaussian": lambda: Shifted(Stationary(steps=6)),
    "mixture": lambda: Tilted(steps=6),  # whose chain would put log Z off by .02
}


def names(method):
    return f"{method.name} {getattr(method, 'temperature', '')}".strip()


def islands(draws):
    """The estimate of Z of every island, or of every draw."""
    if draws.group is None:
        return draws.log_w.exp()
    m = int(draws.group.max()) + 1
    return draws.log_w.exp().reshape(m, -1).mean(1)


# exactness


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("method", ALL, ids=names)
def test_the_estimate_of_Z_is_unbiased_with_a_handful_of_particles(method, world):
    tilted = WORLDS[world]()
    draws = method.draw(tilted.problem(), None, 8_000, rng(5))
    Z = islands(draws)
    assert len(Z) == (2_000 if isinstance(method, Population) else 8_000)
    assert abs(z_score(Z, math.exp(tilted.log_Z))) < 3.5
    assert abs(draws.log_Z.value - tilted.log_Z) < 3.5 * draws.log_Z.se
    # and so are weighted sums over the draws: E[exp(log_w) x_0] = Z E_p* x_0
    mean = tilted.law.weight @ tilted.law.mean if world == "mixture" else 0.6 * torch.ones(1)
    each = (draws.log_w.exp() * draws.x[:, 0]).reshape(len(Z), -1).mean(1)
    assert abs(z_score(each, math.exp(tilted.log_Z) * float(mean[0]))) < 3.5


@pytest.mark.parametrize("method", POPULATIONS, ids=names)
def test_with_many_particles_weighted_draws_are_of_the_tilt(method):
    world = Tilted(steps=10)
    draws = replace(method, particles=4_000, every=5).draw(world.problem(), None, 4_000, rng(1))
    assert int(draws.group.max()) == 0
    mean = world.law.weight @ world.law.mean
    # the ancestors are few, of which the delta method knows nothing: twice its error
    value, se, _ = expectation(draws.log_w, draws.x[:, 0])
    assert abs(value - float(mean[0])) < 7 * se < 0.5


def test_twisting_is_perfect_for_a_linear_reward_on_brownian_motion():
    world = Shifted(Brownian(steps=5))
    draws = TwistedSmc().draw(world.problem(), None, 100, rng())
    assert torch.allclose(draws.log_w, torch.full_like(draws.log_w, world.log_Z), atol=1e-5)
    assert abs(z_score(draws.x[:, 0].double(), 0.6)) < 3.5


def test_where_nothing_is_resampled_weights_are_rewards():
    world = Shifted(Brownian(steps=5))
    for method in (FeynmanKacDifference, FeynmanKacMax, FeynmanKacSum):
        draws = method(least=0.0).draw(world.problem(), None, 50, rng())
        assert torch.allclose(draws.log_w, world.problem().reward(draws.x).double())


def test_a_wall_on_the_way_is_no_end():
    """r = -inf for x_0 < 0, where half of the denoised estimates lie: Z = 1/2."""
    base = Brownian(steps=6)

    def half(x):
        return torch.where(x[..., 0] > 0, 0.0, -torch.inf)

    for method in ALL:
        if isinstance(method, TwistedSmc):
            continue  # its gradient is 0
        draws = method.draw(Problem(2, base, half), None, 4_000, rng(2))
        assert not draws.log_w.isnan().any()
        assert abs(z_score(islands(draws), 0.5)) < 3.5


# potentials


def test_the_potentials_of_the_paper():
    r = torch.tensor([[1.0, -2.0], [0.5, 3.0], [2.0, 1.0]], dtype=torch.float64)
    heights = {Difference: [2.0, 1.0], Max: [1 + 1 + 2.0, -2 + 3 + 3.0]}
    heights[Sum] = [1 + 1.5 + 3.5, -2 + 1 + 2.0]
    for potential, expected in heights.items():
        memory = potential().begin(torch.zeros(2, dtype=torch.float64))
        for row in r:
            memory = potential().add(memory, row)
        assert potential().height(memory).tolist() == expected


class Remembering(Difference):
    """It keeps what it is told beside what it remembers of the same slot."""

    def __init__(self):
        self.met = []

    def add(self, memory, r):
        self.met.append((memory[0], r))
        return super().add(memory, r)


def test_what_is_remembered_goes_with_the_slot_that_was_drawn(monkeypatch):
    """Of a path that hardly moves after its first step: its reward is what it was."""
    potential = Remembering()
    monkeypatch.setattr(FeynmanKacDifference, "potential", potential)
    world = Shifted(Brownian(steps=4, ratio=1e6), (3.0, 0.0))
    FeynmanKacDifference(particles=8, every=1, least=1.0).draw(world.problem(), None, 80, rng())
    (_, first), (before, r) = potential.met[:2]
    assert (before - r).abs().max() < 0.5 < (first - r).abs().max()


# laws without weights


def test_greedy_selection_goes_further_with_every_step():
    """sqrt(K) E max(xi_1, xi_2) = sqrt(K / pi) standard deviations along the reward, no tilt."""
    slope = (0.3, 0.0)
    for steps in (4, 16):
        problem = Shifted(Brownian(steps=steps, ratio=1.0), slope).problem()
        greedy = ValueSelection(candidates=2, temperature=1e-4)
        x = greedy.draw(problem, None, 4_000, rng()).x
        assert abs(z_score(x[:, 0].double(), math.sqrt(steps / math.pi))) < 3.5
        assert abs(z_score(x[:, 1].double(), 0.0)) < 3.5


def test_soft_selection_of_many_candidates_tends_to_the_tilt_where_values_are_exact():
    problem = Shifted(Brownian(steps=4)).problem()
    means = [
        ValueSelection(candidates=m, temperature=1.0).draw(problem, None, 3_000, rng(m)).x[:, 0]
        for m in (1, 2, 64)
    ]
    assert abs(z_score(means[0].double(), 0.0)) < 3.5
    assert 0.1 < float(means[1].mean()) < 0.45
    assert abs(z_score(means[2].double(), 0.6)) < 3.5


# what it costs, and what it does not take


@pytest.mark.parametrize(
    "method, values, grads",
    [
        (FeynmanKacMax(every=2), 2 + 1, 0),  # at 2 and 4 of 6 steps, and at the end
        (TwistedSmc(), 6 + 1, 6),
        (ValueSelection(candidates=3), 6 * 3, 0),
    ],
    ids=lambda m: getattr(m, "name", ""),
)
def test_a_draw_pays_its_calls(method, values, grads):
    problem = Tilted(steps=6).problem()
    meter = Meter(Cost(10**6, 10**6))
    watched = Problem(2, problem.base, meter.watch(problem.reward))
    assert len(method.draw(watched, None, 100, rng()).x) == 100
    assert meter.spent == Cost(100 * values, 100 * grads)


@pytest.mark.parametrize("name", ["tilt_linear[dim=10,steps=10]", "digits_even[steps=4]", "dw4"])
def test_it_runs_on_tilts_digits_and_particles(name):
    target = build_target(parse(name))
    from tiltbench.targets.problem import pose

    for method in ("twisted_smc", "feynman_kac_sum", "value_selection[candidates=2]"):
        sampler = build_sampler(parse(method))
        problem = pose(target, sampler.reference)
        assert sampler.done(sampler.init(problem, Cost(9, 9), rng()))
        draws = sampler.draw(problem, None, 6, rng())
        assert draws.x.shape == (6, target.dim) and draws.x.isfinite().all()
        assert not draws.log_w.isnan().any()
        assert torch.allclose(draws.x, target.project(draws.x), atol=1e-5)


class Plain(Additive):
    """A process without a denoiser."""

    steps, times, spread = 1, (0.0, 1.0), 1.0

    def start(self, shape, generator, dtype): ...

    def base(self, x, k): ...

    def backward(self, x, k): ...


def test_bad_input_gets_a_sentence():
    for method in ALL:
        with pytest.raises(Unsupported, match="steering needs a base with a denoiser"):
            method.init(Problem(2, Plain(), lambda x: x[..., 0]), Cost(9, 9), rng())
    for name, sentence in (
        ("twisted_smc[particles=1]", "particles is 1; an island needs 2 or more"),
        ("feynman_kac_max[every=0]", "every is 0; it must be 1 or more"),
        ("feynman_kac_sum[least=2]", "least is 2.0; it must be from 0"),
        ("value_selection[candidates=0]", "candidates is 0; it must be 1 or more"),
        ("value_selection[temperature=0]", "temperature is 0.0; it must be positive"),
    ):
        with pytest.raises(Exception, match=sentence.replace("(", r"\(")):
            build_sampler(parse(name))


def test_the_default_temperature_of_selection_keeps_weights_in_bounds():
    """At 1 the reward of a denoised estimate, felt at every step, tilts too far."""
    sampler = ValueSelection()
    problem = pose(Gaussian(), sampler.reference)
    shares = [
        ess(replace(sampler, temperature=t).draw(problem, None, 4_000, rng()).log_w)
        for t in (1.0, sampler.temperature)
    ]
    assert shares[0] < 0.05 < 0.1 < shares[1]
