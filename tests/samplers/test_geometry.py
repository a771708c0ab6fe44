"""Processes, networks and samplers of particles whose centre of mass is removed.

The toy is a scale mixture of isotropic Gaussians on {sum_i x_i = 0}, of closed form; in an
orthonormal basis Q of that subspace, x = Q y, everything is a free process of rank coordinates.
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch

from tests.samplers.test_classical import by_group
from tests.tools.worlds import narrow, rng, weights_of, z_score
from tiltbench.plan.spec import build_sampler, parse
from tiltbench.run.meter import BudgetExceeded, Meter
from tiltbench.samplers.diffusion import Diffusion
from tiltbench.samplers.networks.perceptron import Corrected
from tiltbench.samplers.networks.valued import Valued
from tiltbench.samplers.recipes.escorted import Escorted, Transported
from tiltbench.samplers.registry import NETWORKS, SAMPLERS
from tiltbench.samplers.sampler import TrainingFree, Unsupported
from tiltbench.targets.bases.confined import Confined
from tiltbench.targets.bases.process import Controlled, Process, retrace, simulate
from tiltbench.targets.bases.references import Stationary
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import pose
from tiltbench.targets.registry import REFERENCES
from tiltbench.targets.target import Density, Tilt, Truth

STEPS = 4
N = 40_000


@dataclass(frozen=True)
class Toy(Density):
    """rho = sum_j w_j exp(-|P x|^2 / (2 s_j^2)), 3 particles in the plane: rank 4 of 6.

    Z = sum_j w_j (2 pi s_j^2)^2 and E|X|^2 = sum_j w_j (2 pi s_j^2)^2 4 s_j^2 / Z."""

    name: ClassVar[str] = "toy"
    dim: ClassVar[int] = 6
    particles: ClassVar[tuple[int, int]] = (3, 2)
    scale: ClassVar[float] = 0.9
    weight: ClassVar = torch.tensor([3.0, 0.5], dtype=torch.float64)
    sd: ClassVar = torch.tensor([0.5, 1.0], dtype=torch.float64)
    share: ClassVar = weight * (2 * math.pi * sd**2) ** 2
    log_Z: ClassVar[float] = math.log(share.sum())
    square: ClassVar[float] = float(share @ (4 * sd**2) / share.sum())

    def log_rho(self, x):
        square = self.project(x).square().sum(-1, keepdim=True)
        return (self.weight.to(x).log() - square / (2 * self.sd.to(x) ** 2)).logsumexp(-1)

    def sample(self, n, generator):
        j = torch.multinomial(self.share, n, True, generator=generator)
        xi = torch.randn(n, self.dim, generator=generator, dtype=torch.float64)
        return self.project(self.sd[j, None] * xi)

    def truth(self):
        return Truth("closed form", self.log_Z, sample=self.sample)


TOY = Toy()
FREE = [REFERENCES.load(name)(steps=STEPS, scale=1.3) for name in REFERENCES.entries]
PAIRS = [(free, Confined(free, TOY)) for free in FREE]
bases = pytest.mark.parametrize("base", [base for _, base in PAIRS], ids=[repr(f) for f in FREE])
pairs = pytest.mark.parametrize(("free", "base"), PAIRS, ids=[repr(f) for f in FREE])

EVEN = torch.eye(2, dtype=torch.float64).repeat(3, 1) / math.sqrt(3)  # (6, 2): all move alike
Q = torch.linalg.qr(torch.cat([EVEN, torch.eye(6, dtype=torch.float64)[:, :4]], 1)).Q[:, 2:]
P = Q @ Q.T  # (6, 6): the projection


def off_centre(x):
    """The largest |sum of the particles| of any configuration."""
    return float(x.detach().unflatten(-1, (3, 2)).sum(-2).abs().max())


def has_covariance(values, other, expected):
    """E[values other^T] = expected (6, 6), entry by entry."""
    product = values[:, :, None] * other[:, None]
    error = product.std(0) / math.sqrt(len(product))
    gap = (product.mean(0) - expected).abs()
    assert (gap < 4.5 * error + 1e-12).all()


class Random(Controlled):
    """A smooth control on the subspace that has nothing to do with the problem."""

    def control(self, x, t, hint=None):
        return TOY.project(torch.sin(2 * x.flip(-1) + 3 * t[..., None]) - 0.3 * x)


# processes


def test_the_basis_and_the_projection():
    assert torch.allclose(Q.T @ Q, torch.eye(4, dtype=torch.float64), atol=1e-12)
    assert off_centre(Q.T) < 1e-12
    assert torch.allclose(TOY.project(torch.eye(6, dtype=torch.float64)), P, atol=1e-12)
    assert (TOY.rank, PAIRS[0][1].removed) == (4, 2)


@bases
def test_weights_are_exact_at_four_steps_for_a_random_control(base):
    problem = pose(TOY, base.free)
    assert problem.base == base.widened(TOY.scale)
    path = simulate(problem.base, Random(), (N, 6), rng(1), dtype=torch.float64)
    w = weights_of(problem, path).exp()
    assert abs(z_score(w, math.exp(TOY.log_Z))) < 4
    assert abs(math.log(w.mean()) - TOY.log_Z) < 0.1  # the z-score has power
    square = path.x[-1].square().sum(-1)
    assert abs(z_score(w * (square - TOY.square), 0.0)) < 4


@bases
def test_reverse_weights_are_exact_at_four_steps(base):
    problem = pose(TOY, base.free)
    path = retrace(problem.base, Random(), TOY.sample(N, rng(2)), rng(3))
    w = (-weights_of(problem, path)).exp()
    assert abs(z_score(w, math.exp(-TOY.log_Z))) < 4
    assert abs(math.log(w.mean()) + TOY.log_Z) < 0.15
    assert off_centre(path.x) < 1e-10


@bases
def test_nothing_moves_the_centre_of_mass(base):
    k = torch.arange(100) % STEPS
    x0, x1 = base.start((100, 6), rng(0), torch.float32), base.end((100, 6), rng(1))
    path = simulate(base, Random(), (100, 6), rng(2))
    draws = [x0, x1, path.x, path.u, base.normal((100, 6), rng(3), torch.float32)]
    draws += [base.bridge(x0, x1, k, rng(4)), base.renoise(x1, k, rng(5))]
    draws += [base.posterior(x1, k, rng(6))]
    assert max(off_centre(x) for x in draws) < 1e-5
    assert max(float(x.abs().max()) for x in draws[1:]) > 0.5


@bases
def test_the_reward_pulls_within_the_subspace(base):
    x = torch.randn(50, 6, generator=rng(0), dtype=torch.float64).requires_grad_()
    problem = pose(TOY, base.free)
    r = problem.reward(x)
    (g,) = torch.autograd.grad(r.sum(), x)
    assert off_centre(g) < 1e-12 < g.abs().min()
    moved = x.detach() + torch.randn(50, 2, generator=rng(1), dtype=torch.float64) @ EVEN.T
    assert torch.allclose(problem.reward(moved), r)


@pairs
def test_in_a_basis_of_the_subspace_it_is_the_free_process_of_its_rank(free, base):
    """Densities, kernels and fields, all linear or quadratic: one batch of points decides."""
    y = torch.randn(STEPS + 1, 20, 4, generator=rng(0), dtype=torch.float64)
    x = y @ Q.T
    assert torch.allclose(base.log_end(x), free.log_end(y))
    covariance = free.spread**2 * torch.eye(4, dtype=torch.float64)
    normal = torch.distributions.MultivariateNormal(torch.zeros(4).double(), covariance)
    assert torch.allclose(base.log_end(x), normal.log_prob(y))
    for k in range(STEPS):
        for name in ("base", "backward"):
            mean, std = getattr(free, name)(y[k], k)
            assert torch.allclose(getattr(base, name)(x[k], k).mean, mean @ Q.T)
            assert getattr(base, name)(x[k], k).std == std
        for name in ("score", "denoise", "velocity"):
            assert torch.allclose(getattr(base, name)(x[k], k), getattr(free, name)(y[k], k) @ Q.T)
    zero, dt = torch.zeros_like(y), base.grid(y).diff()
    if base.start_var:  # a point has no density
        change = base.log_change(x, zero @ Q.T, zero @ Q.T, zero @ Q.T, dt, dt)
        assert torch.allclose(change, free.log_change(y, zero, zero, zero, dt, dt))


@bases
def test_conditional_draws_have_their_covariances(base):
    """Bridge, noised and end points against paths of the base: P times those of one coordinate."""
    n = 20_000
    path = simulate(base, _Still(), (n, 6), rng(7), dtype=torch.float64)
    for k in (1, STEPS - 1):
        here = torch.full((n,), k)
        gain, _ = base.between(base.times[k], 1.0)
        ahead = base.variance(base.times[k]) * P
        between = base.bridge(path.x[0], path.x[-1], here, rng(8))
        noised = base.renoise(path.x[-1], here, rng(9))
        ends = base.posterior(path.x[k], here, rng(10))
        for x in (path.x[k], between, noised):
            has_covariance(x, x, ahead)
            has_covariance(x, path.x[-1], gain * ahead)
        has_covariance(ends, ends, base.spread**2 * P)
        has_covariance(ends, path.x[k], gain * ahead)


class _Still(Controlled):
    def control(self, x, t, hint=None):
        return torch.zeros_like(x)


@dataclass(frozen=True)
class Stated(Density):
    """A Gaussian with a geometry as stated."""

    name: ClassVar[str] = "stated"
    dim: ClassVar[int] = 6
    particles: tuple[int, int] | None = None
    lattice: tuple[int, ...] | None = None

    def log_rho(self, x):
        return -self.project(x).square().sum(-1) / 2

    def truth(self):
        return Truth("unknown")


@dataclass(frozen=True)
class Tilted(Tilt):
    """The reward of `Toy` on a base of one's own."""

    name: ClassVar[str] = "tilted"
    dim: ClassVar[int] = 6
    base: Process
    particles: tuple[int, int] | None = (3, 2)

    def reward(self, x):
        return -x.square().sum(-1)

    def truth(self):
        return Truth("unknown")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (Stated(particles=(3, 3)), r"3 particles in 3 .* not the 6 .* stated: state .* n d = dim"),
        (Stated(lattice=(2, 4)), r"lattice of \(2, 4\) has not the 6 sites of stated: state"),
        (Tilted(FREE[0]), r"tilted has 4 free dimensions, its base 6: .* `particles` out"),
        (Tilted(PAIRS[0][1], None), r"tilted has 6 free dimensions, its base 4"),
    ],
    ids=["particles", "lattice", "tilt", "base"],
)
def test_a_geometry_that_does_not_fit_is_not_posed(target, message):
    with pytest.raises(ValueError, match=message):
        pose(target, FREE[0])


def test_the_base_carries_the_geometry():
    assert pose(Stated(), FREE[0]).base == FREE[0]
    problem = pose(Stated(lattice=(2, 3)), Stationary())
    assert Escorted().process(problem, problem.reward).lattice == (2, 3)
    field = pose(Stated(lattice=(2, 3)), FREE[0]).base
    assert (field.lattice, field.removed, field.spread) == ((2, 3), 0, FREE[0].spread)
    x = field.normal((5, 6), rng(0), torch.float64)
    assert torch.equal(x, FREE[0].normal((5, 6), rng(0), torch.float64))
    assert pose(TOY, FREE[0]).base.lattice is None
    assert pose(Tilted(FREE[0], None), FREE[1]).base == FREE[0]


def test_a_tilt_of_particles_pulls_within_the_subspace():
    x = torch.randn(50, 6, generator=rng(0), dtype=torch.float64).requires_grad_()
    r = pose(Tilted(PAIRS[0][1]), FREE[0]).reward(x)
    (g,) = torch.autograd.grad(r.sum(), x)
    assert off_centre(g) < 1e-12 < g.abs().min()


# networks


def built(name, base):
    """A network of that name away from its start; skips those that are not for particles."""
    network = narrow(NETWORKS.load(name)())
    try:
        model = network.build(6, base, rng())
    except Unsupported as reason:
        pytest.skip(str(reason))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=rng(1), dtype=p.dtype))
    return network, model.double()


@pytest.mark.parametrize("name", NETWORKS.entries)
def test_controls_lie_in_the_subspace(name):
    base = PAIRS[0][1]
    network, model = built(name, base)
    x = base.end((20, 6), rng(2), torch.float64)
    t = torch.rand(20, generator=rng(3), dtype=torch.float64)
    hint = torch.randn(20, 6, generator=rng(4), dtype=torch.float64)
    hint = hint if model.guided else None
    k = torch.arange(20) % STEPS
    grid = base.grid(x)
    u, stepped = model.control(x, t, hint), model.on_grid(grid)(x, k, hint)
    assert torch.allclose(stepped, model.control(x, grid[k], hint))
    controls = [u, stepped] + ([model.corrector(x)] if isinstance(network, Corrected) else [])
    controls = [v.detach() for v in controls]
    assert max(off_centre(v) for v in controls) < 1e-10
    assert min(float(v.abs().max()) for v in controls) > 1e-3
    if not model.guided:
        again, each = model.stretched(x, t, torch.eye(6, dtype=torch.float64))
        y = torch.zeros(20, 4, dtype=torch.float64, requires_grad=True)  # along the subspace
        v = model.control(x + y @ Q.T, t) @ Q
        slopes = [torch.autograd.grad(v[:, i].sum(), y, retain_graph=True)[0] for i in range(4)]
        assert torch.allclose(again, u)
        assert torch.allclose(each.sum(-1), sum(g[:, i] for i, g in enumerate(slopes)))


# samplers


def cheap(name):
    """The sampler of that name, with few small steps where it trains."""
    sampler = build_sampler(parse(name))
    if not isinstance(sampler, Diffusion):
        if isinstance(sampler, TrainingFree):  # weights of many steps have tails
            return replace(sampler, reference=replace(sampler.reference, steps=4))
        if hasattr(sampler, "islands"):
            return replace(sampler, islands=2, particles_per_beta=40.0)
        if hasattr(sampler, "ladders"):  # many at once: points cost little, rounds do
            sampler = replace(sampler, ladders=110)
        return replace(sampler, leaps=2) if hasattr(sampler, "leaps") else sampler
    small = {"width": 16}
    if isinstance(sampler.model, Corrected | Valued):
        small["control"] = replace(sampler.model.control, width=16)
    model = replace(sampler.model, **small)
    steps = 16 if isinstance(sampler.recipe, Transported) else 8  # weights exact as dt -> 0
    reference = replace(sampler.reference, steps=steps)
    return replace(sampler, reference=reference, model=model, paths=32, batches=4)


def outcome(sampler, points, n, seed=0):
    """Draws after a run as the harness makes it, posed on the toy."""
    meter = Meter(Cost(points, points))
    problem, generator = pose(TOY, sampler.reference, meter.watch), rng(seed)
    state = sampler.init(problem, Cost(points, points), generator)
    try:
        while not sampler.done(state):
            state = sampler.step(problem, state, generator)
    except BudgetExceeded:
        pass
    free = pose(TOY, sampler.reference)
    return free, state, sampler.draw(free, state, n, rng(seed + 1000))


SAMPLED = {name: cheap(name) for name in SAMPLERS.entries}
LEARNERS = [name for name, plugin in SAMPLED.items() if isinstance(plugin, Diffusion)]
CLASSICAL = [n for n, plugin in SAMPLED.items() if n not in LEARNERS and plugin.consistent]


@pytest.mark.parametrize("name", LEARNERS)
def test_learners_weigh_and_draw_on_the_subspace(name):
    """E[exp log_w] = Z and the second moment, however little was learned, both ways."""
    sampler = SAMPLED[name]
    problem, state, draws = outcome(sampler, 10**6, 3_000)
    assert off_centre(draws.x) < 1e-4
    w = (draws.log_w - TOY.log_Z).exp()
    assert abs(z_score(w, 1.0)) < 4
    assert abs(z_score(w * (draws.x.double().square().sum(-1) - TOY.square), 0.0)) < 4
    assert 0.01 < w.std() < 10  # the z-scores have power
    assert any(p.abs().max() > 0 for p in state.model.parameters())
    traced = sampler.reverse(problem, state, TOY.sample(2_000, rng(3)), rng(4))
    if traced is None:  # resampled: nothing is traced back
        return
    assert off_centre(traced.x) < 1e-4
    assert abs(z_score((TOY.log_Z - traced.log_w).exp(), 1.0)) < 4


@pytest.mark.parametrize("name", CLASSICAL)
def test_classical_samplers_weigh_and_draw_on_the_subspace(name):
    gaps = []
    points = 100_000 if hasattr(SAMPLED[name], "ladders") else 2_000
    for seed in range(8):
        _, _, draws = outcome(SAMPLED[name], points, 1_000, seed)
        assert off_centre(draws.x) < 1e-4
        gap = (draws.x.double().square().sum(-1) - TOY.square)[:, None]
        if draws.log_w is None:  # chains and ladders are independent
            gaps.append(by_group(draws, gap))
            if sum(map(len, gaps)) >= 100:
                break
            continue
        w = (draws.log_w - TOY.log_Z).exp()[:, None]
        gaps.append(torch.cat([(w * gap).mean(0), w.mean(0) - 1])[None])
    for values in torch.cat(gaps).T:
        assert abs(z_score(values, 0.0)) < 4
        assert values.std() / math.sqrt(len(values)) < 0.2  # the z-scores have power
