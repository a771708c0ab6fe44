"""Losses with a learned flow, and the cross-entropy within a trust region: identities.

On a Gaussian base a linear reward has a control and a flow that balance every stretch exactly, on
any grid; on a "pretrained" mixture they do so as dt -> 0."""

import math
from dataclasses import replace

import pytest
import torch

from tests.samplers.test_losses import Known, perturbed
from tests.tools.worlds import Shifted, Tilted, rng, weights_of, z_score
from tiltbench.plan.spec import build_sampler, parse
from tiltbench.samplers.behaviour.exploration import Wider
from tiltbench.samplers.diffusion import Diffusion
from tiltbench.samplers.loss import batch_path, build_loss
from tiltbench.samplers.losses._trust_region import divergence
from tiltbench.samplers.losses.subtrajectory_balance import (
    Geometric,
    detailed_balance,
    imbalance,
    log_flows,
    normalised,
)
from tiltbench.samplers.losses.trajectory_balance import trajectory_balance
from tiltbench.samplers.losses.trust_region_cross_entropy import Reach
from tiltbench.samplers.networks.perceptron import Mlp
from tiltbench.samplers.networks.valued import Valued
from tiltbench.samplers.sampler import Unsupported
from tiltbench.targets.bases.mixture_flow import MixtureFlow
from tiltbench.targets.bases.references import Brownian, Scattered, Stationary
from tiltbench.targets.cost import Cost

BASES = [Brownian(steps=5, scale=1.5), Stationary(steps=5, gamma_noise=3.0), Scattered(steps=5)]
bases = pytest.mark.parametrize("base", BASES, ids=lambda base: base.name)


def batch_of(world, loss, model, paths=64, seed=0):
    return Diffusion(loss, paths=paths).batch(world.problem(), model, 0.5, rng(seed))


def levels_of(world, model, batch):
    """S_k of stored paths, whose control is the model's."""
    path = batch_path(world.base, batch)
    flows = log_flows(model, path, batch["r"])
    return torch.cat([flows[:1], flows[1:] - world.base.log_ratios(path).cumsum(0)])


def test_the_form_in_the_laplacian_is_the_sum_over_pairs():
    S = torch.randn(6, 3, generator=rng(), dtype=torch.float64) + 1e4
    w = torch.rand(5, generator=rng(1), dtype=torch.float64)
    pairs = sum(w[j - i - 1] * (S[j] - S[i]) ** 2 for j in range(6) for i in range(j))
    torch.testing.assert_close(imbalance(S, w), pairs, rtol=1e-9, atol=0)


@pytest.mark.parametrize("lam", [1e-9, 0.5, 1.0, 2.0, 1e9])
def test_weights_are_geometric_and_cover_a_step_once(lam):
    w = Geometric(lam).weights(7)
    assert sum(w[n - 1] * n * (8 - n) for n in range(1, 8)) == pytest.approx(7)
    assert [b / a for a, b in zip(w, w[1:], strict=False)] == pytest.approx([lam] * 6)
    limit = {1e-9: [1.0] + 6 * [0.0], 1e9: 6 * [0.0] + [1.0]}
    assert lam not in limit or w == pytest.approx(limit[lam], abs=1e-6)
    assert sum(Geometric(3.0).weights(2000)) > 0  # nothing overflows
    assert normalised([1.0]) == (1.0,)


@bases
@pytest.mark.parametrize("theta", [0.0, 0.4])
def test_every_stretch_balances_at_the_optimum_and_nowhere_else(base, theta):
    """With a start that the end remembers too (all but Brownian): phi_0 depends on X_0."""
    world = Shifted(base)
    model = perturbed(world, theta, guided=False)
    batch = batch_of(world, trajectory_balance, model, paths=20_000)
    S = levels_of(world, model, batch).detach()
    gaps = (S[:, None] - S)[:, :, :64]
    if theta:
        off = gaps.abs().mean(-1)
        assert off[~torch.eye(6, dtype=bool)].min() > 0.05
        return
    # the start's mean of exp V is over the batch
    assert gaps.abs().max() < 0.05
    gaps[0], gaps[:, 0] = 0, 0
    assert gaps.abs().max() < 1e-5
    assert float(S[-1].mean()) == pytest.approx(
        float((weights_of(world.problem(), batch_path(base, batch))).mean()), abs=1e-9
    )


def test_on_a_pretrained_base_steps_balance_as_the_grid_is_refined():
    """Two modes and a linear tilt: S_{k+1} - S_k is O(dt) in the rms, where it is O(sqrt(dt)) of a
    control that is not optimal."""
    rms = {}
    for steps in (20, 80):
        flow = MixtureFlow((0.4, 0.6), ((-1.5, 0.0), (1.5, 0.5)), (0.3, 0.2), steps=steps)
        world = Tilted(flow)
        model = perturbed(world, 0.0, guided=False)
        S = levels_of(world, model, batch_of(world, trajectory_balance, model, paths=500))
        inner = S[steps // 5 : 4 * steps // 5].diff(dim=0)
        rms[steps] = float(inner.detach().square().mean().sqrt())
    order = math.log(rms[20] / rms[80]) / math.log(4)
    assert 0.8 < order < 1.3


@bases
def test_the_longest_stretch_is_trajectory_balance(base):
    """Beyond lam = 1e9 nothing else counts, whatever control and flow; phi_0 is log Z if X_0 says
    nothing."""
    world, network = Shifted(base), Valued(width=8, control=Mlp(width=8))
    model = network.build(2, base, rng())
    with torch.no_grad():
        for p in model.control_parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=rng(1)))
        model.log_Z.fill_(0.3)
    batch = batch_of(world, trajectory_balance, model)
    ours = build_loss(Geometric(1e12)).value(model, base, batch, rng())
    theirs = trajectory_balance.value(model, base, batch, rng())
    if base.start_var == 0:
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)
        grads = [
            torch.autograd.grad(value, list(model.network.parameters())) for value in (ours, theirs)
        ]
        for mine, other in zip(*grads, strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)
    else:
        path = batch_path(base, batch)
        S = levels_of(world, model, {**batch, "u": model.control(path.x[:-1], path.t[:-1, None])})
        assert float(ours) == pytest.approx(float((S[-1] - S[0]).square().mean()), rel=1e-6)
    start = log_flows(model, batch_path(base, batch), batch["r"])[0].detach()
    assert float(torch.logsumexp(start, 0)) - math.log(64) == pytest.approx(0.3, abs=1e-9)


@pytest.mark.parametrize("name", ["subtrajectory_balance", "detailed_balance"])
def test_gradients_are_those_of_the_sum(name):
    """Along a random direction of all parameters, by central differences."""
    world = Shifted(Stationary(steps=4))
    sampler = build_sampler(parse(name))
    model = Valued(width=8, control=Mlp(width=8)).build(2, world.base, rng())
    batch = batch_of(world, trajectory_balance, model)
    model = model.double()
    parts = list(model.parameters())
    batch = {key: value.double() for key, value in batch.items()}
    with torch.no_grad():
        for p in parts:
            p.add_(0.1 * torch.randn(p.shape, generator=rng(1), dtype=p.dtype))
    ways = [torch.randn(p.shape, generator=rng(2), dtype=p.dtype) for p in parts]

    def at(step):
        with torch.no_grad():
            for p, way in zip(parts, ways, strict=True):
                p.add_(step * way)
        value_at = sampler.loss.value(model, world.base, batch, rng())
        with torch.no_grad():
            for p, way in zip(parts, ways, strict=True):
                p.sub_(step * way)
        return value_at

    value = sampler.loss.value(model, world.base, batch, rng())
    grads = torch.autograd.grad(value, parts, allow_unused=True)
    slope = sum((g * way).sum() for g, way in zip(grads, ways, strict=True) if g is not None)
    h = 1e-5
    assert float(slope) == pytest.approx(float(at(h) - at(-h)) / (2 * h), rel=1e-5)


def test_a_start_that_the_end_remembers_does_not_bias_log_Z():
    """log Z = log E exp phi_0(X_0); what trajectory balance is drawn to is the mean of phi_0."""
    world = Shifted(Scattered(steps=4), (0.8, -0.6))
    model = perturbed(world, 0.0, guided=False)
    pulls = {}
    for loss in (trajectory_balance, build_loss(Geometric())):
        batch = batch_of(world, loss, model, paths=20_000)
        value = loss.value(model, world.base, batch, rng())
        pulls[loss.name] = float(torch.autograd.grad(value, model.log_Z)[0])
    # X_0 ~ N(0, 1): E phi_0 = log Z - |c|^2 / 2
    assert pulls["trajectory_balance"] == pytest.approx(1.0, abs=0.05)
    assert pulls["subtrajectory_balance"] == pytest.approx(0.0, abs=0.05)


def test_a_flow_is_asked_of_a_network_that_has_one_and_a_chain_that_is_the_base_s():
    base = Stationary(steps=4)
    world = Shifted(base)
    sampler = detailed_balance.sampler
    model = Mlp(width=8).build(2, base, rng())
    batch = batch_of(world, sampler.loss, model)
    with pytest.raises(Unsupported, match="use model=Valued"):
        sampler.loss.value(model, base, batch, rng())
    for name in ("subtrajectory_balance", "trust_region_cross_entropy"):
        escort = build_sampler(parse(f"{name}[recipe=Escorted,reference=Stationary[steps=4]]"))
        state = escort.init(world.problem(), Cost(10**6, 10**6), rng())
        with pytest.raises(Unsupported, match="leave recipe=Base"):
            escort.step(world.problem(), state, rng())
    with pytest.raises(ValueError, match="lam is 0; it must be positive"):
        Geometric(0)
    with pytest.raises(ValueError, match="factor is -1; it must be positive"):
        Valued(factor=-1)
    with pytest.raises(ValueError, match="radius is 0; it must be positive"):
        Reach(0)


@pytest.mark.parametrize(
    ("name", "network"),
    [
        ("subtrajectory_balance", "Valued"),
        ("detailed_balance", "Valued"),
        ("nets_action", "Potential"),
        ("adjoint_schroedinger_bridge", "Corrected"),
    ],
)
def test_a_network_without_what_a_loss_needs_is_refused_before_anything_is_paid(name, network):
    sampler = build_sampler(parse(f"{name}[model=Mlp]"))
    problem = Shifted(sampler.reference).problem()
    with pytest.raises(Unsupported, match=f"the network has no .*: use model={network}"):
        sampler.init(problem, Cost(10**6, 10**6), rng())  # which evaluates nothing


def test_a_flow_begins_as_log_Z_and_its_control_as_without_it():
    base = Brownian(steps=4)
    model = Valued(width=8, control=Mlp(width=8)).build(3, base, rng())
    x, t = torch.randn(4, 5, 3), torch.rand(4, 1)
    assert torch.equal(model.log_flow(x, t), torch.zeros(4, 5))
    bare = Mlp(width=8).build(3, base, rng()).state_dict()
    bare.pop("_extra_state")
    assert all(torch.equal(model.state_dict()[key], bare[key]) for key in bare)


def test_stretches_balance_at_the_optimum_on_paths_of_any_law():
    """Exploring ones, and ones traced back from points that are nobody's draws."""
    world = Shifted(Brownian(steps=6, scale=1.5))
    problem, sampler = world.problem(), detailed_balance.sampler
    explorer = replace(sampler, paths=64, explore=Wider(extra=2.0, until=1.0))
    at, off = (perturbed(world, theta, guided=False) for theta in (0.0, 0.4))
    wide = explorer.batch(problem, at, 0.01, rng(5))
    assert wide["excess"].std() > 1
    ends = 3 * torch.randn(64, 2, generator=rng(6)) + 1
    with torch.no_grad():
        back = explorer.recipe.retrace(problem, at, ends, rng(7))
    traced = sampler.loss.given(problem, at, back, problem.reward(ends), 0.5)
    for batch in (wide, traced):
        assert sampler.loss.value(at, world.base, batch, rng()) < 1e-8
        assert sampler.loss.value(off, world.base, batch, rng()) > 0.05


# --- the cross-entropy ---


def test_cross_entropy_is_stationary_at_the_optimum_and_not_path_by_path():
    """u = u*, where all weights agree: the score of P*, mean 0 over many batches."""
    world = Shifted(Stationary(steps=8))
    model, loss, slopes = perturbed(world, 0.0, guided=False), build_loss(Reach()), []
    for seed in range(100):
        batch = batch_of(world, loss, model, 32, seed)
        assert float(batch["chance"].max()) < 1.02 / 32
        value = loss.value(model, world.base, batch, rng())
        slopes.append(torch.autograd.grad(value, model.network.theta)[0].double())
    slopes = torch.stack(slopes)
    assert abs(z_score(slopes, 0)) < 4
    assert slopes.std() > 0.1


def test_cross_entropy_of_any_paths_is_least_at_the_optimum():
    """Paths of the base itself: in a constant control of each step, the quadratic form has its
    minimum at E_P'[z_k] / sqrt(dt_k), which is u* where P' = P* up to O(1 / paths)."""
    world = Shifted(Brownian(steps=4, ratio=2.0), (0.5, -0.4))
    zero = Mlp(width=8).build(2, world.base, rng())
    loss = build_loss(Reach(1e3))
    batch = batch_of(world, loss, zero, paths=20_000)
    assert float(batch["chance"].max()) < 1e-3
    path = batch_path(world.base, batch)

    class Steps(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.u = torch.nn.Parameter(torch.zeros(4, 2))

        def control(self, x, t, hint=None):
            return self.u[:, None].expand(x.shape)

    steps = Steps()
    value = loss.value(steps, world.base, batch, rng())
    (slope,) = torch.autograd.grad(value, steps.u)
    # the form is sum_k dt_k / 2 |u_k|^2 - u_k . s_k: its least point is s_k / dt_k = -slope / dt_k
    least = -slope / path.dt[:, None]
    best = world.control(path.x[:-1, :1], path.t[:-1, None])[:, 0]
    torch.testing.assert_close(least, best, rtol=0, atol=0.1)
    assert float(value) == 0


def test_cross_entropy_weighs_exploring_paths_by_the_law_that_simulated():
    """Their ends have the mean and the spread of p* under the chances."""
    world = Shifted(Stationary(steps=6), (0.5, -0.3))
    sampler = Diffusion(build_loss(Reach(1e3)), paths=20_000, explore=Wider(extra=0.1, until=1.0))
    batch = sampler.batch(world.problem(), perturbed(world, 0.0, guided=False), 1e-9, rng(8))
    x, chance = batch["x"][-1], batch["chance"][:, None].float()
    assert (x.mean(0) - world.slope).abs().max() < 0.04
    torch.testing.assert_close((chance * x).sum(0), world.slope, atol=0.05, rtol=0)
    square = (chance * x.square()).sum(0)
    torch.testing.assert_close(square, 1 + world.slope.square(), atol=0.06, rtol=0)
    assert (x.square().mean(0) - 1 - world.slope.square()).min() > 0.07


def test_cross_entropy_keeps_within_its_radius():
    world = Shifted(Brownian(steps=4), (3.0, -4.0))
    zero = Mlp(width=8).build(2, world.base, rng())
    for radius in (0.05, 0.5):
        batch = batch_of(world, build_loss(Reach(radius)), zero)
        log_w = batch["chance"].log()
        assert divergence(log_w) == pytest.approx(radius, abs=1e-6)
        # tempered weights: log P'/P^v is a multiple of log w, the reward where v = 0
        away, r = log_w - log_w.mean(), batch["r"] - batch["r"].mean()
        beta = float((away * r).sum() / r.square().sum())
        assert 0 < beta < 1
        torch.testing.assert_close(away, beta * r, rtol=1e-5, atol=1e-5)
    spec = build_sampler(parse("trust_region_cross_entropy[radius=0.5,paths=16]"))
    assert spec.loss is build_loss(Reach(0.5)) and replace(spec, paths=32).paths == 32


def test_known_flow_is_the_value_function():
    """E_base[exp r(X_1) | X_t = x] by plain Monte Carlo, at a point of the grid."""
    world = Shifted(Stationary(steps=4, gamma_noise=3.0))
    x, t = torch.tensor([[0.7, -0.2]]), torch.tensor([0.5])
    gain, var = world.base.ahead[2]
    ends = gain * x + math.sqrt(var) * torch.randn(100_000, 2, generator=rng())
    w = world.problem().reward(ends).double().exp()
    expected = (Known(world)(x, t) + world.log_Z).exp()
    assert abs(z_score(w, float(expected))) < 4


def test_a_flow_is_told_in_tens_of_nats_of_points_times_its_factor():
    base = Stationary(steps=4, scale=2.0)
    models = [
        Valued(width=8, factor=factor, control=Mlp(width=8)).build(2, base, rng())
        for factor in (1.0, 3.0)
    ]
    for model in models:
        torch.nn.init.normal_(model.flow.field.out.weight, generator=rng(1))
    x, t = torch.randn(9, 2, generator=rng(2)), torch.full((9,), 0.25)
    plain, sharp = models
    assert torch.allclose(sharp.log_flow(x, t), plain.log_flow(3 * x, t), atol=1e-4)
    assert not torch.allclose(sharp.log_flow(x, t), plain.log_flow(x, t), atol=0.1)
    with torch.no_grad():
        plain.flow.field.out.weight.zero_()
        for bias, nats in ((0.01, 0.1), (1e6, 500.0)):
            plain.flow.field.out.bias.fill_(bias)
            assert torch.allclose(plain.log_flow(x, t), torch.full((9,), nats), rtol=1e-4)
