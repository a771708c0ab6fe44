"""Every loss in the registry: its price, and its behaviour at the closed-form optimum."""

import itertools
import math
from dataclasses import replace

import pytest
import torch

from tests.tools.worlds import Mixture, Shifted, Tilted, narrow, rng, z_score
from tiltbench.plan.spec import build_sampler, parse
from tiltbench.run.meter import Meter
from tiltbench.samplers import diffusion
from tiltbench.samplers.diffusion import Diffusion, Preset
from tiltbench.samplers.loss import Loss, batch_path, grounded, reward_and_grad
from tiltbench.samplers.networks.control import Control
from tiltbench.samplers.networks.model import Earlier, Model
from tiltbench.samplers.networks.perceptron import Corrected, Guided, Mlp
from tiltbench.samplers.networks.timed import FREE, Guidance, bounded
from tiltbench.samplers.networks.valued import Valued
from tiltbench.samplers.recipes.recipe import Base
from tiltbench.samplers.recipes.tamed import _ClippedGrad, clipped
from tiltbench.samplers.registry import NETWORKS, SAMPLERS
from tiltbench.samplers.sampler import Unsupported
from tiltbench.samplers.weights import ess
from tiltbench.targets.bases.references import Brownian, Stationary
from tiltbench.targets.checks import Diverged
from tiltbench.targets.cost import Cost
from tiltbench.targets.densities.gaussian import Gaussian
from tiltbench.targets.problem import Problem, pose

PLUGINS = [SAMPLERS.load(name) for name in SAMPLERS.entries]
PRESETS = [
    plugin.sampler
    for plugin in PLUGINS
    if isinstance(plugin, Preset) and plugin.sampler.recipe == Base()
]
LOSSES = [plugin for plugin in PLUGINS if isinstance(plugin, Loss)]
LOSSES += [preset.loss for preset in PRESETS if preset.loss not in LOSSES]
losses = pytest.mark.parametrize("loss", LOSSES, ids=repr)
LEARNERS = [loss for loss in LOSSES if not loss.biased]  # others have another fixed point, or none
FILES = {loss.name: SAMPLERS.entries[loss.name].path for loss in LEARNERS}
FIRST = [
    loss for i, loss in enumerate(LEARNERS) if FILES[loss.name] not in list(FILES.values())[:i]
]
# the first loss of each file; its variants differ by a constant, and share the costly tests


def serves(network):
    """Whether it is for any base; the ones for a symmetry have tests of their own."""
    try:
        network.build(2, Brownian(), rng())
    except Unsupported:
        return False
    return True


NETS = [narrow(NETWORKS.load(name)()) for name in NETWORKS.entries]
NETS = [network for network in NETS if serves(network)]
networks = pytest.mark.parametrize("network", NETS, ids=lambda n: n.name)
CONTROLS = [net for net in NETS if not isinstance(net, Corrected | Valued)]
BY_HINT = [net for net in CONTROLS if net.name in ("Mlp", "Guided")]  # a price asks for no more


def suited(loss, network):
    """The network, given a corrector or a flow where the loss's own preset has one."""
    for wrapper in (Corrected, Valued):
        if any(p.loss is loss and isinstance(p.model, wrapper) for p in PRESETS):
            return wrapper(width=16, control=network)
    return network


class Perturbed(Control):
    """u* + theta (0.5 + sin x, and the hint where there is one)."""

    def __init__(self, world, theta, guided):
        super().__init__()
        self.world, self.guided = world, guided
        self.theta = torch.nn.Parameter(torch.tensor(float(theta)))

    def control(self, x, t, hint=None):
        away = 0.5 + torch.sin(x)
        if self.guided:
            away = away + 0.1 * hint.clamp(-5, 5)
        return self.world.control(x.detach(), t) + self.theta * away


class ExactCorrector(torch.nn.Module):
    """The corrector, exact on a memoryless base: the score of its end."""

    def __init__(self, base):
        super().__init__()
        self.base = base

    def forward(self, x):
        return self.base.score(x, self.base.steps)


class Known(torch.nn.Module):
    """The flow, exact."""

    def __init__(self, world):
        super().__init__()
        self.world = world

    def forward(self, x, t):
        return self.world.log_flow(x.double(), t) - self.world.log_Z


def perturbed(world, theta, guided):
    """With log Z, the corrector and the flow exact."""
    model = Model(Perturbed(world, theta, guided), ExactCorrector(world.base), flow=Known(world))
    with torch.no_grad():
        model.log_Z.fill_(world.log_Z)
    return model


def reuse(loss, repeats, memory):
    """A loss that differentiates through the path can use a batch once only."""
    return {} if loss.through_path else {"repeats": repeats, "memory": memory}


STAGE = 0.25  # the tilt that a staged loss has yet to climb


def slopes(loss, world, theta, guided, seeds, paths=256):
    """Independent unbiased estimates of d loss / d theta, one a seed."""
    problem = world.problem()
    sampler = Diffusion(loss, paths=paths)
    model = perturbed(world, theta, guided)
    if loss.staged:  # the stage before the last is exact, the last one is under test
        model.earlier = Earlier(perturbed(world.at(1 - STAGE), 0.0, guided), 1 - STAGE, 1.0)
    per_seed = []
    for seed in seeds:
        generator = rng(seed)
        batch = sampler.batch(problem, model, 0.5, generator)
        value = loss.value(model, problem.base, batch, generator)
        per_seed.append(torch.autograd.grad(value, model.network.theta)[0].double())
    return torch.stack(per_seed)


def shifted(loss):
    return Shifted(Stationary(steps=8))


def multimodal(loss):
    """Three modes by Brownian motion; for a staged loss, which needs u* at every tilt, two of them
    by the "pretrained" mixture."""
    return Tilted(steps=20) if loss.staged else Mixture(Brownian(steps=12, scale=2.0, ratio=1.0))


def cases():
    """Every loss where its optimum is exact at any number of steps, and the first of each file
    where there are modes, with the hint in its control; the other pairs by `make slow`."""
    for loss in LEARNERS:
        for world in (shifted, multimodal):
            for guided in (False, True):
                here = not guided if world is shifted else guided and loss in FIRST
                if loss in FIRST or not guided:
                    marks = () if here else pytest.mark.slow
                    name = f"{world.__name__}-{loss.name}{'-guided' * guided}"
                    yield pytest.param(loss, guided, world, marks=marks, id=name)


@pytest.mark.parametrize(("loss", "guided", "world"), list(cases()))
def test_stationary_and_attracting_at_the_optimum(loss, guided, world):
    by_theta = {0.0: [], 0.3: [], -0.3: []}
    for seeds in (range(8), range(8, 16), range(16, 48)):  # the noisiest need more to be seen
        for theta, more in by_theta.items():
            more.append(slopes(loss, world(loss), theta, guided, seeds))
        at, right, left = (torch.cat(each) for each in by_theta.values())
        if min(z_score(right, 0), -z_score(left, 0)) > 4:
            break
    assert right.mean() > 0 > left.mean()
    # zero at the optimum: within its error and O(1/K) of the slope beside it
    allowed = 4 * at.std() / math.sqrt(len(at)) + 0.04 * (right.mean() - left.mean())
    assert abs(at.mean()) < allowed
    assert abs(z_score(right, 0)) > 4
    assert abs(z_score(left, 0)) > 4


@losses
def test_a_learned_log_Z_is_drawn_to_log_Z(loss):
    """At u* every log_w is log Z: the loss is least there as a function of the model's log Z."""
    world = Shifted(Stationary(steps=8))
    model = perturbed(world, 0.0, guided=False)
    sampler = Diffusion(loss, reference=world.base, paths=64)
    batch = sampler.batch(world.problem(), model, 0.5, rng())
    pulls = []
    for away in (-0.3, 0.0, 0.3):
        with torch.no_grad():
            model.log_Z.fill_(world.log_Z + away)
        value = loss.value(model, world.base, batch, rng())
        pulls.append(torch.autograd.grad(value, model.log_Z, allow_unused=True)[0])
    assert (pulls[0] is not None) == loss.learns_log_Z
    if pulls[0] is None:
        return
    assert pulls[0] < -0.1 and abs(pulls[1]) < 1e-3 and pulls[2] > 0.1


@pytest.mark.parametrize("loss", [loss for loss in LOSSES if loss.learns_log_Z], ids=repr)
def test_log_Z_starts_at_the_mean_weight_of_the_first_batch(loss):
    """Of paths that a control has steered, whose weights are not their rewards."""
    world = Shifted(Stationary(steps=8))
    sampler, model = Diffusion(loss, paths=16), perturbed(world, 0.7, guided=False)
    for share in (0.0, 0.5):  # later on it is trained
        batch = sampler.batch(world.problem(), model, share, rng(1))
        log_w = batch["r"] - world.base.log_ratio(batch_path(world.base, batch))
        expected = float(log_w.mean()) if share == 0 else 7.0
        assert abs(float(log_w.mean() - batch["r"].mean())) > 0.1
        assert float(model.log_Z.detach()) == pytest.approx(expected, abs=1e-5)
        with torch.no_grad():
            model.log_Z.fill_(7.0)


@pytest.mark.parametrize(
    ("loss", "network"),
    [
        pytest.param(loss, network, marks=marks)
        for network in BY_HINT
        for loss in LOSSES
        # with a hint, the variants of one file pay what its first loss pays
        for marks in ([pytest.mark.slow] if network.name == "Guided" and loss not in FIRST else [],)
    ],
    ids=lambda v: v.name,
)
def test_price_is_what_a_step_pays(loss, network):
    base = Brownian(steps=5, scale=2.0)
    meter = Meter(Cost(10**6, 10**6))
    posed = Mixture(base).problem()
    problem = Problem(2, base, meter.watch(posed.reward))
    model = suited(loss, network)
    sampler = Diffusion(loss, reference=base, model=model, paths=7, **reuse(loss, 3, 2))
    state = sampler.init(problem, meter.budget, rng())
    assert meter.spent == Cost()
    price = loss.price(7, 5, state.model.guided)
    for n in (1, 2):
        state = sampler.step(problem, state, rng())
        assert meter.spent == price.times(n) == state.paid
    assert state.iteration == 2 * sampler.repeats
    meter.spent = Cost()
    sampler.probe(problem, state, rng())
    assert meter.spent == price.times(diffusion.GRADIENTS)


@pytest.mark.parametrize(
    ("loss", "network"),
    [
        (loss, net)
        if loss.name == "adjoint_matching" or (net.name == "Mlp" and loss in FIRST)
        else pytest.param(loss, net, marks=pytest.mark.slow)
        for net in CONTROLS
        for loss in (LEARNERS if net.name == "Mlp" else FIRST)
    ],
    ids=lambda v: v.name,
)
def test_training_approaches_the_target(loss, network):
    """Forty steps, twice as many up a ladder of tilts, close most of the ELBO gap; the weights stay
    exact."""
    base = Brownian(steps=8, scale=1.5)
    world = Shifted(base, (1.2, -0.5))
    problem = world.problem()
    model = suited(loss, network)
    sampler = Diffusion(loss, reference=base, model=model, paths=64, lr=2e-2, **reuse(loss, 2, 4))
    generator = rng(1)
    price, steps = loss.price(64, 8, network.name == "Guided"), 80 if loss.staged else 40
    state = sampler.init(problem, price.times(steps), generator)
    before = sampler.draw(problem, state, 1000, rng(2)).log_w
    for _ in range(steps):
        state = sampler.step(problem, state, generator)
    after = sampler.draw(problem, state, 1000, rng(3))
    gap = [world.log_Z - float(log_w.mean()) for log_w in (before, after.log_w)]
    assert gap[1] < 0.1 * gap[0]
    assert abs(z_score((after.log_w - world.log_Z).exp(), 1.0)) < 4
    ends = world.base.end((1000, 2), rng(4)) + world.slope * base.spread**2
    backward = sampler.reverse(problem, state, ends, rng(5)).log_w
    assert abs(z_score((world.log_Z - backward).exp(), 1.0)) < 4
    assert ess(after.log_w) > 0.7
    assert (after.log_Z is not None) == loss.learns_log_Z
    if after.log_Z is not None:
        late = loss.name == "detailed_balance"  # the end tells the start of log Z step by step
        assert after.log_Z.value == pytest.approx(world.log_Z, abs=1.0 if late else 0.1)


@losses
def test_equal_seeds_give_equal_runs(loss):
    problem = Mixture(Brownian(steps=4, scale=2.0)).problem()
    model = suited(loss, Mlp())
    sampler = Diffusion(loss, reference=problem.base, model=model, paths=16, **reuse(loss, 2, 3))

    def run():
        torch.rand(1)  # the global generator plays no part
        generator = rng(3)
        state = sampler.init(problem, Cost(1000, 1000), generator)
        for _ in range(4):
            state = sampler.step(problem, state, generator)
        return sampler.draw(problem, state, 10, rng(4)).x

    assert torch.equal(run(), run())


@networks
def test_controls_start_at_zero_and_share_times(network):
    base = Brownian(steps=6, scale=2.0)
    model = network.build(3, base, rng())
    x, hint = torch.randn(6, 5, 3), torch.randn(6, 5, 3)
    t = torch.linspace(0, 1, 6)[:, None]
    assert torch.equal(model.control(x, t, hint), torch.zeros_like(x))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=rng(1)))
    whole = model.control(x, t, hint)
    dense = model.control(x, t.expand(6, 5), hint)
    single = torch.stack([model.control(x[k], t[k, 0], hint[k]) for k in range(6)])
    assert torch.allclose(whole, dense, atol=1e-5)
    assert torch.allclose(whole, single, atol=1e-5)
    stepper = model.on_grid(t[:, 0])
    k = torch.tensor([4, 0, 4, 2, 5])  # and at indices of the grid
    at_indices = torch.stack([stepper(x[k[i], i], k[i], hint[k[i], i]) for i in range(5)])
    assert torch.allclose(stepper(x[k, range(5)], k, hint[k, range(5)]), at_indices, atol=1e-5)
    assert torch.allclose(at_indices, whole[k, range(5)], atol=1e-5)
    assert float(model.free_energy(torch.tensor(0.0)).detach()) == 0
    assert torch.allclose(model.free_energy(torch.tensor(1.0)).double(), -model.log_Z)


def test_size_of_the_standard_network():
    model = Mlp(width=64, layers=4).build(2, Brownian(), rng())
    count = {name: p.numel() for name, p in model.named_parameters()}
    apart = ("network.field.time", "energy")
    point = sum(n for name, n in count.items() if not name.startswith(apart))
    assert point == 12_802
    assert 37_000 <= sum(count.values()) <= 38_000


def test_guidance_is_clipped_in_length_only():
    model = Guided(clip=2.0).build(2, Brownian(scale=3.0), rng())
    with torch.no_grad():
        model.network.field.time[-1].bias[-1] = 1.0
    x, t = torch.zeros(2, 2), torch.tensor(0.5)
    hint = torch.tensor([[0.1, 0.2], [30.0, 40.0]])
    expected = torch.tensor([[0.3, 0.6], [1.2, 1.6]])
    assert torch.allclose(model.control(x, t, hint), expected, atol=1e-5)


def test_a_gate_that_runs_away_is_held_and_any_other_left_as_it_is():
    gate = torch.tensor([-1e9, -30.0, -7.9, 0.0, 0.3, 8.0, 8.1, 1e9], requires_grad=True)
    seen = bounded(gate)
    assert torch.equal(seen[2:6], gate[2:6]) and (seen.abs() <= 2 * FREE).all()
    (slope,) = torch.autograd.grad(seen.sum(), gate)
    assert (slope[2:6] == 1).all() and 0.9 < slope[6] < 1 and 0 < slope[1] < 0.1
    model = Guided(width=8).build(2, Brownian(), rng())
    with torch.no_grad():
        model.network.field.time[-1].bias[-1] = 500.0
    x, t, hint = torch.zeros(3, 2), torch.tensor([0.0, 0.5]), torch.full((3, 2), 1e-3)
    step, spread = model.on_grid(t), Brownian().spread
    for u in (model.control(x, t[1], hint), step(x, 1, hint)):
        torch.testing.assert_close(u, 2 * FREE * spread * hint)


def test_a_steep_reward_is_clipped_wherever_it_is_seen():
    """In the pair and by autograd alike; the reward itself is left as it is."""
    problem = Shifted(Stationary(scale=2.0), (3e3, -4e3)).problem()
    tamed = Diffusion(LOSSES[0], steepest=20.0).posed(problem).reward
    x = torch.tensor([[0.5, 0.1], [0.0, 0.0]], requires_grad=True)
    (slope,) = torch.autograd.grad(tamed(x).sum(), x)
    r, g = tamed.value_and_grad(x)
    most = 20 * math.sqrt(2) / 2
    for seen in (g, slope, reward_and_grad(Diffusion(LOSSES[0]).posed(problem), x)[1]):
        assert torch.allclose(seen, most * torch.tensor([0.6, -0.8]).expand(2, 2))
    assert torch.equal(r, problem.reward(x))
    far = torch.tensor([[1e25, 0.0], [3e30, 4e30], [0.3, 0.4], [0.0, 0.0]])  # its square overflows
    near = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.3, 0.4], [0.0, 0.0]])
    assert torch.allclose(clipped(far, 1.0), near)


@pytest.mark.parametrize("tilt", [1.0, 0.25])
def test_a_part_of_the_tilt_is_clipped_at_that_part(tilt):
    """grad of lambda r to lambda steepest sqrt(D) / spread, so that the same points are clipped."""
    problem = Shifted(Stationary(scale=2.0), (30.0, -40.0)).problem()
    for steepest, length in ((20.0, 20 * math.sqrt(2) / 2), (100.0, 50.0)):
        posed = Diffusion(LOSSES[0], steepest=steepest).posed(problem, tilt)
        _, g = posed.reward.value_and_grad(torch.zeros(1, 2))
        torch.testing.assert_close(g, tilt * length * torch.tensor([[0.6, -0.8]]))


def test_reward_and_grad_at_the_edge_of_the_support():
    def reward(x):
        inside = x[..., 0] > 0
        return torch.where(inside, -x[..., 0].clamp(min=1e-9).sqrt(), -torch.inf)

    problem = Problem(1, Brownian(), reward)
    r, g = reward_and_grad(problem, torch.tensor([[4.0], [-1.0]]))
    assert r.tolist() == [-2.0, -math.inf]
    assert g.flatten().tolist() == [-0.25, 0.0]
    bad = Problem(1, Brownian(), lambda x: x[..., 0].abs().sqrt())
    with pytest.raises(Diverged, match="gradient of the reward is not finite at 1 of 2"):
        reward_and_grad(bad, torch.tensor([[0.0], [1.0]]))


def test_paths_outside_the_support_count_with_a_finite_reward():
    r, ratio = torch.tensor([1.0, -torch.inf, 5.0, -1e20]), torch.tensor([0.0, 1.0, 0.0, -2.0])
    assert grounded(r, ratio).tolist() == [1.0, -194.0, 5.0, -197.0]
    optimum = torch.tensor([0.0, 373.0, -200.0, 1.0])  # equal weights are left as they are
    assert torch.equal(grounded(optimum + 2, optimum), optimum.double() + 2)
    with pytest.raises(Diverged, match="all 3 paths"):
        grounded(torch.full((3,), -torch.inf), torch.zeros(3))


@pytest.mark.parametrize(
    "text, message",
    [
        ("adjoint_matching[recipe=Escorted,reference=Stationary]", "leave recipe=Base"),
        ("adjoint_matching_full[recipe=Escorted,reference=Stationary]", "leave recipe=Base"),
        ("novel_score_matching[recipe=Escorted,reference=Stationary]", "noising kernel"),
        ("nets_pinn[recipe=Base]", "use recipe=Transported"),
        ("nets_action[recipe=Base]", "use recipe=Escorted"),
    ],
)
def test_a_loss_refuses_the_wrong_chain(text, message):
    sampler = build_sampler(parse(text))
    problem = Mixture(replace(sampler.reference, steps=4)).problem()
    state = sampler.init(problem, Cost(10**6, 10**6), rng())
    with pytest.raises(Unsupported, match=message):
        sampler.step(problem, state, rng())


@losses
def test_divergence_is_an_error_with_a_cause(loss):
    problem = Mixture(Brownian(steps=4, scale=2.0)).problem()
    sampler = Diffusion(loss, reference=problem.base, model=suited(loss, Mlp()), paths=16)
    state = sampler.init(problem, Cost(1000, 1000), rng())
    with torch.no_grad():
        state.model.network.field.out.weight.fill_(float("nan"))
    with pytest.raises(Diverged):
        sampler.step(problem, state, rng())


def test_draws_of_an_undefined_control_are_refused_as_what_they_are():
    """Not as points at which log rho is undefined."""
    problem = pose(Gaussian(dim=2), Stationary(steps=4))
    sampler = Diffusion(LOSSES[0], reference=problem.base, model=Mlp(width=8))
    state = sampler.init(problem, Cost(1000, 1000), rng())
    with torch.no_grad():
        state.model.network.field.out.weight.fill_(float("nan"))
    with pytest.raises(Diverged, match="the trained control leads to infinite or undefined points"):
        sampler.draw(problem, state, 10, rng())


def test_training_may_end_before_the_budget_is_spent():
    """`batches` of paths, the learning rate falling to zero over them; 0: the budget decides."""
    problem = Mixture(Brownian(steps=4, scale=2.0)).problem()
    sampler = Diffusion(LOSSES[0], reference=problem.base, paths=16, repeats=2, batches=5)
    sampler = sampler if not LOSSES[0].through_path else replace(sampler, repeats=1)
    state, done = sampler.init(problem, Cost(10**9, 10**9), rng()), 0
    while not sampler.done(state):
        assert sampler.share(problem, state) == pytest.approx(done / 5)
        state, fall = sampler.step(problem, state, rng(done)), math.cos(math.pi / 2 * done / 5)
        rates = [float(group["lr"]) for group in state.optimizer.param_groups]
        assert rates == pytest.approx([fall * sampler.lr, fall * sampler.lr_log_Z], rel=1e-6)
        done += 1
    assert done == 5 and sampler.share(problem, state) == 1
    assert not Diffusion(LOSSES[0], reference=problem.base).done(state)
    with pytest.raises(ValueError, match="batches is -1"):
        Diffusion(LOSSES[0], batches=-1)


def test_a_refused_step_leaves_the_state_as_it_was():
    from tiltbench.run.meter import BudgetExceeded

    base = Brownian(steps=4, scale=2.0)
    meter = Meter(Cost(40, 40))
    problem = Problem(2, base, meter.watch(Mixture(base).problem().reward))
    sampler = Diffusion(LOSSES[0], reference=base, paths=32)
    state = sampler.init(problem, meter.budget, rng())
    state = sampler.step(problem, state, rng())
    before = {key: value.clone() for key, value in sampler.tensors(state).items()}
    with pytest.raises(BudgetExceeded):
        sampler.step(problem, state, rng())
    assert all(torch.equal(before[key], value) for key, value in sampler.tensors(state).items())
    assert state.paid == meter.spent


@pytest.mark.parametrize("loss", [loss for loss in LOSSES if loss.through_path], ids=repr)
def test_a_graph_cannot_be_used_twice(loss):
    with pytest.raises(ValueError, match="leave repeats and memory at 1"):
        Diffusion(loss, repeats=2)


def test_every_kept_batch_serves_and_none_that_is_older():
    """With memory M the optimiser's steps fall on the last M batches alike, whichever is oldest."""
    problem = Mixture(Brownian(steps=2, scale=2.0)).problem()
    seen, bought = [], itertools.count()

    def label(problem, model, path, share, generator):
        return {"number": torch.tensor(next(bought))}

    def value(model, process, batch, generator):
        seen.append(int(batch["number"]))
        return sum(p.square().sum() for p in model.parameters())

    noted = Loss("noted", label, value, lambda paths, steps, guided: Cost(1))
    sampler = Diffusion(noted, reference=problem.base, paths=2, repeats=40, memory=4)
    state = sampler.init(problem, Cost(10**6, 10**6), rng())
    for number in range(40):
        seen.clear()
        state = sampler.step(problem, state, rng(number))
        assert set(seen) <= set(range(max(number - 3, 0), number + 1))
        assert len(seen) == 40 and len(state.ring) == min(number + 1, 4)
        if number == 3:
            ages = torch.zeros(4)
        if number >= 3:
            ages += torch.bincount(number - torch.tensor(seen), minlength=4)
    share = ages / ages.sum()
    assert (share - 0.25).abs().max() < 4 * math.sqrt(0.25 * 0.75 / float(ages.sum()))


def test_the_gradient_of_a_step_is_clipped_by_its_norm():
    """All parameters together: shortened to `clip`, in the direction it had."""
    problem = Mixture(Brownian(steps=2, scale=2.0)).problem()
    gradients = []
    for clip in (1e9, 0.01):
        sampler = Diffusion(LOSSES[0], reference=problem.base, paths=8, clip=clip)
        state = sampler.init(problem, Cost(10**6, 10**6), rng())
        state = sampler.step(problem, state, rng(1))
        gradients.append(torch.cat([p.grad.flatten() for p in state.model.control_parameters()]))
    whole, short = gradients
    assert whole.norm() > 0.1
    torch.testing.assert_close(short, 0.01 * whole / whole.norm(), rtol=1e-3, atol=1e-9)


def test_clipping_is_by_length_and_keeps_the_direction():
    """Of pulls and of hints: a long vector is shortened, none of its coordinates by itself."""
    g = torch.tensor([[3.0, 4.0], [0.3, -0.4], [1e-30, 0.0], [0.0, 0.0], [3e30, -4e30]])
    unit = torch.tensor([[0.6, 0.8], [0.6, -0.8], [1.0, 0.0], [0.0, 0.0], [0.6, -0.8]])
    length = torch.tensor([5.0, 0.5, 1e-30, 0.0, 5e30]).clamp(max=2.0)
    torch.testing.assert_close(clipped(g, 2.0), unit * length[:, None])
    x = torch.ones(5, 2, requires_grad=True)
    (_ClippedGrad.apply(x, 2.0) * g).sum().backward()
    torch.testing.assert_close(x.grad, unit * length[:, None])
    # gate h with h = spread grad r of length `clip` at most
    term = Guidance(clip=6.0, spread=3.0).term(g[:4], torch.tensor([0.5]))
    torch.testing.assert_close(term, 0.5 * 3.0 * (unit * length[:, None])[:4])
