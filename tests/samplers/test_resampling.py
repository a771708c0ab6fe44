"""Escorts resampled on their way: unbiased at any number of steps, and exact where known."""

import math
from dataclasses import replace

import pytest
import torch

from tests.samplers.test_escorts import PAIR, STILL, Gaussian, Random, problem_on
from tests.tools.worlds import Mixture, rng, z_score
from tiltbench.plan.spec import build_sampler, parse
from tiltbench.samplers.escorts import scld
from tiltbench.samplers.networks.model import Model
from tiltbench.samplers.networks.perceptron import Mlp
from tiltbench.samplers.recipes.escorted import Escorted
from tiltbench.samplers.recipes.resampled import Resampled
from tiltbench.samplers.recipes.resampling import ancestors_of, lineage
from tiltbench.samplers.sampler import Unsupported
from tiltbench.targets.bases.references import Stationary
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem, log_weight


@pytest.fixture(autouse=True)
def without_graphs():
    with torch.no_grad():
        yield


def resampled(problem, **chosen):
    return problem_on(Resampled(**chosen).process(problem, problem.reward), problem)


def islands_of(problem, n, island, model=None, seed=1):
    """The path, and the weights by island."""
    path = problem.base.simulate(model or Random(), (n, problem.dim), rng(seed), dtype=torch.double)
    return path, log_weight(problem, path).reshape(-1, island)


@pytest.mark.parametrize("least, every", [(1.0, 3), (0.7, 2)])
def test_small_islands_are_unbiased(least, every):
    """E exp(log_w) f(x) = Z E f at eight steps, for a random escort and four slots an island."""
    world = Mixture(Stationary(steps=8, scale=1.7))
    chosen = {"eps": 0.3, "ratio": 1.5, "every": every, "least": least, "island": 4}
    problem = resampled(world.problem(), **chosen)
    path, log_w = islands_of(problem, 40_000, 4)
    share = float(path.renewed[problem.base.boundaries].double().mean())
    assert share == 1 if least == 1 else 0.1 < share < 0.9
    w = (log_w - world.log_Z).exp()
    assert abs(z_score(w.mean(1), 1.0)) < 4
    mean = float(world.weight @ world.mean[:, 1])
    assert abs(z_score((w * path.x[-1, :, 1].reshape(-1, 4)).mean(1), mean)) < 4


def test_on_a_flow_the_law_of_the_base_is_made_good_along_the_lineage():
    """r = c.x on a pair of Gaussians, at five steps; without `log_law_over_chain` Z is 5 % off."""
    slope = torch.tensor([0.8, -0.5])
    tilt = Problem(2, replace(PAIR, steps=5), lambda x: (x * slope.to(x)).sum(-1))
    problem = resampled(tilt, eps=0.3, ratio=1.5, every=2, least=1.0, island=8)
    path, log_w = islands_of(problem, 40_000, 8, STILL, seed=2)
    assert abs(z_score((log_w - 0.606237).exp().mean(1), 1.0)) < 4
    chain = (tilt.reward(path.x[-1]) - problem.base.log_ratio(path)).reshape(-1, 8)
    assert z_score((chain - 0.606237).exp().mean(1), 1.0) < -8
    traced = lineage(path)
    assert torch.equal(traced.x[-1], path.x[-1]) and traced.x[0].unique(dim=0).shape[0] < 40_000
    assert torch.equal(traced.x[4], path.x[4][path.ancestor[4]])
    assert torch.equal(traced.pull[3], path.pull[3][path.ancestor[4]])


def test_never_resampled_it_is_the_escort():
    """The same paths with the same weights: annealed importance sampling where w = 0."""
    world = Mixture(Stationary(steps=6, scale=1.7))
    for model in (STILL, Random()):
        problem = resampled(world.problem(), least=0.0)
        path, log_w = islands_of(problem, 400, 1, model)
        plain = problem_on(Escorted().process(world.problem(), world.problem().reward), problem)
        alike, log_v = islands_of(plain, 400, 1, model)
        assert torch.allclose(path.x, alike.x) and torch.allclose(log_w, log_v)
        assert torch.allclose(problem.base.log_w_along(path), plain.base.log_w_along(alike))


def test_log_Z_is_the_sum_of_the_segments():
    """Resampled at every boundary: log Z = sum_s log mean exp(A_b - A_a), as SMC is defined."""
    world = Mixture(Stationary(steps=7, scale=1.7))
    problem = resampled(world.problem(), every=3, least=1.0, island=50)
    path, log_w = islands_of(problem, 50, 50)
    gained = scld.segments(problem.base, path)
    assert len(gained) == 3
    batch = scld.label(problem, Model(Random()), path, 0.5, rng())
    value = float(scld.value(Model(Random()), problem.base, batch, rng()))
    assert value == pytest.approx(float(gained.var(1).sum()))
    each = torch.logsumexp(gained, 1) - math.log(50)
    assert float(torch.logsumexp(log_w, 1)) - math.log(50) == pytest.approx(float(each.sum()))


def test_systematic_ancestors():
    """Drawn floor or ceil of n w times within the island; where nothing is thin, nobody moves."""
    log_w = torch.randn(6, 40, generator=rng(), dtype=torch.float64).mul(2)
    log_w[4], log_w[5] = 0.0, -torch.inf
    start = torch.rand(6, 1, generator=rng(1), dtype=torch.float64)
    ancestor, thin = ancestors_of(log_w, 0.6, start)
    assert thin[:, 0].tolist() == [True] * 4 + [False] * 2
    assert torch.equal(ancestor[4:].flatten(), torch.arange(160, 240))
    for row in range(4):
        count = torch.bincount(ancestor[row] - 40 * row, minlength=40)
        assert bool(((count - 40 * torch.softmax(log_w[row], 0)).abs() < 1).all())


def test_an_island_is_thin_by_its_share_of_effective_slots():
    """(sum w)^2 / (n sum w^2), 25 / 28 of the weights 1, 1, 1 and 2."""
    log_w = torch.tensor([[1.0, 1.0, 1.0, 2.0]], dtype=torch.float64).log()
    share, start = 25 / 28, torch.zeros(1, 1, dtype=torch.float64)
    for least, expected in ((share - 1e-9, False), (share + 1e-9, True)):
        assert bool(ancestors_of(log_w, least, start)[1]) == expected


def test_zero_density():
    """r = -inf on a half-line: no NaN, and Z unbiased, though steps lead out of the wall again."""
    base = Stationary(steps=6)
    tilt = Problem(1, base, lambda x: torch.where(x[..., 0] > 0, -x[..., 0], -torch.inf))
    problem = resampled(tilt, eps=0.2, ratio=1.0, every=2, least=0.9, island=8)
    path, log_w = islands_of(problem, 40_000, 8)
    truth = math.exp(0.5) * 0.5 * math.erfc(1 / math.sqrt(2))
    assert bool((log_w == -torch.inf).any()) and not bool(log_w.isnan().any())
    assert abs(z_score(log_w.exp().mean(1), truth)) < 4
    model = Model(Random())
    batch = scld.label(problem, model, path, 0.5, rng())
    assert math.isfinite(float(scld.value(model, problem.base, batch, rng())))


def test_segments_of_the_perfect_escort_do_not_vary():
    """Var(A_b - A_a) of every segment vanishes as dt^2, that of another escort stays."""
    variances = []
    for steps in (16, 64):
        world = Gaussian(steps=steps)
        problem = resampled(world.problem(), eps=0.3, ratio=1.0, every=steps // 4)
        values = []
        for theta in (0.0, 0.5):
            path, _ = islands_of(problem, 500, 500, world.near(0.0))
            batch = scld.label(problem, world.near(0.0), path, 0.5, rng())
            values.append(float(scld.value(world.near(theta), problem.base, batch, rng())))
        variances.append(values)
    (coarse, other), (fine, same) = variances
    assert 1.6 < math.log(coarse / fine) / math.log(4) < 2.4
    assert same > 30 * fine and same > 0.5 * other


def test_one_segment_is_log_variance():
    world = Mixture(Stationary(steps=5, scale=1.7))
    problem = resampled(world.problem(), every=5)
    path, log_w = islands_of(problem, 300, 300)
    model = Model(Random())
    batch = scld.label(problem, model, path, 0.5, rng())
    assert float(scld.value(model, problem.base, batch, rng())) == pytest.approx(float(log_w.var()))


def test_draws_say_their_islands():
    sampler = build_sampler(
        parse("scld[recipe=Resampled[island=10],reference=Stationary[steps=4]]")
    )
    problem = Mixture(sampler.reference).problem()
    state = sampler.init(problem, Cost(), rng())
    draws = sampler.draw(problem, state, 30, rng())
    assert draws.group.tolist() == [0] * 10 + [1] * 10 + [2] * 10
    assert sampler.posed(problem).base.islands(35) == 1  # no more than divide evenly: 35 = 1 x 35
    assert sampler.reverse(problem, state, draws.x, rng()) is None


def test_what_cannot_be_resampled_is_refused():
    for wrong in ({"every": 0}, {"least": 1.5}, {"island": 1}, {"eps": 0.0}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} is "):
            Resampled(**wrong)
    problem = Mixture(Stationary(steps=3)).problem()
    for spec, words in (
        ("cmcd_kl[recipe=Resampled,reference=Stationary[steps=3]]", "has no gradient"),
        ("scld[recipe=Escorted,reference=Stationary[steps=3]]", "recipe=Resampled"),
    ):
        sampler = replace(build_sampler(parse(spec)), model=Mlp(width=8))
        state = sampler.init(problem, Cost(), rng())
        with torch.enable_grad(), pytest.raises(Unsupported, match=words):
            sampler.step(problem, state, rng())
