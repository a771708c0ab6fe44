"""Training paths that are not the model's own: their law, their price, and what is kept of them."""

import copy
import math
from dataclasses import replace

import pytest
import torch

from tests.tools.worlds import Cloud, Mixture, Shifted, rng, z_score
from tiltbench.plan.errors import BadSpec
from tiltbench.plan.spec import build_sampler, label, parse
from tiltbench.run.meter import BudgetExceeded, Meter
from tiltbench.run.pack import Packer, Unpacker
from tiltbench.samplers.behaviour import buffer as rings
from tiltbench.samplers.behaviour.buffer import by_rank, empty, evenly
from tiltbench.samplers.behaviour.exploration import Wider, excess, wider_paths
from tiltbench.samplers.behaviour.local_search import Langevin
from tiltbench.samplers.behaviour.replay import Ranked, Turn, Unranked
from tiltbench.samplers.classical._leapfrog import move
from tiltbench.samplers.diffusion import Diffusion
from tiltbench.samplers.loss import Loss
from tiltbench.samplers.losses._trust_region import RADIUS, divergence, exponent
from tiltbench.samplers.losses.conditional_score_matching import (
    conditional_score_matching_plain,
)
from tiltbench.samplers.losses.log_variance import log_variance
from tiltbench.samplers.losses.trajectory_balance import trajectory_balance
from tiltbench.samplers.losses.trust_region_cross_entropy import trust_region_cross_entropy
from tiltbench.samplers.losses.trust_region_log_variance import trust_region_log_variance
from tiltbench.samplers.networks.control import Control
from tiltbench.samplers.networks.model import Model
from tiltbench.samplers.networks.perceptron import Guided, Mlp
from tiltbench.samplers.sampler import Unsupported
from tiltbench.targets.bases.confined import Confined
from tiltbench.targets.bases.references import Brownian, Stationary
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem

BASES = [Brownian(steps=6, scale=1.5), Stationary(steps=6, scale=1.5)]
bases = pytest.mark.parametrize("base", BASES, ids=lambda b: b.name)


class Steered(Control):
    """`of`, a control in closed form, times a parameter that is 1."""

    def __init__(self, of):
        super().__init__()
        self.of, self.one = of, torch.nn.Parameter(torch.ones(()))

    def control(self, x, t, hint=None):
        return self.one * self.of(x.detach(), t)


def tilted(x, t):
    """A control that is nobody's optimum."""
    return 0.4 * torch.sin(x) + 0.3


# --- exploration ---


@bases
def test_weights_are_exact_for_the_law_that_simulated(base):
    """E_sim[exp(log_w - excess)] = Z, and E_sim[exp -excess] = 1; without the excess, or with its
    sign turned, they are other numbers."""
    world = Shifted(base)
    path = wider_paths(world.problem(), Model(Steered(tilted)), 40_000, 0.15, rng(1))
    log_w = world.problem().reward(path.x[-1]).double() - base.log_ratio(path) - world.log_Z
    log_w = log_w.detach()
    assert abs(z_score((log_w - path.excess).exp(), 1.0)) < 4
    assert abs(z_score((-path.excess).exp(), 1.0)) < 4
    for wrong in (log_w, log_w + path.excess):
        assert abs(z_score(wrong.exp(), 1.0)) > 6


@bases
def test_excess_is_the_ratio_of_the_kernels(base):
    extra, world = 0.7, Mixture(base)
    path = wider_paths(world.problem(), Model(Steered(tilted)), 50, extra, rng(2))
    lead = (-1, 1, 1)
    std, root = path.std.double().reshape(lead), path.dt.double().sqrt().reshape(lead)
    mean = path.mean.double() + std * root * path.u.double()
    laws = [torch.distributions.Normal(mean, std * s) for s in (math.sqrt(1 + extra), 1.0)]
    wide, narrow = (law.log_prob(path.x[1:].double()).sum((0, -1)) for law in laws)
    torch.testing.assert_close(path.excess, wide - narrow, rtol=1e-4, atol=1e-4)
    away = ((path.x[1:] - mean) / std).square().mean()
    assert float(away.detach()) == pytest.approx(1 + extra, rel=0.15)


def test_excess_counts_the_dimensions_of_the_subspace():
    """Noise without a centre of mass has fewer."""
    base = Confined(Brownian(steps=4), Cloud(3, 2))
    problem = Problem(6, base, lambda x: 0 * x.sum(-1))
    path = wider_paths(problem, Model(Steered(lambda x, t: 0 * x)), 40_000, 0.2, rng(3))
    assert abs(z_score((-path.excess).exp(), 1.0)) < 4
    assert torch.equal(path.excess, excess(base, path, 0.2))


def test_the_extra_falls_linearly_to_nothing():
    wide = Wider(extra=0.8, until=0.2)
    assert [round(wide.at(s), 9) for s in (0.0, 0.05, 0.1, 0.2, 1.0)] == [0.8, 0.6, 0.4, 0.0, 0.0]
    plain = Diffusion(log_variance, paths=16, reference=BASES[0])
    exploring = replace(plain, explore=wide)
    problem, model = Mixture(BASES[0]).problem(), Model(Steered(tilted))
    for share, same in ((0.1, False), (0.2, True)):
        one, other = (s.batch(problem, model, share, rng(4)) for s in (plain, exploring))
        assert torch.equal(one["x"], other["x"]) == same
        assert ("excess" in other) != same


@pytest.mark.parametrize("loss", [log_variance, trajectory_balance], ids=repr)
def test_path_space_losses_vanish_at_the_optimum_on_any_path(loss):
    """On exploring paths, and on paths traced back from points that are nobody's draws."""
    world = Shifted(Stationary(steps=8))
    problem, model = world.problem(), Model(Steered(world.control))
    with torch.no_grad():
        model.log_Z.fill_(world.log_Z)
    sampler = Diffusion(loss, paths=64, explore=Wider(extra=2.0, until=1.0))
    batch = sampler.batch(problem, model, 0.01, rng(5))
    assert batch["excess"].std() > 1
    ends = 3 * torch.randn(64, 2, generator=rng(6)) + 1
    with torch.no_grad():
        back = sampler.recipe.retrace(problem, model, ends, rng(7))
    again = loss.given(problem, model, back, problem.reward(ends), 0.5)
    off = Model(Steered(tilted))
    for some in (batch, again):
        assert loss.value(model, problem.base, some, rng()) < 1e-4
        assert loss.value(off, problem.base, some, rng()) > 0.05


def test_score_matching_weighs_exploring_paths_by_the_law_that_simulated():
    """Its end points, resampled, have the mean of p*."""
    world = Shifted(Stationary(steps=6), (0.5, -0.3))
    sampler = Diffusion(
        conditional_score_matching_plain, paths=30_000, explore=Wider(extra=0.1, until=1.0)
    )
    batch = sampler.batch(world.problem(), Model(Steered(tilted)), 1e-9, rng(8))
    square = batch["x1"].square().mean(0)  # variance 1 + mean^2; that of wider paths is above
    expected = 1 + world.slope.square()
    torch.testing.assert_close(batch["x1"].mean(0), world.slope, atol=0.04, rtol=0)
    torch.testing.assert_close(square, expected, atol=0.05, rtol=0)
    path = sampler._path(world.problem(), Model(Steered(tilted)), 1e-9, rng(8))
    blind = sampler.loss.label(
        world.problem(), Model(Steered(tilted)), replace(path, excess=None), 0.0, rng(9)
    )
    assert (blind["x1"].square().mean(0) - expected).abs().max() > 0.05


def test_a_trust_region_is_around_the_control_not_around_what_simulated():
    """Draws of N(0, s^2) weighed to N(0, 1): KL of the tilt c x is beta^2 c^2 / 2."""
    s, x = 1.3, torch.randn(200_000, generator=rng(10), dtype=torch.float64) * 1.3
    log_q = x.square() / 2 * (1 / s**2 - 1)
    assert float(divergence(x, log_q)) == pytest.approx(0.5, rel=0.02)
    assert float(divergence(x)) == pytest.approx(s * s / 2, rel=0.02)
    beta = exponent(2 * x[:2000], 0.5, log_q[:2000])
    assert float(divergence(2 * beta * x[:2000], log_q[:2000])) == pytest.approx(0.5, abs=1e-9)
    few = torch.tensor([1.0, -0.5, 0.3], dtype=torch.float64)
    q = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    p = q * few.exp() / (q * few.exp()).sum()
    expected = float((p * (p / q).log()).sum())
    assert float(divergence(few, 7 + q.log())) == pytest.approx(expected)


@pytest.mark.parametrize(
    "loss", [trust_region_log_variance, trust_region_cross_entropy], ids=lambda loss: loss.name
)
def test_a_trust_region_weighs_exploring_paths_to_the_control(loss):
    """Its target is P^v tempered, P^v by the weights exp(-excess): a radius from that law, and the
    chances of a path in the same."""
    world = Shifted(Stationary(steps=6, scale=1.5), (1.5, -1.0))
    problem, model = world.problem(), Model(Steered(tilted))
    path = wider_paths(problem, model, 4000, 1.5, rng(31))
    loss = loss if isinstance(loss, Loss) else loss.sampler.loss
    batch = loss.label(problem, model, path, 0.5, rng(32))
    log_w = problem.reward(path.x[-1]).double() - problem.base.log_ratio(path)
    beta = exponent(log_w, RADIUS, -path.excess)
    assert 0.05 < beta < 0.95 and abs(exponent(log_w, RADIUS, path.excess) - beta) > 0.02
    if "chance" in batch:
        expected = torch.softmax(beta * log_w - path.excess, 0)
        torch.testing.assert_close(batch["chance"], expected)
    else:
        torch.testing.assert_close(batch["r"] - problem.base.log_ratio(path), beta * log_w)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("relative_entropy[explore=Wider]", "relative_entropy is right for the model's own paths"),
        ("adjoint_matching[explore=Wider]", "model's own paths only"),
        ("adjoint_sampling[explore=Wider]", "model's own paths only"),
        ("tilt_matching[explore=Wider]", "model's own paths only"),
        ("conditional_score_matching_unweighted[explore=Wider]", "model's own paths only"),
        ("novel_score_matching[replay=Ranked]", "cannot train on replayed paths"),
        ("trust_region_log_variance[replay=Unranked]", "cannot train on replayed paths"),
        ("cmcd_lv[explore=Wider]", "the base's own chain"),
        ("cmcd_lv[replay=Ranked]", "the base's own chain"),
    ],
)
def test_a_loss_for_its_own_paths_says_so(text, why):
    with pytest.raises(BadSpec, match=why):
        build_sampler(parse(text))


@pytest.mark.parametrize(
    ("part", "why"),
    [
        ("explore=Wider[extra=0]", "extra is 0"),
        ("explore=Wider[until=2]", "until is 2"),
        ("explore=Ranked", "OwnNoise, Wider"),
        ("replay=Ranked[capacity=0]", "capacity is 0"),
        ("explore=Wider[extra=1e300]", "at most 1e\\+06"),
        ("replay=Ranked[w0=0]", "w0 is 0"),
        ("replay=Ranked[w0=inf]", "replay=Unranked prefers none"),
        ("replay=Ranked[capacity=inf]", "whole number"),
        ("replay=Ranked[capacity=nan]", "whole number"),
        ("replay=Unranked[search=Langevin[burn_in=200]]", "below steps, 200"),
        ("replay=Unranked[search=Langevin[start=0]]", "start is 0"),
    ],
)
def test_numbers_out_of_range_are_refused(part, why):
    with pytest.raises(BadSpec, match=why):
        build_sampler(parse(f"log_variance[{part}]"))


def test_the_spec_of_all_three_is_read_back():
    text = (
        "trajectory_balance[explore=Wider[extra=0.8,until=0.2],"
        "replay=Ranked[capacity=600000,search=Langevin[steps=100,burn_in=50]]]"
    )
    assert label(build_sampler(parse(text))) == text


# --- the buffer ---


def of_numbers(capacity, rewards):
    ring = empty(capacity, 2, torch.device("cpu"))
    r = torch.tensor(rewards, dtype=torch.float64)
    ring.write(torch.zeros(len(r), 2) + r[:, None], r)
    return ring


def test_a_ring_keeps_the_last():
    ring = of_numbers(5, [0, 1, 2])
    assert ring.filled == 3
    ring.write(torch.zeros(4, 2), torch.arange(3, 7))
    assert ring.filled == 5 and sorted(ring.r.tolist()) == [2, 3, 4, 5, 6]
    ring.write(torch.zeros(2, 2), torch.arange(7, 9))
    assert sorted(ring.r.tolist()) == [4, 5, 6, 7, 8]  # the oldest go, wherever they lie
    ring.write(torch.ones(12, 2), torch.arange(12))
    assert sorted(ring.r.tolist()) == [7, 8, 9, 10, 11] and ring.x.min() == 1


def test_chances_go_by_rank():
    """Of the density r + log p_base, 1 / (w0 N + i): the base's part turns the order round."""
    base = Brownian(scale=0.5)
    ring = of_numbers(8, [0.0, 1.0, 2.0, 3.0])
    place = by_rank(Problem(2, base, lambda x: x), ring, 0.1, 100_000, rng(11))
    expected = 1 / (0.4 + torch.arange(4.0))
    expected = expected / expected.sum()
    frequency = torch.bincount(place, minlength=4) / len(place)
    error = (expected * (1 - expected) / len(place)).sqrt()
    assert ((frequency - expected) / error).abs().max() < 4
    even = torch.bincount(evenly(ring, 100_000, rng(12)), minlength=4) / 100_000
    assert (even - 0.25).abs().max() < 0.01


def test_replayed_ends_go_by_rank_or_evenly():
    problem = Problem(2, Brownian(scale=10.0), lambda x: x)
    worst = {}
    for replay in (Ranked(capacity=200, w0=1e-3), Unranked(capacity=200)):
        store = replay.begin(problem, 4, torch.device("cpu"))
        r = torch.arange(100.0)
        store.seen.write(torch.zeros(100, 2), r)
        chosen = replay.ends(problem, store, 1000, rng(15))[1]
        worst[replay.name] = float((chosen < 50).float().mean())
    assert worst["Ranked"] < 0.1 and 0.4 < worst["Unranked"] < 0.6


def test_ranks_are_renewed_when_enough_is_new():
    problem = Problem(2, Brownian(scale=10.0), lambda x: x)
    ring = of_numbers(200, list(range(100)))
    ranked = []
    for r in (200.0, *[-1.0] * 20):
        by_rank(problem, ring, 1e-2, 1, rng(13))
        ranked.append(ring.ranked)
        ring.write(torch.zeros(1, 2), torch.tensor([r]))
    assert len(set(ranked)) == 3 and ranked[0] == 100  # after 100 at 107 and at 114
    assert rings.AGED * 100 < ranked[-1] - ranked[0] < 4 * rings.AGED * 100
    by_rank(problem, ring, 1e-2, 1, rng(14))
    assert ring.order[0] == 100  # the best has been found


def test_a_search_starts_from_what_is_chosen_and_ends_are_what_it_found():
    """Its starts are drawn from where paths have ended, by rank; once it has visited anything, end
    points are drawn from there, each with its own reward."""
    started = []

    class Noted(Langevin):
        def advance(self, problem, walk, starts, iteration, generator):
            started.append(starts())
            return super().advance(problem, walk, starts, iteration, generator)

    search = Noted(every=1, steps=2, burn_in=0, start=1e-8)
    replay = Ranked(capacity=200, w0=1e-3, search=search)
    problem = Problem(2, Brownian(scale=100.0), lambda x: x[..., 0])
    store = replay.begin(problem, 50, torch.device("cpu"))
    ends = torch.zeros(100, 2) + torch.arange(100.0)[:, None]
    replay.keep(store, Turn(store.walk), (ends, ends[:, 0]))
    assert replay.ends(problem, store, 50, rng(41))[0].max() <= 99
    turn = replay.buy(problem, store, 1, rng(42))
    (starts,) = started
    assert len(starts) == 50 and (starts[:, 0] > 50).double().mean() > 0.8
    replay.keep(store, turn, (ends - 500, ends[:, 0] - 500))
    x, r = replay.ends(problem, store, 50, rng(43))
    assert x.min() > -1 and torch.equal(x[:, 0].double(), r.float().double())


# --- what is paid, kept and trained on ---


def exploring(network=None, **changed):
    search = Langevin(every=3, steps=5, burn_in=2)
    replay = replace(Ranked(capacity=50, updates=2, search=search), **changed)
    network = network or Mlp(width=8)
    return Diffusion(
        trajectory_balance, Brownian(steps=4), model=network, paths=6, replay=replay, repeats=2
    )


def posed(sampler, budget=10**6):
    meter = Meter(Cost(budget, budget))
    plain = Mixture(sampler.reference).problem()
    return replace(plain, reward=meter.watch(plain.reward)), meter


@pytest.mark.parametrize("network", [Mlp(width=8), Guided(width=8)], ids=lambda n: n.name)
def test_price_is_what_every_step_pays(network):
    """A search of 5 moves is made in 1, 2 and 2 of them, after a start."""
    sampler = exploring(network)
    problem, meter = posed(sampler)
    state, calls = sampler.init(problem, meter.budget, rng()), []
    for done in range(8):
        before = meter.spent
        assert sampler.steps_done(state) == done
        price = sampler.price(problem, state.model, done)
        state = sampler.step(problem, state, rng(done))
        assert meter.spent.minus(before) == price
        assert meter.spent == state.paid
        assert state.iteration == 4 * (done + 1)
        calls.append(price.grads)
    moves = [0, *[m + (i % 3 == 0) for i, m in enumerate([1, 2, 2] * 3)]][:8]
    hints = [24 * (1 + 2 * (i > 0)) if network.name == "Guided" else 0 for i in range(8)]
    assert calls == [6 * m + h for m, h in zip(moves, hints, strict=True)]


def test_buffers_hold_points_with_their_own_rewards():
    sampler = exploring()
    problem, meter = posed(sampler)
    state = sampler.init(problem, meter.budget, rng())
    for done in range(12):
        state = sampler.step(problem, state, rng(done))
    store = state.store
    assert store.seen.written == 72 and store.seen.filled == 50  # the ring has gone round
    # three moves of a search, and one of the fourth
    assert store.visited.written == 6 * (3 * 3 + 1)
    for ring in (store.seen, store.visited):
        n = ring.filled
        reward = Mixture(sampler.reference).problem().reward(ring.x[:n]).double()
        torch.testing.assert_close(ring.r[:n], reward, rtol=1e-4, atol=1e-3)
    state.store.visited.r.fill_(-7.0)
    _, r = sampler.replay.ends(problem, store, 5, rng())
    assert r.tolist() == [-7.0] * 5  # what the search has found comes first


def test_a_step_that_cannot_be_paid_changes_nothing():
    """Refused in the search, after the fresh paths were paid for."""
    sampler = exploring()
    problem, meter = posed(sampler)
    state = sampler.init(problem, meter.budget, rng())
    for done in range(3):
        state = sampler.step(problem, state, rng(done))
    before = copy.deepcopy(state)
    meter.budget = Cost(meter.spent.values + 6, 10**6)
    with pytest.raises(BudgetExceeded):
        sampler.step(problem, state, rng(9))
    assert state.iteration == before.iteration and state.paid == before.paid
    for ring, was in (
        (state.store.seen, before.store.seen),
        (state.store.visited, before.store.visited),
    ):
        assert ring.written == was.written
        assert torch.equal(ring.x, was.x) and torch.equal(ring.r, was.r)
    assert torch.equal(state.store.walk.at.x, before.store.walk.at.x)


def test_a_resumed_training_goes_on_alike():
    sampler = exploring()
    problem, meter = posed(sampler)
    state, source = sampler.init(problem, meter.budget, rng()), rng(15)
    for _ in range(3):
        state = sampler.step(problem, state, source)
    packer = Packer()
    node, held = packer.node(state), source.get_state()
    fresh = sampler.init(problem, meter.budget, rng())
    other = Unpacker(packer.tensors, torch.device("cpu")).fill(fresh, node)
    for _ in range(3):
        state = sampler.step(problem, state, source)
    source.set_state(held)
    for _ in range(3):
        other = sampler.step(problem, other, source)
    for mine, theirs in zip(state.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert torch.equal(state.store.visited.x, other.store.visited.x)


def test_replayed_paths_end_where_they_were_told_to():
    """And their law is the base's reversal, X_k given both ends: mean t x of Brownian motion."""
    base = Brownian(steps=4, ratio=1.0)
    sampler = replace(exploring(), reference=base, paths=20_000)
    problem, model = Mixture(base).problem(), Model(Steered(tilted))
    ends = torch.tensor([2.0, -1.0]).expand(20_000, 2)
    path = sampler.recipe.retrace(problem, model, ends, rng(16))
    assert torch.equal(path.x[-1], ends) and torch.equal(path.x[0], torch.zeros_like(ends))
    for k, t in enumerate(base.times[1:-1], 1):
        for d in range(2):
            assert abs(z_score(path.x[k, :, d], float(t * ends[0, d]))) < 4
            assert float(path.x[k, :, d].var()) == pytest.approx(t * (1 - t), rel=0.05)


# --- the local search ---


def test_a_search_ends_in_the_law_of_its_mode():
    """From four standard deviations off and the small first step of the paper: the mean and the
    variance of p* over chains, and the acceptance that is wanted."""
    search = Langevin(every=1, steps=200, burn_in=150, start=1e-3)
    world = Shifted(Brownian(scale=0.5), (2.0, -1.0))
    mean = 0.25 * world.slope.double()
    walk, visited = search.advance(
        world.problem(),
        search.begin(600, 2, torch.device("cpu")),
        lambda: (mean + 2.0).float().expand(600, 2),
        0,
        rng(17),
    )
    assert len(visited) == 50 and walk.moves == 200
    for d in range(2):
        last = visited[-1].x[:, d]
        assert abs(z_score(last, float(mean[d]))) < 4
        assert abs(z_score((last - mean[d]).square(), 0.25)) < 4
    chance = move(world.problem(), walk.at, 1.0, walk.log_size.exp(), 1, rng(18))[1]
    assert float(chance) == pytest.approx(search.acceptance, abs=0.1)


def test_the_step_size_moves_less_the_more_moves_there_were():
    """From one search to the next: the count goes on."""
    search, world = Langevin(every=1, steps=1, burn_in=0), Shifted(Brownian(scale=0.5))
    fresh = search.begin(50, 2, torch.device("cpu"))
    moved = []
    for moves_before in (0, 10**6):
        walk = fresh._replace(moves=moves_before)
        after, _ = search.advance(world.problem(), walk, lambda: torch.zeros(50, 2), 0, rng(19))
        assert after.moves == moves_before + 1
        moved.append(abs(float(after.log_size - walk.log_size)))
    assert moved[0] > 0.1 and moved[1] < 0.01


def test_the_first_step_size_is_that_of_the_drift():
    """x + start grad log p* + sqrt(2 start) noise."""
    walk = Langevin(start=0.02).begin(3, 2, torch.device("cpu"))
    assert float(walk.log_size.exp()) == pytest.approx(math.sqrt(0.04))


def test_unranked_takes_a_base_without_a_density_and_the_others_say_why():
    class Unknown:
        pass

    problem = Problem(2, Unknown(), lambda x: x)
    cpu = torch.device("cpu")
    assert Unranked().begin(problem, 4, cpu).seen.filled == 0
    with pytest.raises(Unsupported, match="use replay=Unranked"):
        Ranked().begin(problem, 4, cpu)
    with pytest.raises(Unsupported, match="leave search out"):
        Unranked(search=Langevin()).begin(problem, 4, cpu)
