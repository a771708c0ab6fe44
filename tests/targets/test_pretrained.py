"""Pretrained networks as bases, held against the analytic mixture; other noises; adapters."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.tools.worlds import Tilted, rng, weights_of, z_score
from tiltbench.samplers.diffusion import Diffusion
from tiltbench.samplers.losses.adjoint_matching import adjoint_matching
from tiltbench.samplers.networks.adapter import Adapter
from tiltbench.samplers.networks.perceptron import Mlp
from tiltbench.samplers.redraw import by_noise, by_ode
from tiltbench.samplers.sampler import Unsupported
from tiltbench.targets.bases import pretrained
from tiltbench.targets.bases.interpolant import Ancestral, Constant, Interpolant, Regularised
from tiltbench.targets.bases.mixture_flow import MixtureFlow
from tiltbench.targets.bases.optimal import Optimal
from tiltbench.targets.bases.pretrained import (
    Pretrained,
    doubts,
    epsilon,
    levels,
    sample,
    score,
    v_prediction,
    velocity,
)
from tiltbench.targets.bases.process import Controlled, Process, Uncontrolled, simulate
from tiltbench.targets.bases.references import Brownian, Stationary
from tiltbench.targets.bases.schedules import (
    Foellmer,
    RectifiedFlow,
    Trigonometric,
    VariancePreserving,
)
from tiltbench.targets.bases.text_to_image import difference
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem

PLANE = {"weights": (0.4, 0.6), "means": ((-1.5, 0.0), (1.5, 0.5)), "variances": (0.3, 0.2)}
WRAPPED = [
    (velocity, RectifiedFlow()),
    (velocity, Trigonometric()),
    (velocity, VariancePreserving()),
    (epsilon, VariancePreserving()),
    (score, VariancePreserving()),
]
wrapped = pytest.mark.parametrize(
    "reading, schedule", WRAPPED, ids=[f"{r.__name__}-{s.name}" for r, s in WRAPPED]
)


class Exact(nn.Module):
    """What a perfectly trained network would say of a mixture, at any time but t = 1."""

    def __init__(self, law, reading, schedule):
        super().__init__()
        self.law, self.reading, self.schedule = law, reading, schedule

    def forward(self, x, t):
        shape, t = x.shape, t.expand(x.shape[:-1]).reshape(-1).tolist()
        rows = [levels(self.schedule, s) for s in t]
        a, b, da, db = torch.tensor(rows, dtype=x.dtype).T[..., None]
        x = x.reshape(-1, shape[-1])
        noise = -b * self.law.score(x, a, b)
        output = {
            epsilon: noise,
            score: -noise / b,
            velocity: da * self.law.denoise(x, a, b) + db * noise,
        }[self.reading]
        return output.reshape(shape)


def twins(reading, schedule, steps=8, world=PLANE, **more):
    """(the closed form, the same as a wrapped network)."""
    exact = MixtureFlow(**world, schedule=schedule, steps=steps, **more)
    doubt = [*zip(exact.times, exact.uncertainty, strict=False), (1.0, 0.0)]
    network = Exact(exact.law, reading, schedule)
    return exact, Pretrained(network, reading, exact.spread, doubt, schedule, exact.stepping, steps)


class Random(Controlled):
    def control(self, x, t, hint=None):
        return torch.sin(2 * x.flip(-1) + 3 * t[..., None]) - 0.3 * x


class Net(nn.Module):
    """Any network at all: weights are exact whatever it says."""

    def __init__(self, dim=2):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(dim + 1, 16), nn.Tanh(), nn.Linear(16, dim))
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(0.5 * torch.randn(p.shape, generator=rng(5)))

    def forward(self, x, t):
        return self.layers(torch.cat([x, t[..., None]], -1))


def random_base(steps=4, **more):
    doubt = [(0.0, 1.0), (1.0, 0.3)]
    return Pretrained(Net(), velocity, 1.0, doubt, steps=steps, **more)


class Counted(Net):
    calls = 0

    def forward(self, x, t):
        self.calls += 1
        return super().forward(x, t)


def labelled(base, n=9):
    """What adjoint matching regresses a first control on."""
    problem = Problem(2, base, lambda x: torch.sin(x).sum(-1))
    sampler = Diffusion(adjoint_matching, paths=n, model=Mlp(width=8, layers=1))
    model = sampler.model.build(2, base, rng(1))
    return sampler.batch(problem, model, 0.0, rng(2))["y"]


@pytest.mark.parametrize("stepping", [Ancestral(), Regularised(h=0.1)], ids=lambda s: s.name)
def test_a_network_is_asked_once_a_step_where_its_graphs_fit(stepping, monkeypatch):
    doubt = [(0.0, 1.0), (1.0, 0.3)]
    base = Pretrained(Counted(), velocity, 1.0, doubt, steps=4, stepping=stepping)
    labels = labelled(base)
    assert base.network.calls == base.steps
    monkeypatch.setattr(pretrained, "GRAPH_BYTES", 8)
    again = labelled(base)
    assert base.network.calls == base.steps + 2 * base.steps - 1  # a_0 is asked for by nobody
    assert torch.equal(labels, again)


def test_graphs_are_held_where_those_of_all_steps_fit(monkeypatch):
    base, x = random_base(), torch.randn(9, 2, generator=rng(3))
    _, size = pretrained._sized(lambda y: base.mixed(y, 0, base.mixes[0]), x.requires_grad_())
    for room, held in ((base.steps * size, 1), (base.steps * size - 1, 0)):
        monkeypatch.setattr(pretrained, "GRAPH_BYTES", room)
        memory = base.remembering()
        memory.base(x, 0)
        assert len(memory._memory.held) == held


def test_a_step_that_is_not_held_is_worked_out_anew():
    base = random_base()
    memory = base.remembering()
    x, a = torch.randn(5, 3, 2, generator=rng(3)), torch.randn(3, 2, generator=rng(4))
    assert torch.equal(memory.base(x[1], 1).mean, base.base(x[1], 1).mean)
    back = memory.pull_backs(x)
    for k in (1, 1, 2):  # held, gone after its use, never seen
        assert torch.allclose(back(k, a), Process.pull_back(base, x[k], k, a))
    assert not base.base(x[1], 1).mean.requires_grad and not memory.base(x[1], 1).mean.requires_grad


def test_a_step_of_other_points_meanwhile_is_not_taken_for_the_path():
    base, x = random_base(), torch.randn(5, 3, 2, generator=rng(3))
    memory, a = base.remembering(), torch.randn(3, 2, generator=rng(4))
    for k in range(4):
        memory.base(x[k], k)
    memory.base(x[2] + 1, 2)
    back = memory.pull_backs(x)
    for k in range(4):
        assert torch.allclose(back(k, a), Process.pull_back(base, x[k], k, a))


@pytest.mark.parametrize("reading", [velocity, epsilon, score, v_prediction, sample, difference])
@pytest.mark.parametrize("stepping", [Ancestral(), Constant()], ids=lambda s: s.name)
def test_a_linear_reading_is_its_two_coefficients(reading, stepping):
    doubt, schedule = [(0.0, 1.0), (1.0, 0.3)], VariancePreserving()
    base = Pretrained(Net(), reading, 1.0, doubt, schedule, stepping, 4)

    def plain(output, x, at):
        return reading(output, x, at)

    other = Pretrained(Net(), plain, 1.0, doubt, schedule, stepping, 4)
    x, at = torch.randn(3, 2, generator=rng(5)), torch.arange(5)
    for k in range(4):
        assert torch.allclose(base.base(x, k).mean, other.base(x, k).mean, atol=1e-5)
        by_parts = Interpolant.mixed(base, x, k, base.mixes[k])
        assert torch.allclose(base.base(x, k).mean, by_parts, atol=1e-5)
        assert torch.allclose(base.denoise(x, k), other.denoise(x, k), atol=1e-5)
        steps = base.backward(x, k).mean, other.backward(x, k).mean
        assert torch.allclose(*steps, atol=1e-5)
        same = base.denoise(x, k), base.denoise(x, at[k : k + 1].expand(3))
        assert torch.allclose(*same, atol=1e-5)


@wrapped
def test_a_wrapped_network_is_the_process(reading, schedule):
    exact, base = twins(reading, schedule)
    x = torch.randn(40, 2, generator=rng(1), dtype=torch.float64)
    assert base.lifts == exact.lifts and base.times == exact.times
    for k in range(base.steps):
        for mine, closed in (
            (base.base(x, k), exact.base(x, k)),
            (base.backward(x, k), exact.backward(x, k)),
        ):
            assert torch.allclose(mine.mean, closed.mean, atol=1e-9) and mine.std == closed.std
        if k:
            for name in ("velocity", "score", "denoise"):
                ours, theirs = (getattr(b, name)(x, k) for b in (base, exact))
                assert torch.allclose(ours, theirs, rtol=1e-8, atol=1e-8), (name, k)
    mixed = torch.arange(40) % base.steps
    assert torch.allclose(base.denoise(x, mixed)[9], base.denoise(x[9], 1), atol=1e-9)
    for k in (1, 4, 7):
        assert torch.allclose(
            base.denoise_rate(x, k), exact.denoise_rate(x, k), rtol=1e-3, atol=1e-3
        )
    for k, rtol, atol in ((0, 0.02, 0.02), (base.steps, 0.35, 0.15)):  # one-sided: rough at the end
        ours, theirs = base.denoise_rate(x, k), exact.denoise_rate(x, k)
        assert torch.allclose(ours, theirs, rtol=rtol, atol=atol), k
    at_end = torch.full((40,), base.steps)
    assert torch.allclose(base.denoise(x, at_end), x, atol=0.05)
    assert base.score(x, base.steps).isfinite().all()


@pytest.mark.parametrize("reading", [epsilon, score])
def test_a_model_of_the_noise_needs_a_signal_at_the_start(reading):
    with pytest.raises(ValueError, match="says nothing of X_1 at t = 0 of RectifiedFlow"):
        Pretrained(Net(), reading, 1.0, [(0.0, 1.0), (1.0, 0.3)])


def test_what_cannot_be_a_base_is_refused():
    doubt = [(0.0, 1.0), (1.0, 0.3)]
    with pytest.raises(ValueError, match="says nothing of X_1 at t = 0 of Foellmer"):
        Pretrained(Net(), velocity, 1.0, doubt, Foellmer())
    with pytest.raises(ValueError, match="measure it with `doubts`"):
        Pretrained(Net(), velocity, 1.0, [(0.0, 1.0), (0.5, 0.0), (1.0, 0.0)])
    for unordered in ([], [(0.0, 1.0)], [(1.0, 0.3), (0.0, 1.0)], [(0.0, 1.0), (0.5, 0.3)]):
        with pytest.raises(ValueError, match="doubt must be pairs .* from t = 0 to t = 1"):
            Pretrained(Net(), velocity, 1.0, unordered)
    with pytest.raises(ValueError, match="doubt holds values that are negative, infinite or NaN"):
        Pretrained(Net(), velocity, 1.0, [(0.0, math.nan), (1.0, 0.3)])
    for rms in (0.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"rms is {rms}; it must be positive"):
            Pretrained(Net(), velocity, rms, doubt)
    for steps in (0, 1.5):
        with pytest.raises(ValueError, match=f"steps is {steps}; it must be a whole number"):
            random_base(steps=steps)


def test_weights_are_exact_for_the_chain_of_any_network():
    base = random_base()
    problem = Problem(2, base, lambda x: 0.8 * x[..., 0] - 0.5 * x[..., 1])
    with torch.no_grad():
        free, bent = (
            weights_of(problem, simulate(base, model, (20_000, 2), rng(seed)))
            for model, seed in ((Uncontrolled(), 13), (Random(), 14))
        )
    error = math.sqrt(sum(float(w.exp().var()) / len(w) for w in (free, bent)))
    assert abs(float(bent.exp().mean() - free.exp().mean())) < 4 * error
    assert error < 0.1 * float(free.exp().mean())


def test_doubts_are_the_uncertainty_of_a_perfect_network():
    exact, base = twins(velocity, RectifiedFlow())
    x1 = exact.law.sample(10_000, rng(2))
    pairs = doubts(base.network, velocity, base.schedule, x1, rng(3), base.steps)
    for (_, tau), closed in zip(pairs[:-1], exact.uncertainty, strict=True):
        assert tau == pytest.approx(closed, rel=0.03)


def test_a_step_has_the_doubt_of_where_it_starts():
    """Interpolated between the times at which it is stated."""
    base = Pretrained(Net(), velocity, 1.0, [(0.0, 1.0), (0.5, 0.6), (1.0, 0.0)], steps=4)
    assert base.uncertainty == pytest.approx([1.0, 0.8, 0.6, 0.3])


def test_doubts_of_what_they_cannot_be_of():
    x1, flow = torch.randn(50, 2, generator=rng(1), dtype=torch.float64), RectifiedFlow()
    assert len(doubts(Net(), velocity, flow, x1, rng(2), 3)) == 4  # a float32 network
    with pytest.raises(ValueError, match="50 samples x1 have no spread"):
        doubts(Net(), velocity, flow, torch.ones(50, 2), rng(2), 3)
    for wrong, sentence in (
        (lambda x, t: x / 0, "not finite at t = 0"),
        (lambda x, t: x[..., :1], r"maps \(50, 2\) to \(50, 1\): it must"),
    ):
        network = nn.Module()
        network.forward = wrong
        with pytest.raises(ValueError, match=sentence):
            doubts(network, velocity, flow, x1, rng(2), 3)


def test_a_base_is_in_evaluation_mode():
    """Dropout left on would make another base of every call."""
    network = nn.Sequential(Net(), nn.Dropout())
    network.forward = lambda x, t: network[1](network[0](x, t))
    x = torch.randn(5, 2, generator=rng(1))
    alone, whole = (
        doubts(one.train(), velocity, RectifiedFlow(), x, rng(2), 20)
        for one in (network, network[0])
    )
    assert alone == whole
    base = Pretrained(network.train(), velocity, 1.0, [(0.0, 1.0), (1.0, 0.3)], steps=4)
    assert torch.equal(base.denoise(x, 2), base.denoise(x, 2))
    assert torch.equal(base.denoise(x, 2), replace(base, network=network[0]).denoise(x, 2))


# memory, and other noises

LINE = {"weights": (1.0,), "means": ((1.0,),), "variances": (0.25,)}


@wrapped
def test_the_end_forgets_the_start(reading, schedule):
    """Of a Gaussian every step is affine: corr(X_0, X_1) is a product of slopes, alpha_0 s / std_0
    at any number of steps for the memoryless noise, and nearly 1 for the ODE."""
    for steps in (2, 4, 8):
        _, base = twins(reading, schedule, steps, LINE)
        x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
        slope = math.prod(float(base.base(x, k).mean.diff(dim=0)) for k in range(steps))
        correlation = slope * base.start_std / 0.5
        assert correlation == pytest.approx(base.signals[0] * 0.5 / base.start_std, abs=2e-5)
    start = base.start((100, 1), rng(4), torch.float64)
    end = by_ode(base, Uncontrolled(), (100, 1), rng(4), torch.float64).x
    assert torch.corrcoef(torch.cat([start, end], 1).T)[0, 1] > 0.999


def order(counts, errors):
    x, y = (torch.tensor(v, dtype=torch.float64).log() for v in (counts, errors))
    return float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())


class Moved:
    """The tilt of N(1, .25) by r = .8 x: N(1.2, .25)."""

    @staticmethod
    def noised_score(x, signal, noise):
        return (signal[..., None] * 1.2 - x) / (signal**2 * 0.25 + noise**2)[..., None]


@wrapped
def test_ode_and_sde_end_in_one_law(reading, schedule):
    """By DDIM the optimum, learnt as the control of the memoryless chain, ends in the tilt too:
    mean and variance to order 1 / steps."""
    counts, means, variances = [20, 40, 80], [], []
    for steps in counts:
        _, base = twins(reading, schedule, steps, LINE)
        best = Optimal(base, Moved.noised_score)
        start = base.start((50, 1), rng(4), torch.float64)
        end = by_ode(base, best, (50, 1), rng(4), torch.float64)
        assert end.log_w is None
        slope = float((end.x - end.x.mean()).norm() / (start - start.mean()).norm())
        remainder = slope * base.signals[0] * 1.2  # X_0 has mean 0 in the place of alpha_0 1.2
        means.append(abs(float(end.x.mean() - slope * start.mean()) + remainder - 1.2))
        variances.append(abs((slope * base.start_std) ** 2 - 0.25))
    assert order(counts, variances) == pytest.approx(-1, abs=0.15)
    assert max(means) < 1e-4


@pytest.mark.parametrize("stepping", [Regularised(h=0.1), Constant()], ids=lambda s: s.name)
def test_other_noises_keep_their_weights(stepping):
    world = Tilted(steps=8)
    problem = world.problem()
    free, bent = (
        by_noise(problem, model, stepping, 20_000, rng(seed)).log_w
        for model, seed in ((Uncontrolled(), 6), (Random(), 7))
    )
    error = math.sqrt(sum(float(w.exp().var()) / len(w) for w in (free, bent)))
    assert abs(float(bent.exp().mean() - free.exp().mean())) < 4 * error


def test_the_optimum_under_another_noise_ends_in_the_target():
    """Constant noise is not memoryless: no training with it could get there, redrawing does."""
    world = Tilted(steps=100)
    mean = world.law.weight @ world.law.mean
    draws = by_noise(world.problem(), world.optimal, Constant(), 2_000, rng(8))
    for i in range(2):
        assert abs(z_score(draws.x[:, i].double(), float(mean[i]))) < 4
    assert abs(float(draws.log_w.exp().mean().log()) - world.log_Z) < 0.1
    with pytest.raises(Unsupported, match="along an interpolant"):
        by_noise(Problem(2, Stationary(), lambda x: x[..., 0]), world.optimal, Constant(), 5, rng())


# adapters


def test_an_adapter_starts_at_nothing_and_leaves_the_base_alone():
    base = random_base()
    before = copy.deepcopy(base.network.state_dict())
    problem = Problem(2, base, lambda x: 0.8 * x[..., 0] - 0.5 * x[..., 1])
    sampler = Diffusion(adjoint_matching, model=Adapter(), paths=64)
    budget = Cost(64 * 5, 64 * 5)
    state = sampler.init(problem, budget, rng(9))
    x, t = torch.randn(6, 2, generator=rng(1)), torch.tensor([0.0, 0.25, 0.5, 0.75, 0.5, 0.0])
    assert not state.model.control(x, t).any()
    first = sampler.draw(problem, state, 500, rng(10)).log_w.mean()
    for _ in range(5):
        state = sampler.step(problem, state, rng(11))
    assert state.model.control(x, t).any()
    assert sampler.draw(problem, state, 500, rng(10)).log_w.mean() > first + 0.05
    assert all(torch.equal(before[key], value) for key, value in base.network.state_dict().items())
    trained = {id(p) for group in state.optimizer.param_groups for p in group["params"]}
    assert not trained & {id(p) for p in base.network.parameters()}
    assert copy.deepcopy(state.model).network.base is base
    assert not any(p.requires_grad for p in base.network.parameters())
    fine = random_base(steps=50)
    state.model.network.base = fine
    grid = fine.grid(x)[:-1]
    on_grid = state.model.on_grid(grid)
    for k in range(50):  # the step that a time is of, whichever way it was rounded
        at = state.model.control(x, grid[k].expand(6))
        assert torch.allclose(at, on_grid(x, k, None), atol=1e-5)
    with pytest.raises(Unsupported, match="no network to adapt"):
        Adapter().build(2, Brownian(), rng())


@wrapped
def test_an_adapter_s_control_is_the_continuous_one_at_fine_steps(reading, schedule):
    """u -> sqrt(2 / eta) (v_theta - v), and the controlled chain is the fine-tuned model's own."""
    errors = []
    for steps in (20, 40):
        exact, base = twins(reading, schedule, steps)
        model = Adapter().build(2, base, rng())
        other = replace(base, network=Exact(Tilted(exact).law, reading, schedule))
        model.network.tuned = other.network
        x = torch.randn(30, 2, generator=rng(1), dtype=torch.float64)
        k = steps // 2
        at = levels(schedule, base.times[k])
        eta = at.noise * (at.signal_rate / at.signal * at.noise - at.noise_rate)
        u = model.on_grid(base.grid(x)[:-1])(x, k, None)
        expected = math.sqrt(2 / eta) * (other.velocity(x, k) - base.velocity(x, k))
        errors.append(float((u - expected).norm() / expected.norm()))
        pushed = base.base(x, k).mean + base.stds[k] / math.sqrt(steps) * u
        assert torch.allclose(pushed, other.base(x, k).mean, atol=1e-9)
    assert errors[1] < 0.6 * errors[0] < 0.3
