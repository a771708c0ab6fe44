"""Score matching, tilt matching, importance fine-tuning, iDEM: what each regresses on, and why."""

import copy
import math
from dataclasses import dataclass

import pytest
import torch

from tests.tools.worlds import Mixture, Shifted, Tilted, rng, z_score
from tiltbench.samplers.diffusion import Diffusion
from tiltbench.samplers.losses import importance_fine_tuning as fine_tuning
from tiltbench.samplers.losses import monte_carlo_score as monte_carlo
from tiltbench.samplers.losses import tilt_matching as tilting
from tiltbench.samplers.losses._matching import (
    POINTS,
    SLOPES,
    VALUES,
    matching,
    noising,
    plain,
    quiet_end,
    target,
    tempered,
    times,
)
from tiltbench.samplers.losses.conditional_score_matching import (
    conditional,
    conditional_score_matching_plain,
    conditional_score_matching_unweighted,
)
from tiltbench.samplers.losses.local_score_matching import NARROW, local
from tiltbench.samplers.losses.novel_score_matching import novel, novel_score_matching
from tiltbench.samplers.losses.target_score_matching import from_target
from tiltbench.samplers.networks.control import Control
from tiltbench.samplers.networks.model import Earlier, Model, Network
from tiltbench.samplers.networks.perceptron import Mlp
from tiltbench.samplers.sampler import Unsupported
from tiltbench.samplers.weights import ess
from tiltbench.targets.bases.interpolant import Ancestral, Interpolant
from tiltbench.targets.bases.mixture_flow import MixtureFlow
from tiltbench.targets.bases.optimal import Optimal
from tiltbench.targets.bases.process import Controlled, Path, simulate
from tiltbench.targets.bases.references import Brownian, Stationary
from tiltbench.targets.bases.schedules import Foellmer, RectifiedFlow, VariancePreserving
from tiltbench.targets.checks import Checks
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem

BLENDS = [conditional, from_target, novel, local]
blends = pytest.mark.parametrize("blend", BLENDS, ids=lambda f: f.__name__)
CURVES = (  # whatever the residual is correlated with, one of these sees it
    lambda x: torch.ones_like(x[:, 0]),
    lambda x: x[:, 0],
    lambda x: torch.sin(2 * x[:, -1]),
    lambda x: torch.tanh(x[:, 0] * x[:, -1]),
)


def on(schedule):
    base = MixtureFlow(
        (0.4, 0.6), ((-1.5, 0.0), (1.5, 0.5)), (0.3, 0.2), schedule=schedule, steps=20
    )
    return Tilted(base)


# --- what is regressed on ------------------------------------------------------------------------


@blends
@pytest.mark.parametrize("schedule", [RectifiedFlow(), VariancePreserving(), Foellmer()], ids=repr)
def test_the_conditional_mean_of_the_target_is_the_optimal_control(blend, schedule):
    """E[(y - u*(X_t)) phi(X_t)] = 0 under p*, for any phi, at any time (math.md 3)."""
    world, n = on(schedule), 10_000
    base = world.base
    for k in (0, 2, 10, 18):
        if blend is from_target and base.signals[k] == 0:
            continue  # infinite
        x1 = world.law.sample(n, rng(k))
        here = torch.full((n,), k)
        x = base.renoise(x1, here, rng(100 + k))
        y = target(base, blend(base), x, here, x1, world.law.score(x1))
        u = world.control(x, torch.full((n,), base.times[k]))
        assert abs(float((u * (y - u)).sum(-1).mean())) < 0.2 * float(y.square().sum(-1).mean())
        for curve in CURVES:
            for residual in ((y - u) * curve(x)[:, None]).unbind(-1):
                still = float(residual.abs().max()) == 0  # phi(0) = 0 at a point start
                assert still or abs(z_score(residual, 0.0)) < 4


@pytest.mark.parametrize(
    "base",
    [Brownian(steps=6, scale=1.7), Brownian(steps=6, ratio=1.0), Stationary(steps=6, scale=0.8)],
    ids=repr,
)
def test_novel_score_matching_on_a_gaussian_base_is_adjoint_sampling(base):
    """The same function of X_1, at a point start too: x_t drops out."""
    k = torch.arange(6).repeat(50)
    x, x1, g = (torch.randn(300, 2, generator=rng(i), dtype=torch.float64) for i in range(3))
    x = x * torch.tensor(base.noises)[k][:, None]  # 0 where the base starts from a point
    y = target(base, novel(base), x, k, x1, g + base.score(x1, base.steps))
    assert torch.allclose(y, base.pull(k, g), atol=1e-9)


@pytest.mark.parametrize(
    ("blend", "figures"),
    [
        (conditional, (0.0820, 1.846, 21.34)),
        (from_target, (5978.0, 20.51, 0.0361)),
        (novel, (0.4356, 2.513, 0.0173)),
    ],
    ids=["CSM", "TSM", "NSM"],
)
def test_conditional_variances_of_a_gaussian(blend, figures):
    """math.md 11: base N(0, 1), target N(1.2, .3), rectified flow, in units of sigma^2 = 2 eta."""
    m, tau2, n = 1.2, 0.3, 40_000
    base = MixtureFlow((1.0,), ((0.0,),), (1.0,), steps=1000)
    optimal = Optimal(base, lambda x, a, b: -(x - a[..., None] * m) / _var(a, b, tau2))
    for k, figure in zip((100, 500, 900), figures, strict=True):
        t = base.times[k]
        sigma, alpha, beta = math.sqrt(2 * (1 - t) / t), t, 1 - t
        x1 = m + math.sqrt(tau2) * torch.randn(n, 1, generator=rng(k), dtype=torch.float64)
        here = torch.full((n,), k)
        x = base.renoise(x1, here, rng(1 + k))
        y = target(base, blend(base), x, here, x1, (m - x1) / tau2)
        gap = y - optimal.control(x, torch.full((n,), t, dtype=torch.float64))
        unit = sigma * alpha / beta**2 / base.lifts[k]  # the chain's own units tend to sigma
        assert unit == pytest.approx(1, abs=0.01)
        square = (unit * gap).square().squeeze(-1)
        error = float(square.std()) / math.sqrt(n)
        assert abs(float(square.mean()) - figure) < 4 * error + 6e-4 * figure  # rounded
        left = 1 / (1 / tau2 + (alpha / beta) ** 2)
        slope = {
            conditional: alpha / beta**2,
            from_target: 1 / (alpha * tau2),
            novel: alpha / (alpha**2 + beta**2) * (1 - 1 / tau2),
        }[blend]
        assert (sigma * slope) ** 2 * left == pytest.approx(figure, rel=3e-3)


@pytest.mark.parametrize("base", [Brownian(steps=9, scale=2.0, ratio=3.0), Stationary(steps=9)])
def test_local_score_matching_has_no_variance_within_a_well(base):
    """p* = N(m, spread^2 / NARROW): every end point says E*[X_1 | X_t] exactly."""
    m, var, k = 1.2, base.spread**2 / NARROW, torch.arange(9).repeat(50)
    x1 = m + math.sqrt(var) * torch.randn(450, 3, generator=rng(), dtype=torch.float64)
    x = base.renoise(x1, k, rng(1))
    y = target(base, local(base), x, k, x1, (m - x1) / var)
    a, b = (torch.tensor(v, dtype=torch.float64)[k, None] for v in (base.signals, base.noises))
    mean = (a * var * x + b**2 * m) / (a**2 * var + b**2)
    lift = torch.tensor(base.lifts, dtype=torch.float64)[k, None]
    want = lift * (mean - base.denoise(x, k))
    known = a.squeeze(-1) > 0 if base.start_var == 0 else torch.ones(450, dtype=torch.bool)
    assert torch.allclose(y[known], want[known])


def _var(a, b, tau2):
    return (a * a * tau2 + b * b)[..., None]


@blends
def test_times_are_weighted_so_that_the_loss_has_a_variance(blend):
    """lambda E|y|^2 stays integrable in t: refining the grid leaves its sum over the grid as it is.

    Unweighted, the sums of conditional and target score matching grow with the steps."""

    def totals(steps):
        """(weighted, unweighted)"""
        world = Tilted(steps=steps)
        base, law = world.base, world.law
        k = torch.arange(1, steps).repeat_interleave(100)
        x1 = law.sample(len(k), rng(1))
        x = base.renoise(x1, k, rng(2))
        y = target(base, blend(base), x, k, x1, law.score(x1))
        square = y.square().sum(-1).reshape(-1, 100).mean(1)
        share = torch.tensor(blend(base).emphasis, dtype=square.dtype)[1:]
        return float(square @ share / steps), float(square.mean())

    few, many = totals(50), totals(200)
    assert many[0] < 1.35 * few[0]
    assert blend in (novel, local) or many[1] > 1.25 * few[1]


def test_times_are_drawn_in_proportion_and_in_random_order():
    order = times([1.0, 0.0, 3.0], 4000, rng())
    assert torch.bincount(order).tolist() == pytest.approx([1000, 0, 3000], abs=1)
    assert abs(float(torch.corrcoef(torch.stack([order, torch.arange(4000)]).double())[0, 1])) < 0.1


# --- where the end points come from --------------------------------------------------------------


class Swirl(Controlled):
    """A control that has nothing to do with the problem."""

    def control(self, x, t, hint=None):
        return 0.5 * torch.sin(x.flip(-1) + 3 * t[..., None])


def rows_of(loss, problem, control, n, seed):
    """What `label` keeps of n paths of a control: x1 and g of the chosen ends."""
    path = simulate(problem.base, control, (n, problem.dim), rng(seed), dtype=torch.float64)
    return loss.label(problem, Mlp().build(2, problem.base, rng()), path, 0.5, rng(seed + 1))


def gap(world, loss, n):
    """z-scores of the target's residual against u*, over independent batches of n paths."""
    base = world.base
    problem = world.problem()
    optimal = Optimal(base, _score_of(world))
    residuals = []
    for seed in range(60):
        rows = rows_of(loss, problem, Swirl(), n, 10 * seed)
        k = times([1.0] * base.steps, len(rows["x1"]), rng(seed))
        x = base.renoise(rows["x1"], k, rng(1000 + seed))
        y = target(base, novel(base), x, k, rows["x1"], rows["g"])
        residual = y - optimal.control(x, base.grid(x)[k])
        residuals.append(torch.stack([(residual * c(x)[:, None]).mean() for c in CURVES]))
    return [abs(z_score(column, 0.0)) for column in torch.stack(residuals).unbind(1)]


def _score_of(world):
    def score(x, a, b):
        with torch.enable_grad():
            y = x.detach().requires_grad_()
            return torch.autograd.grad(world.log_noised(y, a, b).sum(), y)[0]

    return score


def test_path_weights_make_end_points_of_any_control_into_draws_of_the_target():
    """Plain weights under an untrained control: E[(y - u*) phi] = 0; without weights it is not."""
    world = Mixture(Brownian(steps=4, scale=1.6))
    assert max(gap(world, _with(plain), 3000)) < 4
    assert max(gap(world, _with(lambda log_w, *_: torch.arange(len(log_w))), 3000)) > 8


def _with(select):
    return matching("under_test", novel, SLOPES, select)


def test_tempered_weights_keep_their_ess_and_leave_good_weights_alone():
    log_w = 3 * torch.randn(4000, generator=rng(), dtype=torch.float64)
    chosen = [tempered(scale * log_w, rng(1), Checks()).unique() for scale in (1.0, 0.1)]
    assert ess(log_w) < 0.1 and len(plain(log_w, rng(1), Checks()).unique()) / 4000 < 0.2
    assert len(chosen[0]) / 4000 > 0.45
    assert torch.equal(*(some(0.1 * log_w, rng(1), Checks()) for some in (tempered, plain)))


def test_relaxed_rejection_accepts_in_proportion_up_to_the_quantile():
    log_w = torch.tensor([0.0, math.log(4.0), math.log(8.0)], dtype=torch.float64)
    log_w = log_w.repeat_interleave(torch.tensor([4000, 5100, 900]))
    chosen = fine_tuning.rejection(log_w - 30, rng(), Checks())  # the quantile at .9 is w = 4
    accepted, copies = chosen.unique(return_counts=True)
    assert len(chosen) == len(log_w) and copies.max() - copies.min() <= 1
    counts = [int(((accepted >= a) & (accepted < b)).sum()) for a, b in ((0, 4000), (4000, 10_000))]
    assert abs(counts[0] - 1000) < 4 * math.sqrt(1000 * 0.75) and counts[1] == 6000
    assert (
        len(fine_tuning.rejection(torch.zeros(50, dtype=torch.float64), rng(), Checks()).unique())
        == 50
    )


class Scaled(Control):
    """theta u*."""

    def __init__(self, world, theta):
        super().__init__()
        self.world, self.theta = world, torch.nn.Parameter(torch.tensor(theta))

    def control(self, x, t, hint=None):
        return self.theta * self.world.control(x, t)


@pytest.mark.parametrize("shrink", [0.0, 1.0])
def test_the_pull_to_the_base_shortens_the_fixed_point_as_stated(shrink):
    """E|u - y|^2 + c E|u|^2 is least at u* / (1 + c)."""
    world = Shifted(Stationary(steps=8))
    loss = matching("under_test", conditional, VALUES, plain, shrink=shrink)
    slopes = {}
    for theta in (0.8, 1.0, 1.2):
        model = Model(Scaled(world, theta / (1 + shrink)))
        per_seed = []
        for seed in range(40):
            x1 = world.base.end((500, 2), rng(seed)) + world.slope * world.base.spread**2
            rows = {"x1": x1, "g": torch.zeros_like(x1)}
            value = loss.value(model, world.base, rows, rng(900 + seed))
            per_seed.append(torch.autograd.grad(value, model.network.theta)[0])
        slopes[theta] = torch.stack(per_seed)
    assert abs(z_score(slopes[1.0], 0.0)) < 4
    assert z_score(slopes[0.8], 0.0) < -4 and z_score(slopes[1.2], 0.0) > 4


# --- the negative control ------------------------------------------------------------------------


@dataclass(frozen=True)
class Table(Network):
    """u depends on time alone: one vector a step, `first` at the first half of them and 0 after."""

    name = "Table"
    first: tuple[float, ...] = (1.2, -0.6)

    def build(self, dim, process, generator):
        return Model(_Table(self.first, process.steps))


class _Table(Control):
    def __init__(self, first, steps):
        super().__init__()
        early = (torch.arange(steps) < steps / 2).float()
        self.steps = steps
        self.u = torch.nn.Parameter(early[:, None] * torch.tensor(first))

    def control(self, x, t, hint=None):
        k = (t * self.steps).round().long().clamp(max=self.steps - 1)
        return self.u[k].expand(x.shape)


def test_without_weights_the_control_changes_and_the_terminal_law_stays():
    """One fit sends u to sigma grad log(q_t / p_t), here a constant, with the same terminal law q;
    weighted, the same regression goes to p*."""
    base = Brownian(steps=8, scale=1.0, ratio=1.0)
    world = Shifted(base, (-0.5, 0.8))

    def trained(loss):
        sampler = Diffusion(loss, reference=base, model=Table(), paths=512, repeats=2, lr=0.01)
        budget = loss.price(512, 8, False).times(150)
        state = sampler.init(world.problem(), budget, rng(1))
        start = state.model.network.u.detach().mean(0), state.model.network.u.detach().clone()
        for _ in range(150):
            state = sampler.step(world.problem(), state, rng(2 + state.iteration))
        # X_1 ~ N(mean of u over time, 1): the law is its mean
        return *start, state.model.network.u.detach().mean(0), state.model.network.u.detach()

    before, u0, after, u = trained(conditional_score_matching_unweighted)
    away = float((world.slope - before).norm())
    assert float((after - before).norm()) < 0.15 * away
    assert float((u - after).norm()) < 0.35 * float((u0 - before).norm())
    _, _, weighted, _ = trained(conditional_score_matching_plain)
    assert float((weighted - world.slope).norm()) < 0.15 * away


# --- tilt matching -------------------------------------------------------------------------------


class Exact(Control):
    def __init__(self, world):
        super().__init__()
        self.world, self.level = world, torch.nn.Parameter(torch.zeros(()))

    def control(self, x, t, hint=None):
        return self.world.control(x, t) + self.level


def ends_of(world, n, seed):
    """A path of which only the ends count: exact draws of the world's law."""
    x1 = world.base.end((n, 2), rng(seed), torch.float64) + world.slope * world.base.spread**2
    return Path(t=None, x=x1[None], mean=None, std=None, u=None)


@pytest.mark.parametrize("h", [0.1, 0.5, 1.0])
def test_tilt_matching_has_the_next_tilt_as_its_fixed_point_at_any_step_and_constant(h):
    world, shift = Shifted(Brownian(steps=6, scale=1.3), (0.7, -0.4)), 3.0
    before, after = world.at(1 - h), world
    raw = world.problem()
    model = Model(Exact(after))
    model.earlier = Earlier(Model(Exact(before)), 1 - h, 1.0)
    path = ends_of(before, 20_000, 5)
    batch, moved = (
        tilting.label(
            Problem(2, world.base, lambda x, c=c: raw.reward(x) + c), model, path, 1.0, rng(6)
        )
        for c in (0.0, shift)
    )
    assert torch.allclose(batch["factor"], moved["factor"], rtol=1e-9)  # a constant changes nothing
    u = after.control(batch["x"], world.base.grid(batch["x"])[batch["k"]])
    for c in (1.0, 2.5):  # any C > 0
        factor = (c * (batch["factor"] + 1) - 1)[:, None]
        y = batch["u"] + factor * (batch["steer"] - u)
        wrong = batch["u"] + factor * (batch["steer"] - batch["u"])  # with u_a in both places
        for curve in CURVES:
            assert max(abs(z) for z in _by_path((y - u) * curve(batch["x"])[:, None])) < 4
        off = [_by_path((wrong - u) * curve(batch["x"])[:, None]) for curve in CURVES]
        assert max(abs(z) for zs in off for z in zs) > 6 or h < 0.5  # its error is O(h^2)
    # and this is what `value` descends: its slope is -2 E sum(y - u)
    value = tilting.value(model, world.base, batch, rng())
    slope = torch.autograd.grad(value, model.network.level)[0]
    y = batch["u"] + batch["factor"][:, None] * (batch["steer"] - u)
    assert float(slope) == pytest.approx(float(-2 * (y - u).sum(-1).mean()), rel=1e-4, abs=1e-6)


def _by_path(residual):
    """z-scores of the coordinates' means; the points of one path are dependent."""
    path = residual.reshape(POINTS, -1, 2).mean(0)
    return [z_score(column, 0.0) for column in path.unbind(-1)]


def test_tilts_climb_from_0_to_1_and_the_frozen_model_is_the_stage_before():
    world = Shifted(Brownian(steps=4), (0.8, 0.0))
    sampler = Diffusion(tilting.tilt_matching, reference=world.base, paths=16)
    budget = Cost(values=16 * 40)
    state = sampler.init(world.problem(), budget, rng())
    names = set(state.model.state_dict())
    seen, generator = [], rng(1)
    for _ in range(40):
        state = sampler.step(world.problem(), state, generator)
        seen.append(state.model.earlier[1:])
    stages = list(dict.fromkeys(seen))
    h = 1 / tilting.STAGES
    assert stages == [(i * h, (i + 1) * h) for i in range(tilting.STAGES)]
    assert seen.count(stages[-1]) == pytest.approx(40 * tilting.LAST, abs=1)
    assert set(state.model.state_dict()) == names
    frozen = state.model.earlier.model
    assert tilting.tilt_matching.behaviour(state.model) is frozen  # it is the one that simulates
    assert not any(p.requires_grad for p in frozen.parameters()) and frozen.earlier is None
    assert not {id(p) for p in frozen.parameters()} & {id(p) for p in state.model.parameters()}
    moved = [
        float((p - q).detach().abs().max())
        for p, q in zip(frozen.parameters(), state.model.parameters(), strict=True)
    ]
    assert max(moved) > 0  # the model went on learning
    twin = copy.deepcopy(state)
    assert twin.model.earlier.model is not frozen
    # both evaluate on the model's account: 4 steps and POINTS points of each of 16 paths, simulated
    # and labelled by the frozen one, and the points again by the trained one
    assert state.model.forward_points == 40 * 16 * (4 + 2 * POINTS)


def test_a_skipped_stage_is_climbed_in_one_stride():
    """What is frozen is what was trained by then; the next goal is the schedule's."""
    world = Shifted(Brownian(steps=4), (0.8, 0.0))
    model = Mlp(width=8).build(2, world.base, rng())
    for share, expected in ((0.0, (0.0, 0.25)), (0.9, (0.25, 1.0))):
        with torch.no_grad():
            for parameter in model.parameters():  # as if it had been trained
                parameter.add_(0.1)
        path = simulate(world.base, model, (8, 2), rng(1))
        tilting.label(world.problem(), model, path, share, rng())
        assert model.earlier[1:] == expected
        frozen = model.earlier.model.parameters()
        assert all(map(torch.equal, frozen, model.parameters()))


# --- iDEM ----------------------------------------------------------------------------------------


def test_monte_carlo_score_is_biased_like_one_over_the_draws_and_tends_to_the_optimum():
    """math.md 3: the mean over draws at fixed x, against u* in closed form."""
    world = Tilted(steps=20)
    problem, n = world.problem(), 25_000
    spots = torch.tensor([[0.3, 0.2], [-1.0, 0.4]], dtype=torch.float64)
    x, k = spots.repeat(n, 1), torch.full((2 * n,), 4)
    u = world.control(spots, torch.full((2,), 0.2))
    counts, gaps = (2, 4, 8), []
    for draws in counts:
        y = monte_carlo.estimate(problem, world.base, x, k, draws, rng(draws))
        mean = y.reshape(n, 2, 2).mean(0)
        gaps.append(float((mean - u).norm()))
    logs = [(math.log(c), math.log(g)) for c, g in zip(counts, gaps, strict=True)]
    a, b = (torch.tensor(v, dtype=torch.float64) for v in zip(*logs, strict=True))
    fit = float(((a - a.mean()) * (b - b.mean())).sum() / (a - a.mean()).square().sum())
    assert fit == pytest.approx(-1, abs=0.25)
    many = monte_carlo.estimate(problem, world.base, x[:1000], k[:1000], 500, rng(9))
    assert torch.allclose(many.reshape(500, 2, 2).mean(0), u, atol=0.04)


# --- where a method does not apply ---------------------------------------------------------------


@dataclass(frozen=True)
class Opaque(Interpolant):
    """A "pretrained" model: a denoiser and a score, no density, no posterior."""

    within: MixtureFlow = MixtureFlow((1.0,), ((0.0, 0.0),), (1.0,), steps=4)
    schedule: RectifiedFlow = RectifiedFlow()
    stepping: Ancestral = Ancestral()
    steps: int = 4
    spread = 1.0

    @property
    def uncertainty(self):
        return self.within.uncertainty

    def denoise(self, x, k):
        return self.within.denoise(x, k)

    def score(self, x, k):
        return self.within.score(x, k)

    def denoise_rate(self, x, k):
        return self.within.denoise_rate(x, k)


def test_a_base_without_what_a_method_needs_is_refused_in_one_sentence():
    problem = Problem(2, Opaque(), lambda x: x[..., 0])
    for loss in (
        novel_score_matching,
        tilting.tilt_matching,
        monte_carlo.monte_carlo_score_matching,
    ):
        sampler = Diffusion(loss, paths=8)
        state = sampler.init(problem, Cost(1000, 1000), rng())
        if loss is monte_carlo.monte_carlo_score_matching:
            with pytest.raises(Unsupported, match="known posterior"):
                sampler.step(problem, state, rng())
        else:
            assert sampler.step(problem, state, rng()).iteration == 1

    with pytest.raises(Unsupported, match="noising kernel"):
        noising(object())


def test_a_monte_carlo_target_does_not_depend_on_its_neighbours():
    """A steep reward: one good point in a batch must not raise the floor under the others."""
    base = MixtureFlow((0.4, 0.6), ((-1.5,), (1.5,)), (0.3, 0.2), steps=20)
    problem = Problem(1, base, lambda x: -40 * (x - 3).square().sum(-1))
    x, k = torch.tensor([[-1.5]]).repeat(2000, 1), torch.full((2000,), 18)
    alone = monte_carlo.estimate(problem, base, x, k, 32, rng(1))
    far = torch.cat([x, torch.tensor([[2.9]]).repeat(2000, 1)])
    beside = monte_carlo.estimate(problem, base, far, torch.full((4000,), 18), 32, rng(2))[:2000]
    error = math.sqrt(float(alone.var() + beside.var()) / 2000)
    assert abs(float(alone.mean() - beside.mean())) < 4 * error


def test_the_emphasis_of_every_target_is_as_stated():
    """lambda = beta / sqrt(alpha^2 s^2 + beta^2), 1 where X_t says nothing of X_1, at the quiet
    end; the square of w = alpha^2 s^2 / (alpha^2 s^2 + beta^2) for the slope alone; 1 of others."""
    base = Stationary(steps=8, scale=1.7)
    pairs = list(zip(base.signals[:-1], base.noises[:-1], strict=True))
    stated = [b / math.hypot(a * base.spread, b) for a, b in pairs]
    assert quiet_end(base) == pytest.approx(stated, rel=1e-6)
    assert min(stated) < 0.8, "else no power of it would be told from another"
    share = [(a * base.spread) ** 2 / ((a * base.spread) ** 2 + b * b) for a, b in pairs]
    assert from_target(base).emphasis == pytest.approx([w * w for w in share], rel=1e-6)
    assert novel(base).emphasis == local(base).emphasis == [1.0] * 8
