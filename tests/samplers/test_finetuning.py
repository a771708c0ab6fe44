"""Fine-tuning: tricks of adjoint matching, truncation, baselines, rewards of images, metrics."""

import math
from functools import partial

import pytest
import torch

from tests.tools.worlds import Shifted, Tilted, rng, z_score
from tiltbench.metric import Outcome, Unknown
from tiltbench.plan.errors import BadSpec
from tiltbench.plan.spec import METRICS, build_sampler, build_target, label, parse, spec
from tiltbench.run.meter import Meter
from tiltbench.samplers.baselines.best_of_n import BestOfN
from tiltbench.samplers.baselines.guidance import Ahead, Guidance
from tiltbench.samplers.baselines.importance_resampling import ImportanceResampling
from tiltbench.samplers.baselines.untrained import Untrained
from tiltbench.samplers.diffusion import Diffusion
from tiltbench.samplers.loss import build_loss, regress
from tiltbench.samplers.losses.adjoint_matching import Tricks, adjoint_matching
from tiltbench.samplers.losses.relative_entropy import relative_entropy
from tiltbench.samplers.losses.trajectory_balance import trajectory_balance
from tiltbench.samplers.networks.control import Control
from tiltbench.samplers.networks.model import Model
from tiltbench.samplers.networks.perceptron import Mlp
from tiltbench.samplers.recipes.recipe import Base
from tiltbench.samplers.recipes.truncated import Truncated
from tiltbench.samplers.sampler import Draws, Unsupported
from tiltbench.studies.memory.study import peak
from tiltbench.studies.memoryless.noise import (
    Bell,
    Silent,
    TerminalLaw,
    optimum,
    remembered,
    siblings,
    steered,
)
from tiltbench.targets.bases.interpolant import Constant
from tiltbench.targets.bases.mixture_flow import MixtureFlow
from tiltbench.targets.bases.process import simulate
from tiltbench.targets.bases.references import Brownian, Stationary
from tiltbench.targets.cost import Cost
from tiltbench.targets.digits.images import ink, likelihood, pooled, sharpness
from tiltbench.targets.problem import Problem


def bowl(base, sharp=1.0):
    """r = -sharp |x - 1|^2 / 2: a gradient that depends on where a path ends."""
    return Problem(2, base, lambda x: -sharp * (x - 1).square().sum(-1) / 2)


class Bent(Control):
    """u = early for t < 1/2, late from there on, times 1 + sin x."""

    def __init__(self, early=0.3, late=-0.2):
        super().__init__()
        self.early = torch.nn.Parameter(torch.tensor(early))
        self.late = torch.nn.Parameter(torch.tensor(late))

    def control(self, x, t, hint=None):
        part = torch.where(t < 0.5, self.early, self.late)
        return part[..., None] * (1 + torch.sin(x))


def bent():
    return Model(Bent())


def bought(loss, problem, model, seed=3, recipe=None):
    return Diffusion(loss, paths=64, recipe=recipe or Base()).batch(problem, model, 0.5, rng(seed))


# the tricks of adjoint matching


def test_without_its_tricks_it_is_adjoint_matching():
    problem, model = bowl(Stationary(steps=8)), bent()
    bare = build_loss(Tricks(late=1.0, early=0.0, threshold=1e9, last_noise=1.0))
    batches = [bought(loss, problem, model) for loss in (adjoint_matching, bare)]
    for key in ("x", "t", "y"):
        assert torch.equal(batches[0][key], batches[1][key])
    plain, tricky = (
        loss.value(model, problem.base, batch, rng(1))
        for loss, batch in zip((adjoint_matching, bare), batches, strict=True)
    )
    assert torch.allclose(plain, tricky)


def test_the_noiseless_end():
    """y_{K-1} is sigma grad r at the steered mean, a function of x_{K-1}; half of the noise is half
    way; the other points and the path itself are as they were."""
    problem, model = bowl(Stationary(steps=8), sharp=4.0), bent()
    path = simulate(problem.base, model, (64, 2), rng(3))
    sigma = path.std[-1] / path.dt[-1].sqrt()
    steered = path.mean[-1] + path.std[-1] * path.dt[-1].sqrt() * path.u[-1]
    for share in (0.0, 0.5, 1.0):
        loss = build_loss(Tricks(last_noise=share))
        y = loss.label(problem, model, path, 0.5, rng()).pop("y")
        end = steered + share * (path.x[-1] - steered)
        assert torch.allclose(y[-1], -4 * sigma * (end - 1), atol=1e-5)
        a = y[-1] / sigma
        before = path.std[-2] / path.dt[-2].sqrt() * problem.base.pull_back(path.x[-2], 7, a)
        assert torch.allclose(y[-2], before, atol=1e-5)


def test_which_steps_are_regressed():
    steps, tricks, seen = 40, Tricks(), torch.zeros(40)
    for seed in range(300):
        k = tricks.chosen(steps, rng(seed))
        assert len(k) == len(k.unique()) == 20 and k[10:].tolist() == list(range(30, 40))
        seen[k] += 1
    assert (seen[30:] == 300).all()
    z = (seen[:30] - 100) / math.sqrt(300 * (1 / 3) * (2 / 3))  # each of 30 with chance 1/3
    assert z.abs().max() < 4 and z.square().mean() == pytest.approx(1, abs=0.6)
    assert Tricks(late=0.01, early=0.0).chosen(3, rng()).tolist() == [2]
    assert Tricks(late=0.9, early=0.1).chosen(3, rng()).tolist() == [0, 1, 2]


def test_the_loss_is_the_mean_over_the_chosen_steps_and_clipped():
    problem, model = bowl(Stationary(steps=8)), bent()
    for threshold in (1e6, 2.0, 1e-9):
        tricks = Tricks(threshold=threshold)
        loss = build_loss(tricks)
        batch = bought(loss, problem, model)
        k = tricks.chosen(8, rng(5))
        far = (model.control(batch["x"], batch["t"]) - batch["y"]).square().sum(-1)[k]
        assert len(k) == 4
        value = loss.value(model, problem.base, batch, rng(5))
        assert torch.allclose(value, far.clamp(max=threshold).mean())
        inside = torch.where(far < threshold, far, 0).sum() / far.numel()
        slopes = [
            torch.autograd.grad(v, model.network.late, retain_graph=True)[0]
            for v in (value, inside)
        ]
        assert torch.allclose(*slopes, atol=1e-6)
    assert float(slopes[0]) == 0 and float((far < 2.0).float().mean()) not in (0.0, 1.0)


def test_options_are_fields_of_the_spec():
    text = "adjoint_matching_tricks[late=0.5,threshold=30,paths=32,model=Mlp[width=8]]"
    sampler = build_sampler(parse(text))
    assert sampler.loss.options == Tricks(late=0.5, threshold=30.0)
    assert (sampler.paths, sampler.model) == (32, Mlp(width=8))
    assert build_sampler(spec(sampler)) == sampler and parse(label(sampler)) == parse(text)
    assert list(spec(sampler)["params"])[:4] == ["late", "early", "threshold", "last_noise"]


@pytest.mark.parametrize(
    "wrong, message",
    [
        ("treshold=3", "no parameter 'treshold'; did you mean 'threshold'"),
        ("late=0.8,early=0.3", "shares of the grid"),
        ("threshold=0", "threshold is 0.0; it must be positive"),
        ("last_noise=2", "last_noise is 2.0; it must be from 0 to 1"),
        ("late=x", "adjoint_matching_tricks.late is 'x'; it takes a number"),
    ],
)
def test_wrong_options_are_refused(wrong, message):
    with pytest.raises(BadSpec, match=message):
        build_sampler(parse(f"adjoint_matching_tricks[{wrong}]"))


# relative entropy, truncated


def test_truncation_takes_the_gradient_of_the_last_steps_only():
    """Late controls have the gradient they had, early ones none; past all steps nothing changes."""
    problem = bowl(Stationary(steps=8))
    slopes = {}
    for recipe in (Base(), Truncated(last=8), Truncated(last=4)):
        model = bent()
        batch = bought(relative_entropy, problem, model, recipe=recipe)
        value = relative_entropy.value(model, problem.base, batch, rng())
        slopes[recipe] = (
            value.detach(),
            *torch.autograd.grad(value, [model.network.early, model.network.late]),
        )
    full, whole, half = slopes.values()
    assert full == whole and half[0] == full[0] and half[2] == full[2]
    assert half[1] == 0 and abs(full[1]) > 0.1


def test_truncated_weights_are_exact():
    world = Tilted(steps=8)
    sampler = Diffusion(relative_entropy, paths=32, recipe=Truncated(last=2), model=Mlp(width=8))
    state = sampler.init(world.problem(), Cost(10**5, 10**5), rng())
    for _ in range(3):
        state = sampler.step(world.problem(), state, rng(state.iteration))
    plain = Diffusion(relative_entropy, paths=32, model=Mlp(width=8))
    draws = [s.draw(world.problem(), state, 500, rng(9)) for s in (sampler, plain)]
    assert torch.equal(draws[0].x, draws[1].x) and torch.equal(draws[0].log_w, draws[1].log_w)


def test_truncation_is_for_losses_through_the_path():
    sampler = Diffusion(trajectory_balance, paths=8, recipe=Truncated())
    state = sampler.init(world := Shifted(Stationary(steps=4)).problem(), Cost(100, 100), rng())
    with pytest.raises(Unsupported, match="trajectory_balance does not differentiate"):
        sampler.step(world, state, rng())
    with pytest.raises(ValueError, match="last is 0; it must be 1 or more"):
        Truncated(last=0)


# baselines


def metered(problem, most=10**6):
    meter = Meter(Cost(most, most))
    return Problem(problem.dim, problem.base, meter.watch(problem.reward)), meter


def test_guidance_is_exact_for_a_linear_reward_on_a_gaussian():
    world = Shifted(Brownian(steps=8))  # Stationary has a little memory of its start
    problem, meter = metered(world.problem())
    sampler = Guidance()
    assert sampler.done(sampler.init(problem, Cost(0, 0), rng()))
    draws = sampler.draw(problem, None, 50, rng(1))
    assert meter.spent == Cost(50 * 9, 50 * 8)
    assert torch.allclose(draws.log_w, torch.full((50,), world.log_Z).double(), atol=1e-5)
    world = Shifted(Stationary(steps=8))
    x = torch.randn(3, 8, 2, generator=rng(2)).transpose(0, 1)
    t = world.base.grid(x)[:-1, None]
    ahead = Ahead(world.problem(), 0.5)
    assert torch.allclose(ahead.control(x, t), 0.5 * world.control(x, t), atol=1e-6)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_guidance_weighs_exactly(strength):
    """Forward, E[exp log_w] is Z of the chain; backward, 1/Z, up to O(1/K) of a mixture."""
    world = Tilted(steps=20)
    problem, sampler = world.problem(), Guidance(strength=strength)
    free = Guidance(strength=0.0).draw(problem, None, 4000, rng(5)).log_w.exp()
    draws = sampler.draw(problem, None, 4000, rng(1))
    both = z_score(draws.log_w.exp() / free.mean(), 1), z_score(free / draws.log_w.exp().mean(), 1)
    assert min(map(abs, both)) < 4
    back = sampler.reverse(problem, None, world.law.sample(2000, rng(2)), rng(3))
    assert float((world.log_Z - back.log_w).exp().mean()) == pytest.approx(1, abs=0.06)
    assert back.u.shape == (20, 2000, 2)


def test_guidance_needs_a_denoiser():
    with pytest.raises(Unsupported, match="needs a base with a denoiser"):
        Guidance().init(Problem(2, Silent(Bell().base), lambda x: x.sum(-1)), Cost(1, 1), rng())


def test_best_of_n_is_the_largest_of_n():
    """In one direction: E max of 2 and of 4 normals is .5642 and 1.0294; the other is untouched."""
    base = Stationary(steps=4)
    for n, expected in ((1, 0.0), (2, 0.5642), (4, 1.0294)):
        problem, meter = metered(Problem(2, base, lambda x: 3 * x[..., 0]))
        sampler = BestOfN(candidates=n)
        state = sampler.init(problem, Cost(16_003, 0), rng())
        while not sampler.done(state):
            state = sampler.step(problem, state, rng(state.left))
        assert meter.spent == Cost(16_003 // n * n, 0)
        x = sampler.draw(problem, state, 10**5, rng()).x / base.spread
        assert len(x) == 16_003 // n
        assert abs(z_score(x[:, 0], expected)) < 4 and abs(z_score(x[:, 1], 0)) < 4
        assert len(sampler.draw(problem, state, 7, rng()).x) == 7
    with pytest.raises(Unsupported, match="does not pay for one draw of 16 candidates"):
        BestOfN().init(problem, Cost(15, 0), rng())


def test_importance_resampling_draws_the_tilt():
    world = Shifted(Stationary(steps=4))
    problem, meter = metered(world.problem(), 20_000)
    sampler = ImportanceResampling()
    state = sampler.init(problem, Cost(20_000, 0), rng())
    while not sampler.done(state):
        state = sampler.step(problem, state, rng(state.left))
    assert meter.spent == Cost(20_000, 0)
    draws = sampler.draw(problem, state, 4000, rng(1))
    s2 = world.base.spread**2
    for i, c in enumerate(world.slope.tolist()):
        assert abs(z_score(draws.x[:, i], c * s2)) < 4
    assert draws.log_w is None and len(draws.group.unique()) < 4000
    assert draws.x[draws.group == draws.group[0]].unique(dim=0).shape[0] == 1
    value, se, n = draws.log_Z
    assert abs(value - world.log_Z) < 4 * se and n == 20_000
    exact = math.sqrt(math.expm1(2 * world.log_Z) / n)  # sd of exp r is Z sqrt(exp(c^2 s^2) - 1)
    assert se == pytest.approx(exact, rel=0.1)


def test_the_error_of_importance_resampling_is_that_of_a_sample():
    """Of few values: sd(w) / (mean(w) sqrt N), the sd of N - 1; one value has no error."""
    problem, sampler = Shifted(Stationary(steps=4)).problem(), ImportanceResampling()
    for n in (1, 3):
        state = sampler.step(problem, sampler.init(problem, Cost(n, 0), rng()), rng())
        w = state.r[0].exp()
        value, se, count = sampler.draw(problem, state, 5, rng(1)).log_Z
        assert count == n and value == pytest.approx(math.log(w.mean()))
        stated = float(w.std() / w.mean()) / math.sqrt(n) if n > 1 else math.inf
        assert se == pytest.approx(stated)


def test_errors_of_few_draws_of_a_tilt_by_hand():
    """Of the KL by the derivative in the share of each draw; of diversity by the mean distance of
    each draw from the others, twice."""
    target = build_target(parse("tilt_linear"))
    x = torch.randn(5, 2, generator=rng(5), dtype=torch.float64)
    log_w = torch.tensor([0.3, -1.0, 0.5, 0.0, 0.9], dtype=torch.float64)
    share, r = torch.full((5,), 0.2, dtype=torch.float64).requires_grad_(), target.reward(x)
    total = (share * log_w.exp()).sum()
    kl = (share * log_w.exp() * r).sum() / total - total.log()
    (bend,) = torch.autograd.grad(kl, share)
    value, se, n = scored("tilt_kl", target, Draws(x, log_w))
    assert value == pytest.approx(float(kl.detach())) and n == 5
    assert se == pytest.approx(float(bend.std()) / math.sqrt(5))
    each = torch.cdist(x, x).sum(1) / 4
    value, se, n = scored("diversity", target, Draws(x))
    assert value == pytest.approx(float(each.mean())) and n == 5
    assert se == pytest.approx(2 * float(each.std()) / math.sqrt(5))


def test_the_untrained_base_is_weighed_exactly_from_both_sides():
    """Nothing is spent in training; E exp log_w = Z over its draws, E exp -log_w = 1/Z over p*."""
    world = Shifted(Stationary(steps=4))
    problem, meter = metered(world.problem(), 20_000)
    sampler = Untrained()
    state = sampler.init(problem, Cost(), rng())
    assert sampler.done(state) and meter.spent == Cost()
    draws = sampler.draw(problem, state, 20_000, rng(1))
    assert meter.spent == Cost(20_000, 0) and draws.group is None
    s2 = world.base.spread**2
    assert abs(z_score(draws.x[:, 0], 0)) < 4 and float(draws.x.var()) == pytest.approx(
        s2, rel=0.03
    )
    assert abs(z_score((draws.log_w - world.log_Z).exp(), 1)) < 4
    exact = draws.x + draws.x.new_tensor(world.slope.tolist()) * s2  # the tilt's own law
    back = sampler.reverse(world.problem(), state, exact, rng()).log_w
    assert abs(z_score((world.log_Z - back).exp(), 1)) < 4


@pytest.mark.parametrize("name", ["best_of_n", "importance_resampling"])
def test_an_empty_pool_says_so(name):
    sampler, problem = build_sampler(parse(name)), bowl(Stationary(steps=4))
    with pytest.raises(Unsupported, match="nothing has been drawn yet"):
        sampler.draw(problem, sampler.init(problem, Cost(50, 50), rng()), 5, rng())


# rewards of images


def test_posterior_of_an_image_at_half_resolution():
    """A Gaussian base N(m, v I): y ~ N(A m, (v/4 + noise^2) I), posterior mean m + v A^T (v/4 +
    noise^2)^-1 (y - A m), by weighted draws."""
    v, noise, n = 0.5, 0.6, 40_000
    mean = torch.cos(torch.arange(64) / 7).double()
    flow = MixtureFlow((1.0,), (tuple(mean.tolist()),), (v,), steps=2)
    y = pooled(mean) + 0.2 * torch.randn(16, generator=rng(), dtype=torch.float64)
    problem = Problem(64, flow, partial(likelihood, y=y, noise=noise))
    x = flow.end((n, 64), rng(1), torch.float64)
    wide = v / 4 + noise**2
    miss = y - pooled(mean)
    log_Z = float(-miss.square().sum() / (2 * wide) - 8 * math.log(2 * math.pi * wide))
    w = (problem.reward(x) - log_Z).exp()
    assert abs(z_score(w, 1)) < 4
    A = pooled(torch.eye(64, dtype=torch.float64)).T
    assert torch.allclose(A @ A.T, torch.eye(16).double() / 4)
    assert torch.allclose(A @ x[0], pooled(x[0]))
    posterior = mean + v / wide * A.T @ miss
    z = [z_score(w * (x[:, i] - posterior[i]), 0) for i in range(64)]
    assert max(map(abs, z)) < 4.5
    draws = Diffusion(adjoint_matching, model=Mlp(width=8)).draw(
        problem, Diffusion(adjoint_matching).init(problem, Cost(9, 9), rng()), 5, rng()
    )
    assert draws.x.shape == (5, 64)


def test_pooling_takes_blocks_of_two_by_two():
    image = torch.arange(16.0)
    assert pooled(image).tolist() == [2.5, 4.5, 10.5, 12.5]
    with pytest.raises(ValueError, match="9 pixels|side 3 has no 2 x 2 blocks"):
        pooled(torch.zeros(9))
    with pytest.raises(ValueError, match="10 pixels are no square image"):
        pooled(torch.zeros(10))


def test_ink_and_sharpness():
    """Ink is the mean; edges of height h are worth h, flat images nothing; slopes are bounded."""
    assert float(ink(torch.full((64,), 0.3))) == pytest.approx(0.3)
    assert float(sharpness(torch.full((64,), 0.3))) == pytest.approx(0, abs=1e-7)
    half = torch.zeros(8, 8)
    half[:, 4:] = 2.0
    edge = math.hypot(2, 0.05) - 0.05
    assert float(sharpness(half.flatten())) == pytest.approx(edge / 14, rel=1e-5)
    assert torch.allclose(sharpness(half.T.flatten()), sharpness(half.flatten()))
    x = (100 * torch.randn(5, 64, generator=rng())).requires_grad_()
    (g,) = torch.autograd.grad(sharpness(x).sum(), x)
    assert g.abs().max() <= 4 / 56 / 2 + 1e-6


# metrics of draws against their base


def scored(name, target, draws):
    metric = METRICS.load(name)
    return metric.fn(target, target.truth(), Outcome(draws, None, {}), rng(7))


def test_a_perfect_control_has_the_divergence_of_its_tilt():
    """With log_w = log Z everywhere both readings are E_p*[r] - log Z."""
    target = build_target(parse("tilt_linear"))
    truth = target.truth()
    x = truth.sample(4000, rng(1))
    draws = Draws(x, torch.full((4000,), truth.log_Z, dtype=torch.float64))
    means = [truth.observables[f"mean_{i}"].mean for i in range(2)]
    exact = sum(c * m for c, m in zip(target.slope, means, strict=True)) - truth.log_Z
    for name in ("path_kl", "tilt_kl"):
        value, se, _ = scored(name, target, draws)
        assert abs(value - exact) < 4 * se and se < 0.05
    assert scored("reward_err", target, draws).value < 0.1
    base = Draws(target.base.end((4000, 2), rng(2), torch.float64))  # E r there, less E_p*[r]
    law = target.base.law
    apart = exact + truth.log_Z - float(law.weight @ law.mean @ torch.tensor(target.slope).double())
    value, se, _ = scored("reward_err", target, base)
    assert abs(value - apart) < 4 * se and apart > 0.5
    gone = draws._replace(log_w=torch.where(torch.arange(4000) == 0, -torch.inf, draws.log_w))
    with pytest.raises(Unknown, match="zero"):
        scored("path_kl", target, gone)
    assert abs(scored("tilt_kl", target, gone).value - exact) < 4 * se


def test_weights_of_the_base_find_the_divergence_of_the_tilt():
    """u = 0: log_w = r, no path divergence; the errors stated are those seen between seeds."""
    target = build_target(parse("tilt_quadratic"))
    truth = target.truth()
    exact = float(target.reward(truth.sample(200_000, rng(2))).mean()) - truth.log_Z
    estimates = []
    for seed in range(40):
        x = target.base.end((1000, 2), rng(seed + 10), torch.float64)
        draws = Draws(x, target.reward(x))
        assert scored("path_kl", target, draws).value == 0
        estimates.append(scored("tilt_kl", target, draws))
    values, errors = (torch.tensor(column) for column in list(zip(*estimates, strict=True))[:2])
    assert abs(z_score(values, exact)) < 4
    assert float(errors.mean() / values.std()) == pytest.approx(1, abs=0.35)


def test_expected_reward_and_diversity():
    """N(0, I) in the plane: E|X - X'| = sqrt(pi), E c.X = 0; copies are not diverse."""
    target = build_target(parse("tilt_linear"))
    x = torch.randn(1500, 2, generator=rng(3), dtype=torch.float64)
    reward, spread = (scored(n, target, Draws(x)) for n in ("expected_reward", "diversity"))
    assert abs(reward.value) < 4 * reward.se
    assert reward.se == pytest.approx(math.hypot(0.8, 0.5) / math.sqrt(1500), rel=0.1)
    assert abs(spread.value - math.sqrt(math.pi)) < 4 * spread.se < 0.2
    assert spread.value == pytest.approx(float(torch.pdist(x).mean()))
    copies = x[:1].expand(100, 2)
    assert scored("diversity", target, Draws(copies)).value == 0
    assert scored("diversity_err", target, Draws(copies)).value > 1
    with pytest.raises(Unknown, match="at least two"):
        scored("diversity", target, Draws(x[:1]))


# what the studies rest on


def test_a_regression_in_parts_is_the_same_and_holds_less(monkeypatch):
    """Value and gradient, with and without hints; the graph of a part in the place of all."""
    source = rng(1)
    model = Mlp(width=16).build(2, Stationary(steps=8), source)
    torch.nn.init.normal_(model.network.field.out.weight, generator=source)
    x, y = torch.randn(2, 64, 200, 2, generator=source)
    t = torch.linspace(0, 1, 64)[:, None]
    measured = []
    for most in (10**6, 10 * 200):
        monkeypatch.setattr("tiltbench.samplers.loss.AT_ONCE", most)

        def work():
            value = regress(model, x, t, y)
            grads = torch.autograd.grad(value, list(model.network.field.hidden.parameters()))
            measured.append([value.detach(), *grads])

        measured.append(peak(work))
    (whole, large, parts, small) = measured
    assert all(
        torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(whole, parts, strict=True)
    )
    assert small < 0.35 * large


def test_peak_is_what_was_held_at_once():
    def work():
        a = torch.ones(2**20)  # 4 MB
        b = a + 1
        del a
        return b * 2

    assert peak(work) == pytest.approx(8, abs=0.01)


def test_where_an_optimum_with_memory_ends():
    """Figures of math.md 2; without memory the tilt; without noise the base for no gain and the
    largest reward for much of it.  Draws made of siblings agree with the closed form."""
    assert remembered(0.456) == pytest.approx((1.1124, 0.3037), abs=1e-4)
    assert remembered(0.0) == pytest.approx((1.2, 0.3))
    assert steered(1e-3) == pytest.approx((0.0, 1.0), abs=1e-4)
    assert steered(1e3) == pytest.approx((1.2 / 0.7, 0.0), abs=1e-4)
    assert _climbed() == pytest.approx(steered(), rel=0.03)
    for stepping, expected in (
        (Constant(), remembered(0.456)),
        (Bell().stepping, TerminalLaw(1.2, 0.3)),
    ):
        bell = Bell(stepping, steps=30)
        ends = siblings(bell.base, 2, 400, 200, "cpu").ends
        x = optimum(ends, bell.reward(ends), rng(2)).double()
        assert abs(z_score(x.flatten(), expected.mean)) < 4.5
        assert float(x.var(0).mean()) == pytest.approx(expected.variance, rel=0.15)


def _climbed():
    """Mean and variance of X_1 = slope X_0 + shift with the open-loop controls that maximise
    r(X_1) - |u|^2 / 2 from X_0 = 0 and 1, by Newton: everything is linear and quadratic."""
    silent = Silent(Bell(steps=200).base)

    def end(u):  # one start a row, u (2, K)
        x = torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
        for k in range(silent.steps):
            mean, gain = silent.base(x, k)
            x = mean + gain * math.sqrt(1 / silent.steps) * u[:, k, None]
        return x[:, 0]

    nothing = torch.zeros(2, silent.steps, dtype=torch.float64, requires_grad=True)
    free = end(nothing)
    (reach,) = torch.autograd.grad(free.sum(), nothing)  # dX_1 / du, the same from both
    gramian = reach[0].square().sum() * silent.steps  # u costs |u|^2 dt / 2
    y = (free.detach() / gramian + 4.0) / (1 / gramian + 7 / 3)
    return float(y[0]), float((y[1] - y[0]) ** 2)


def test_a_silent_base_is_the_probability_flow():
    """u = 0 ends in the base's law with no noise; a constant u moves every path alike."""
    silent = Silent(Bell(steps=100).base, gain=0.5)
    with torch.no_grad():
        free, moved = (simulate(silent, Bent(c, c), (4000, 2), rng(3)) for c in (0.0, 0.4))
    assert abs(z_score(free.x[-1][:, 0], 0)) < 4
    assert float(free.x[-1].var(0).mean()) == pytest.approx(1, abs=0.06)
    assert torch.equal(free.x[0], moved.x[0]) and torch.allclose(free.x[1:], free.mean)
    step = free.t.diff()[0]
    lift = 0.5 * step * 0.4 * (1 + torch.sin(moved.x[0]))
    assert torch.allclose(moved.x[1] - moved.mean[0], lift, atol=1e-6)
