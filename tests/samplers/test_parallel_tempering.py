"""Replica exchange where a chain alone fails; its log Z, swaps and ladders against closed forms."""

import math
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from tests.samplers.test_classical import Half, Oval, Pair, by_group, play, seeded, z_scores
from tiltbench.plan.spec import build_sampler, spec
from tiltbench.samplers.classical import _replicas
from tiltbench.samplers.classical._anneal import Schedule
from tiltbench.samplers.classical._leapfrog import Points, evaluate, move_each
from tiltbench.samplers.classical._replicas import Replicas, log_ratio, replaced, swapped
from tiltbench.samplers.classical.hmc import Hmc
from tiltbench.samplers.classical.parallel_tempering import ParallelTempering
from tiltbench.targets.bases.references import Brownian
from tiltbench.targets.problem import pose
from tiltbench.targets.target import Density, Truth


@dataclass(frozen=True)
class Far(Density):
    """3/4 N(-5, .1 I) + 1/4 N(5, .1 I) in two dimensions: no chain at beta = 1 crosses."""

    name: ClassVar[str] = "far"
    dim: int = 2
    scale: float = 5.0

    def log_rho(self, x):
        left, right = (-(x - m).square().sum(-1) / 0.2 for m in (-5.0, 5.0))
        return torch.logaddexp(left + math.log(3), right) - math.log(4 * 2 * math.pi * 0.1)

    def truth(self):
        return Truth("closed form", 0.0)


@dataclass(frozen=True)
class Narrow(Density):
    """Uniform on [-1, 1]^2: half of the starts have no density."""

    name: ClassVar[str] = "narrow"
    dim: int = 2

    def log_rho(self, x):
        return torch.where((x.abs() < 1).all(-1), 0.0, -torch.inf).to(x) + 0 * x.sum(-1)

    def truth(self):
        return Truth("closed form", math.log(4))


def sampled(sampler, target, points, seed):
    problem, state, meter = play(sampler, target, points, seed)
    return sampler.draw(problem, state, 4_000, seeded(seed + 1)), meter


@pytest.mark.parametrize(
    ("points", "warm_up", "latest"), [(5_000, 0.5, 0.85), (3_000, 0.001, math.inf)]
)
def test_lost_replicas_are_rescued_with_a_burn_in_left(monkeypatch, points, warm_up, latest):
    """Also where the first round is dearer than the whole warm-up."""
    rescues, real = [], _replicas.rescued

    def watched(state, generator):
        rescues.append((state.spent / state.warm, bool((state.at.r == -torch.inf).any())))
        return real(state, generator)

    monkeypatch.setattr(_replicas, "rescued", watched)
    sampler = ParallelTempering(ladders=16, warm_up=warm_up, leaps=1)
    _, state, _ = play(sampler, Narrow(), points, 0)
    ((share, _),) = rescues
    assert 0.75 <= share < latest
    assert torch.stack(state.rewards)[..., 1:].isfinite().all()
    if latest == math.inf:
        assert rescues[0][1], "nothing was lost: the test has no power"


def test_crosses_between_modes_where_hmc_does_not():
    draws, meter = sampled(ParallelTempering(ladders=24, leaps=2), Far(), 20_000, 3)
    assert meter.budget.covers(meter.spent)
    right = by_group(draws, (draws.x[:, 0] > 0).double())
    assert z_scores(right, 0.25).abs() < 4
    assert right.std() / len(right) ** 0.5 < 0.06
    square = by_group(draws, (draws.x.abs() - 5).square().sum(-1))
    assert z_scores(square, 0.2).abs() < 4
    stuck, _ = sampled(Hmc(chains=24), Far(), 10_000, 3)
    share = by_group(stuck, (stuck.x[:, 0] > 0).double())
    assert ((share == 0) | (share == 1)).all()


@pytest.mark.parametrize(
    ("target", "log_Z", "points"),
    [
        pytest.param(Oval(), 1.3, 4_000, marks=pytest.mark.slow),
        (Half(), Half.log_Z, 4_000),
        (Far(), 0.0, 12_000),
    ],
    ids=["oval", "half", "far"],
)
def test_own_log_Z_is_right_within_its_error(target, log_Z, points):
    z = []
    for seed in range(4):
        draws, _ = sampled(ParallelTempering(ladders=12, leaps=2), target, points, seed)
        assert draws.log_w is None and 2 < draws.log_Z.n <= 12
        z.append((draws.log_Z.value - log_Z) / draws.log_Z.se)
    z = torch.tensor(z)
    assert z.mean().abs() * math.sqrt(4) < 4
    assert 0.4 < z.square().mean().sqrt() < 2.2


def test_one_ladder_has_no_error():
    draws, _ = sampled(ParallelTempering(ladders=1, leaps=2), Oval(), 1_000, 0)
    assert draws.log_Z.se == math.inf and len(draws.group.unique()) == 1


def test_log_ratio_of_exact_draws_is_exact():
    """r = -x^2 on N(0, 1): Z_beta = (1 + 2 beta)^(-1/2)."""
    betas = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    z = []
    for seed in range(30):
        x = torch.randn((50, 10, 3), generator=seeded(seed), dtype=torch.float64)
        rewards = -x.square() / (1 + 2 * betas)
        estimate = log_ratio(rewards, betas)
        z.append((estimate.value + math.log(3) / 2) / estimate.se)
    z = torch.tensor(z)
    assert z.mean().abs() * math.sqrt(30) < 4
    assert 0.7 < z.square().mean().sqrt() < 1.4


def test_the_error_of_few_ladders_is_that_of_a_sample():
    """On a short ladder log Z is beta times the mean of r over both levels: its error is that of
    the mean over independent ladders."""
    betas = torch.tensor([0.0, 1e-5], dtype=torch.float64)
    rewards = torch.randn((20, 3, 2), generator=seeded(2), dtype=torch.float64)
    each = rewards.mean((0, 2)) * 1e-5
    estimate = log_ratio(rewards, betas)
    assert estimate.value == pytest.approx(float(each.mean()), rel=1e-3) and estimate.n == 3
    assert estimate.se == pytest.approx(float(each.std()) / math.sqrt(3), rel=1e-3)


def test_swaps_keep_every_level_in_its_law():
    """N(0, 1 / (1 + 2 beta)) at each level: exact draws stay exact, at any parity."""
    betas = torch.tensor([0.0, 0.2, 0.6, 1.0], dtype=torch.float64)
    x = torch.randn((4_000, 4), generator=seeded(1), dtype=torch.float64)
    x = (x / (1 + 2 * betas).sqrt()).flatten()[:, None]
    at, generator = Points(x, -x[:, 0].square(), -2 * x), seeded(2)
    for parity in (0, 1, 0, 1, 0):
        at, refused = swapped(at, betas, parity, generator)
        tried = torch.tensor([1.0, 0.0, 1.0] if parity == 0 else [0.0, 1.0, 0.0])
        assert torch.equal(refused[1], tried.double())
        assert ((refused[0] > 0) == (tried > 0)).all()
    assert torch.equal(at.r, -at.x[:, 0].square()) and torch.equal(at.g, -2 * at.x)
    assert sorted(at.x[:, 0].tolist()) == sorted(x[:, 0].tolist())
    assert z_scores(at.x.reshape(-1, 4).square(), 1 / (1 + 2 * betas)).abs().max() < 4


def test_swaps_take_what_has_density():
    """A cold replica outside the support changes places with any inside; two outside stay."""
    r = torch.tensor([-3.0, -math.inf, -math.inf, -3.0, -math.inf, -math.inf], dtype=torch.float64)
    at = Points(torch.arange(6.0).double()[:, None], r, torch.zeros(6, 1).double())
    betas = torch.tensor([0.0, 1.0], dtype=torch.float64)
    after, _ = swapped(at, betas, 0, seeded(0))
    assert after.x[:, 0].tolist() == [1.0, 0.0, 2.0, 3.0, 4.0, 5.0]


def test_each_point_moves_at_its_own_beta_and_size():
    """As one call for all where these agree; a size of 0 moves nothing."""
    problem, x = pose(Oval(), Brownian()), Oval().sample(50, seeded(0))
    at = evaluate(problem, x)
    betas = torch.linspace(0.1, 1, 50, dtype=torch.float64)
    size = torch.full((50, 1), 0.7, dtype=torch.float64)
    size[::2] = 0
    both, chance = move_each(problem, at, betas, size, 3, seeded(4))
    assert torch.equal(both.x[::2], at.x[::2]) and torch.allclose(
        chance[::2], torch.ones(25).double()
    )
    for k in (1, 13, 49):
        alone, chance_alone = move_each(problem, at, betas[k].item(), 0.7, 3, seeded(4))
        assert torch.allclose(alone.x[k], both.x[k]) and torch.allclose(chance_alone[k], chance[k])


def test_temperatures_are_placed_at_equal_refusals():
    """In steps of beta^(1/4): four rungs of refusals 0.1, 0.1, 0.4, 0.4 become rungs of 0.25."""
    roots = torch.tensor([0.25, 0.5, 0.75, 1.0], dtype=torch.float64)
    refused = torch.tensor([[0.2, 0.2, 0.8, 0.8], [2.0, 2.0, 2.0, 2.0]], dtype=torch.float64)
    nothing = Points(*[torch.empty(0)] * 3)
    schedule = Schedule(roots**4, roots - 1)
    after = replaced(Replicas(0, schedule, nothing, refused, (), (), 0, 0, 0, 1))
    expected = torch.tensor([0.5 + 0.05 / 0.4 / 4, 0.5 + 0.3 / 0.4 / 4, 0.75 + 0.15 / 0.4 / 4, 1.0])
    assert torch.allclose(after.schedule.betas**0.25, expected.double())
    assert torch.allclose(after.schedule.log_sizes, expected.double() - 1)
    assert after.schedule.betas[-1] == 1 and not after.refused.any()


@pytest.mark.parametrize("points", [500, 15_000])
def test_spends_the_budget_and_no_more(points):
    sampler = ParallelTempering(leaps=2)
    _, state, meter = play(sampler, Pair(), points, 0)
    assert meter.budget.covers(meter.spent) and meter.spent.share(meter.budget) > 0.85
    assert state.spent <= meter.spent.values == meter.spent.grads  # the last round is cut


def test_spec_builds_it_back():
    sampler = ParallelTempering(ladders=3, ess=0.7)
    assert build_sampler(spec(sampler)) == sampler
    with pytest.raises(ValueError, match="warm_up is 0"):
        ParallelTempering(warm_up=0.0)
