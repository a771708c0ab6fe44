"""A learned reference: exact weights at any parameters, and their gradients at fixed points."""

import math
from dataclasses import replace

import pytest
import torch

from tests.tools.worlds import Cloud, Field, Mixture, Tilted, rng, z_score
from tiltbench.plan.spec import build_sampler, label, parse
from tiltbench.run.meter import Meter
from tiltbench.run.pack import Packer, Unpacker
from tiltbench.samplers.loss import batch_path, log_weight
from tiltbench.samplers.networks.reference import MOST
from tiltbench.samplers.sampler import Unsupported
from tiltbench.targets.bases.confined import Confined
from tiltbench.targets.bases.references import Brownian, Scattered, Stationary
from tiltbench.targets.cost import Cost
from tiltbench.targets.densities.gaussian import Gaussian
from tiltbench.targets.problem import Problem, pose

MUCH = Cost(10**7, 10**7)
REFERENCES = [
    Brownian(steps=6, scale=2.0),
    Scattered(steps=6, prior=0.7, scale=2.0),
    Stationary(steps=6, scale=2.0, gamma_noise=6.0),
]
references = pytest.mark.parametrize("base", REFERENCES, ids=lambda b: b.name)


def sampler_of(loss="log_variance", model="Mlp[width=8]", recipe="lr_noise=0.01", **more):
    parts = {"paths": 16, "model": model, "recipe": f"LearnedBase[{recipe}]", **more}
    return build_sampler(parse(f"{loss}[{','.join(f'{k}={v}' for k, v in parts.items())}]"))


def disturbed(sampler, problem, size=0.5, control=0.05):
    """A state far from where training starts: the base, its noise and the control."""
    state = sampler.init(problem, MUCH, rng())
    source = rng(7)
    with torch.no_grad():
        for parameter in state.model.control_parameters():
            parameter.add_(control * torch.randn(parameter.shape, generator=source))
        for parameter in (p for group in state.model.reference_parameters() for p in group):
            away = size * torch.randn(parameter.shape, generator=source, dtype=parameter.dtype)
            parameter.copy_(away * parameter.requires_grad)
    return state


def bounded(x):
    """A tilt within two nats, so that weights of bases of about one width have light tails."""
    return torch.tanh(x).sum(-1)


@references
@pytest.mark.parametrize("model", ["Mlp[width=8]", "Guided[width=8]"])
def test_weights_are_exact_at_any_parameters(base, model):
    """Forward E[exp log_w] = Z, and backward from p* E[exp -log_w] = 1/Z."""
    problem, sampler = Problem(2, base, bounded), sampler_of(model=model)
    grid = torch.linspace(-8, 8, 4001, dtype=torch.float64) * base.spread
    mass = (-((grid / base.spread) ** 2) / 2 + grid.tanh()).exp()
    each = torch.trapezoid(mass, grid) / (base.spread * math.sqrt(2 * math.pi))
    log_Z = 2 * float(each.log())
    state = disturbed(sampler, problem, 0.15)
    draws = sampler.draw(problem, state, 20_000, rng(1))
    assert abs(z_score((draws.log_w - log_Z).exp(), 1.0)) < 4
    x = base.end((100_000, 2), rng(2))
    ends = x[torch.rand(len(x), generator=rng(3)) < (bounded(x) - 2).exp()]
    back = sampler.reverse(problem, state, ends, rng(4))
    assert abs(z_score((log_Z - back.log_w).exp(), 1.0)) < 4
    for log_w in (draws.log_w, -back.log_w):  # or the scores would say nothing
        assert 0.2 < float(log_w.exp().std() / log_w.exp().mean()) < 10
    torch.testing.assert_close(back.x[-1], ends, rtol=1e-4, atol=1e-4)
    learned = state.model.reference
    assert float(learned.place.log_scale.detach().abs().max()) > 0.3
    assert float(learned.place.shift.detach().abs().max()) > 0.1
    shares = learned.clock.shares().detach() / learned.clock.share
    assert float(shares.log().abs().max()) > 0.2


@references
def test_nothing_changes_before_it_learns(base):
    """The chain, its weights and its reversal are those of the reference, to rounding."""
    problem, sampler = Mixture(base).problem(), sampler_of(model="Guided[width=8]")
    plain = build_sampler(parse("log_variance"))
    state = disturbed(sampler, problem, 0.0)
    ends = torch.randn(9, 2, generator=rng(5))
    for new, old in (
        (sampler.draw(problem, state, 9, rng(1)), plain.draw(problem, state, 9, rng(1))),
        (
            sampler.reverse(problem, state, ends, rng(1)),
            plain.reverse(problem, state, ends, rng(1)),
        ),
    ):
        torch.testing.assert_close(new.x, old.x, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(new.log_w, old.log_w, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("base", [Brownian(steps=5), Stationary(steps=5, scale=2.0)])
def test_a_gaussian_target_is_reached_by_the_base_alone(base):
    """N(m, s^2) with u = 0: every path weighs Z, so that the log-variance is 0."""
    mean, std, log_Z = torch.tensor([0.8, -1.5]), torch.tensor([0.3, 2.5]), 1.3

    def reward(x):
        scaled = (x - mean.to(x)) / std.to(x)
        norm = float(std.log().sum()) + math.log(2 * math.pi)
        return log_Z - scaled.square().sum(-1) / 2 - norm - base.log_end(x)

    problem, sampler = Problem(2, base, reward), sampler_of()
    state = disturbed(sampler, problem, control=0.0)
    with torch.no_grad():
        place = state.model.reference.place
        place.shift.copy_(mean / base.spread)
        place.log_scale.copy_((std / base.spread).log())
    draws = sampler.draw(problem, state, 200, rng(1))
    torch.testing.assert_close(draws.log_w, torch.full_like(draws.log_w, log_Z), rtol=0, atol=1e-4)
    batch = sampler.batch(problem, state.model, 0.5, rng(2))
    assert sampler.loss.value(state.model, sampler.posed(problem).base, batch, rng()) < 1e-7


@pytest.mark.parametrize("loss", ["log_variance", "trajectory_balance", "relative_entropy"])
def test_it_learns_a_gaussian_target(loss):
    """Which the control could learn as well: the base gets most of the way."""
    target = Gaussian()
    sampler = sampler_of(loss, recipe="lr_base=0.1", paths=64, lr=1e-5, batches=150)
    problem = pose(target, Brownian(steps=4))
    state, generator = sampler.init(problem, MUCH, rng()), rng(1)
    before = float(sampler.draw(problem, state, 1000, rng(2)).log_w.var())
    while not sampler.done(state):
        state = sampler.step(problem, state, generator)
    assert float(sampler.draw(problem, state, 1000, rng(2)).log_w.var()) < 0.02 * before


@references
@pytest.mark.parametrize("model", ["Mlp[width=8]", "Guided[width=8]"])
def test_gradients_at_fixed_points_by_differences(base, model):
    """Of the log-variance, by every mean, scale and share of the noise."""
    problem, sampler = Mixture(base).problem(), sampler_of(model=model)
    state = disturbed(sampler, problem, 0.2, 0.02)
    chain, model = sampler.posed(problem).base, state.model
    batch = sampler.batch(problem, model, 0.5, rng(1))
    model.double()
    batch = {key: value.double() for key, value in batch.items()}

    def value():
        return sampler.loss.value(model, chain, batch, rng())

    for parameter in (p for group in model.reference_parameters() for p in group):
        (slope,) = torch.autograd.grad(value(), parameter)
        assert float(slope.abs().min()) > 1e-8
        for i in range(len(parameter)):
            values = []
            for step in (1e-4, -1e-4):
                with torch.no_grad():
                    parameter[i] += step
                    values.append(float(value()))
                    parameter[i] -= step
            assert float(slope[i]) == pytest.approx(
                (values[0] - values[1]) / 2e-4, rel=1e-4, abs=1e-6
            )


@references
def test_the_gradient_of_relative_entropy_is_that_of_its_expectation(base):
    """Through the path, on common random numbers, with u = 0."""
    problem = Mixture(base).problem()
    sampler = sampler_of("relative_entropy", paths=4000, steepest=1e9)
    state = disturbed(sampler, problem, 0.2, 0.0)
    chain, model = sampler.posed(problem).base, state.model

    def value():
        batch = sampler.batch(problem, model, 0.5, rng(3))
        return sampler.loss.value(model, chain, batch, rng())

    for parameter in (p for group in model.reference_parameters() for p in group):
        (slope,) = torch.autograd.grad(value(), parameter, retain_graph=True, allow_unused=True)
        values = []
        for step in (1e-2, -1e-2):
            with torch.no_grad():
                parameter[0] += step
                values.append(float(value().detach()))
                parameter[0] -= step
        expected = (values[0] - values[1]) / 2e-2
        assert float(slope[0]) == pytest.approx(expected, rel=0.02, abs=2e-3)


@references
def test_the_running_cost_has_the_mean_of_the_ratio(base):
    """Under the control that simulated, whose noise is all that they differ by."""
    problem, sampler = Mixture(base).problem(), sampler_of("relative_entropy")
    state = disturbed(sampler, problem, 0.3)
    chain = sampler.posed(problem).base
    with torch.no_grad():
        path = sampler.recipe.simulate(sampler.posed(problem), state.model, 40_000, rng(1))
    ratio = chain.log_ratio(path)
    assert abs(z_score(ratio - chain.running_cost(path), 0.0)) < 4
    assert abs(z_score(ratio - chain.running_cost(path) + path.log_move, 0.0)) > 10


@references
def test_hints_are_the_slope_of_the_tilt_in_the_coordinates_of_the_control(base):
    """grad_y of r(x(y)) - log_move, by autograd."""
    sampler = sampler_of(model="Guided[width=8]")
    place = disturbed(sampler, Mixture(base).problem(), 0.4).model.reference.place
    y = torch.randn(20, 2, generator=rng(1), dtype=torch.float64, requires_grad=True)
    x = place.there(y)
    r = bounded(x)
    (g,) = torch.autograd.grad(r.sum(), x, retain_graph=True)
    (slope,) = torch.autograd.grad((r - place.log_move(x, y)).sum(), y)
    torch.testing.assert_close(place.slope(x, y, g), slope)
    assert not torch.allclose(slope, g, atol=0.1)


@references
def test_the_noise_is_shared_anew_and_all_of_it_spent(base):
    state = disturbed(sampler_of(), Mixture(base).problem(), 3.0)
    clock = state.model.reference.clock
    kernels = clock.kernels()
    level = torch.tensor([base.start_var], dtype=torch.float64)
    for gain, std, expected in zip(*kernels[:2], kernels.variance[1:], strict=True):
        level = gain.square() * level + std.square()
        torch.testing.assert_close(level[0], expected)
    torch.testing.assert_close(float(level.detach()), base.spread**2)
    assert 1.0 < float((clock.shares() / clock.share).log().abs().max().detach()) < 2 * MOST
    with torch.no_grad():
        clock.bend.zero_()
    now = clock.kernels()
    kernels_of_base = torch.tensor(base.kernels, dtype=torch.float64)
    torch.testing.assert_close(torch.stack([now.gain, now.std], 1), kernels_of_base)


def test_particles_keep_their_centre_of_mass():
    """One scale, no mean, and weights on the subspace: exact, with as many dimensions as it has."""
    base = Confined(Brownian(steps=4), Cloud(3, 2))
    problem = Problem(6, base, lambda x: 0.5 * (x[..., :1] - x[..., 2:3]).tanh().sum(-1))
    sampler = sampler_of()
    state = disturbed(sampler, problem, 0.4)
    place = state.model.reference.place
    assert place.log_scale.shape == (1,) and not place.shift.any()
    with torch.no_grad():
        place.log_scale.fill_(0.25)
    draws = sampler.draw(problem, state, 20_000, rng(1))
    assert float(draws.x.reshape(-1, 3, 2).mean(1).abs().max()) < 1e-5
    x = base.end((200_000, 6), rng(2))
    log_Z = float(problem.reward(x).double().exp().mean().log())
    assert abs(z_score((draws.log_w - log_Z).exp(), 1.0)) < 4
    assert (draws.log_w - log_Z).exp().std() < 5


def test_a_field_on_a_lattice():
    base = Confined(Brownian(steps=4), Field((4,)))
    problem = Problem(4, base, lambda x: x.tanh().sum(-1))
    sampler = sampler_of()
    state = disturbed(sampler, problem, 0.2)
    assert sampler.posed(problem).base.lattice == (4,)
    draws = sampler.draw(problem, state, 20_000, rng(1))
    log_Z = 4 * math.log(
        float(torch.tanh(base.spread * torch.randn(10**6, generator=rng(2))).exp().mean())
    )
    assert abs(z_score((draws.log_w - log_Z).exp(), 1.0)) < 4


@pytest.mark.parametrize("model", ["Mlp[width=8]", "Guided[width=8]"])
@pytest.mark.parametrize("loss", ["log_variance", "relative_entropy"])
def test_it_pays_what_the_loss_says(loss, model):
    base = Brownian(steps=5, scale=2.0)
    meter = Meter(MUCH)
    problem = Problem(2, base, meter.watch(Mixture(base).problem().reward))
    sampler = sampler_of(loss, model, paths=7)
    state = sampler.init(problem, MUCH, rng())
    for n in (1, 2):
        state = sampler.step(problem, state, rng())
        assert meter.spent == sampler.loss.price(7, 5, state.model.guided).times(n)
    assert sampler.along(problem, state, torch.zeros(6, 3, 2), rng()) is None


def test_a_rate_of_zero_leaves_it_as_it_is():
    problem = Mixture(Brownian(steps=4, scale=2.0)).problem()
    for recipe in ("lr_base=0,lr_noise=0.1", "lr_base=0.1,lr_noise=0"):
        sampler = sampler_of(recipe=recipe)
        state = sampler.init(problem, MUCH, rng())
        for _ in range(2):
            state = sampler.step(problem, state, rng())
        learned = state.model.reference
        moved = bool(learned.place.shift.any()), bool(learned.place.log_scale.any())
        assert moved == (("lr_base=0.1" in recipe,) * 2)
        assert (learned.clock is None) == ("lr_base=0.1" in recipe)
        assert learned.clock is None or bool(learned.clock.bend.any())


def test_it_is_saved_and_goes_on():
    problem = Mixture(Stationary(steps=4)).problem()
    sampler = sampler_of("trajectory_balance", repeats=2, memory=2, average=0.9)
    state = sampler.init(problem, MUCH, rng())
    for _ in range(3):
        state = sampler.step(problem, state, rng(1))
    packer = Packer()
    node = packer.node(state)
    again = Unpacker(packer.tensors, torch.device("cpu")).fill(
        sampler.init(problem, MUCH, rng(9)), node
    )
    results = []
    for each in (state, again):
        each = sampler.step(problem, each, rng(5))
        results.append(sampler.draw(problem, each, 4, rng(6)))
        assert {"reference.place.shift", "reference.clock.bend"} <= set(sampler.tensors(each))
    assert torch.equal(results[0].x, results[1].x)
    assert torch.equal(results[0].log_w, results[1].log_w)


@pytest.mark.parametrize("model", ["Mlp[width=8]", "Guided[width=8]"])
def test_kept_paths_are_weighed_by_the_present_base(model):
    """A batch is points: what it weighs under other parameters is what they say of these points."""
    problem = Mixture(Brownian(steps=4, scale=2.0)).problem()
    sampler = sampler_of(model=model)
    state = disturbed(sampler, problem, 0.3)
    chain = sampler.posed(problem).base
    batch = sampler.batch(problem, state.model, 0.5, rng(1))
    same = problem.reward(batch["x"][-1]) - chain.log_ratio(batch_path(chain, batch))
    torch.testing.assert_close(log_weight(state.model, chain, batch), same, rtol=1e-4, atol=1e-4)
    other = disturbed(sampler, problem, -0.6)
    assert not torch.allclose(log_weight(other.model, chain, batch), same, atol=0.5)


def test_what_it_does_not_serve_is_refused():
    problem = Mixture(Brownian(steps=4)).problem()
    for loss in ("adjoint_matching", "subtrajectory_balance", "trust_region_cross_entropy"):
        with pytest.raises(Unsupported, match=f"{loss} trains a control beside a base"):
            sampler_of(loss).init(problem, MUCH, rng())
    with pytest.raises(Unsupported, match="this problem brings a base of its own"):
        sampler_of().init(Tilted().problem(), MUCH, rng())
    for wrong in (-0.1, 1.0, math.nan):
        with pytest.raises(ValueError, match="it must be at least 0 and below 1"):
            replace(sampler_of().recipe, lr_noise=wrong)
    assert "recipe=LearnedBase[lr_noise=0.01]" in label(sampler_of())
