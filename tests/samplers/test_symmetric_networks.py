"""The networks that respect a symmetry of their target: particles, and fields on a lattice."""

import copy
import itertools
import math
from dataclasses import replace

import pytest
import torch

from tests.tools.worlds import Cloud, Field, Labelled, rng
from tiltbench.samplers.networks.atomic import Atomic, AtomicGuided, kinds
from tiltbench.samplers.networks.convolutional import PART, Convolutional, ConvolutionalGuided
from tiltbench.samplers.networks.equivariant import TOUCH, Equivariant, EquivariantGuided
from tiltbench.samplers.networks.perceptron import Mlp
from tiltbench.samplers.networks.timed import MOST
from tiltbench.samplers.sampler import Unsupported
from tiltbench.targets.bases.confined import Confined
from tiltbench.targets.bases.references import Brownian
from tiltbench.targets.target import centred

STEPS = 6
SHAKE = 0.06  # of the parameters


def cloud(n, d):
    return Confined(Brownian(steps=STEPS, scale=2.0), Cloud(n, d))


def torus(*sides):
    return Confined(Brownian(steps=STEPS, scale=1.5), Field(sides))


PARTICLES = [Equivariant(width=16), EquivariantGuided(width=16, rounds=1)]


def labelled(n, d, alike, chiral):
    return Confined(Brownian(steps=STEPS, scale=2.0), Labelled(n, d, alike, chiral))


ATOMS = [Atomic(width=16), AtomicGuided(width=12, rounds=2)]
FIELDS = [Convolutional(width=6), ConvolutionalGuided(width=6, layers=2)]
CASES = {
    "4 in 2-D": (PARTICLES[0], cloud(4, 2), 8),
    "5 in 3-D, guided": (PARTICLES[1], cloud(5, 3), 15),
    "7 on a line": (PARTICLES[0], cloud(7, 1), 7),
    "5 in 3-D, angles": (Equivariant(width=16, rounds=3, vectors=4), cloud(5, 3), 15),
    "5 in 2-D, angles": (EquivariantGuided(width=16, vectors=3), cloud(5, 2), 10),
    "6 atoms": (ATOMS[0], labelled(6, 3, ((1, 3, 4),), True), 18),
    "5 atoms, guided": (ATOMS[1], labelled(5, 3, (), True), 15),
    "6 atoms, angles": (
        Atomic(width=12, rounds=2, vectors=2),
        labelled(6, 3, ((1, 3, 4),), True),
        18,
    ),
    "5 flat atoms": (ATOMS[0], labelled(5, 2, ((0, 4), (1, 2)), False), 10),
    "8 x 8": (FIELDS[0], torus(8, 8), 64),
    "4 x 4, guided": (FIELDS[1], torus(4, 4), 16),
    "2 x 8": (FIELDS[0], torus(2, 8), 16),
    "ring of 12": (FIELDS[0], torus(12), 12),
}
cases = pytest.mark.parametrize("case", CASES)
clouds = pytest.mark.parametrize("case", list(CASES)[:5])
molecules = pytest.mark.parametrize("case", list(CASES)[5:9])
lattices = pytest.mark.parametrize("case", list(CASES)[9:])
dtypes = pytest.mark.parametrize(
    ("dtype", "within"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=str
)


def awake_network(case, dtype=torch.float32):
    """A network away from its start, with controls of order 1."""
    network, base, dim = CASES[case]
    model = network.build(dim, base, rng())
    with torch.no_grad():
        for p in model.parameters():
            p.add_(SHAKE * torch.randn(p.shape, generator=rng(1), dtype=p.dtype))
    return model.to(dtype)


def inputs(case, dtype=torch.float32, n=9):
    """(x, t, hint)."""
    _, base, dim = CASES[case]
    x = base.normal((n, dim), rng(2), dtype) * base.spread
    return x, torch.rand(n, generator=rng(3), dtype=dtype), base.normal((n, dim), rng(4), dtype)


def rotation(d, seed, dtype):
    """Of either determinant."""
    q, _ = torch.linalg.qr(torch.randn(d, d, generator=rng(seed), dtype=torch.float64))
    q[:, 0] *= torch.det(q) * (-1) ** seed
    return q.to(dtype)


def agree(u, v, within):
    size = float(u.detach().abs().max())
    assert 0.3 < size < 8
    assert float((u - v).detach().abs().max()) < within


@clouds
@dtypes
@pytest.mark.parametrize("seed", [0, 1], ids=["rotation", "reflection"])
def test_particles_turned_shifted_and_renamed(case, dtype, within, seed):
    """u(R x + a) = R u(x), and the same for particles renamed, in every configuration anew."""
    model, (x, t, hint) = awake_network(case, dtype), inputs(case, dtype)
    n, d = CASES[case][1].target.particles
    q = rotation(d, seed, dtype)
    order = torch.rand(len(x), n, generator=rng(5)).argsort(-1)[..., None].expand(-1, -1, d)
    shift = torch.randn(len(x), 1, d, generator=rng(6), dtype=dtype)

    def moved(v):
        return (v.unflatten(-1, (n, d)) @ q).gather(1, order)

    u = moved(model.control(x, t, hint)).flatten(-2)
    v = model.control((moved(x) + shift).flatten(-2), t, moved(hint).flatten(-2))
    agree(u, v, within)


@molecules
@dtypes
def test_molecules_turned_shifted_and_renamed(case, dtype, within):
    """As above under rotations and permutations of like atoms; other permutations, and reflections
    where the target tells mirror images apart, change the control."""
    model, (x, t, hint) = awake_network(case, dtype), inputs(case, dtype)
    target = CASES[case][1].target
    n, d = target.particles
    order = torch.arange(n).repeat(len(x), 1)
    for group in target.alike:
        places = torch.tensor(group)
        order[:, places] = places[torch.rand(len(x), len(group), generator=rng(5)).argsort(-1)]
    shift = torch.randn(len(x), 1, d, generator=rng(6), dtype=dtype)

    def moved(v, q, order):
        return (v.unflatten(-1, (n, d)) @ q).gather(1, order[..., None].expand(-1, -1, d))

    def both(q, order):
        u = moved(model.control(x, t, hint), q, order).flatten(-2)
        y, h = moved(x, q, order) + shift, moved(hint, q, order)
        return u.detach(), model.control(y.flatten(-2), t, h.flatten(-2)).detach()

    agree(*both(rotation(d, 0, dtype), order), 2 * within)
    u, v = both(rotation(d, 1, dtype), order)
    assert bool((u - v).abs().max() > 1e-3) == target.chiral
    u, v = both(rotation(d, 0, dtype), torch.arange(n).roll(1).repeat(len(x), 1))
    assert (u - v).abs().max() > 1e-3


def test_kinds_of_atoms():
    assert kinds(6, ((1, 3, 4),)).tolist() == [0, 1, 2, 1, 1, 3]
    assert kinds(3, None).tolist() == kinds(3, ()).tolist() == [0, 1, 2]


@pytest.mark.parametrize("case", list(CASES)[:9])
def test_controls_leave_the_centre_of_mass_where_it_is(case):
    model, (x, t, hint) = awake_network(case), inputs(case)
    n, d = CASES[case][1].target.particles
    hint = hint + 1.0  # a gradient with a mean force, too
    u = model.control(x, t, hint)
    assert u.abs().max() > 0.3
    assert u.unflatten(-1, (n, d)).sum(-2).abs().max() < 1e-5


@lattices
@dtypes
def test_fields_shifted_and_turned_over(case, dtype, within):
    model, (x, t, hint) = awake_network(case, dtype), inputs(case, dtype)
    sides = CASES[case][1].lattice
    u = model.control(x, t, hint)
    for by in [(1,), (3,)] if len(sides) == 1 else [(1, 0), (0, 1), (3, 2)]:

        def rolled(v, by=by):
            axes = tuple(range(1, 1 + len(by)))
            return v.reshape(-1, *sides).roll(by, axes).flatten(1)

        agree(rolled(u), model.control(rolled(x), t, rolled(hint)), within)
    agree(u, -model.control(-x, t, -hint), within)


def test_every_site_hears_of_every_other():
    """At L = 16, and not by way of the means over sites alone."""
    model = Convolutional(width=4).build(256, torus(16, 16), rng())
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=rng(1), dtype=p.dtype))
        for far in model.network.field.far:
            far.weight.zero_()
    x = torch.randn(256, generator=rng(2)).requires_grad_()
    (heard,) = torch.autograd.grad(model.control(x, torch.tensor(0.5))[0], x)
    assert (heard != 0).all()


@lattices
def test_many_lattices_are_taken_in_parts(case):
    """Points with times of their own and one for all: each is what it is alone."""
    model = awake_network(case, torch.float64)
    x, t, hint = inputs(case, torch.float64, 2 * PART + 3)
    for time in (t, t[0]):
        whole = model.control(x, time, hint if model.guided else None)
        for i in (0, PART - 1, PART, 2 * PART + 2):
            time_alone = time[i : i + 1] if time.dim() else time
            one = model.control(x[i : i + 1], time_alone, hint[i : i + 1] if model.guided else None)
            torch.testing.assert_close(whole[i : i + 1], one, rtol=1e-10, atol=1e-10)


def test_a_uniform_shift_is_told_from_its_mean():
    """With one dead convolution the means alone still carry the magnetisation."""
    model = Convolutional(width=4).build(256, torus(16, 16), rng())
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=rng(1), dtype=p.dtype))
        for near in model.network.field.near:
            near.inner.weight.zero_()
    x = torch.randn(256, generator=rng(2)).requires_grad_()
    (heard,) = torch.autograd.grad(model.control(x, torch.tensor(0.5))[0], x)
    assert (heard != 0).all()


@cases
def test_controls_start_at_zero_and_share_times(case):
    network, base, dim = CASES[case]
    x, _, hint = inputs(case, n=5)
    t = torch.linspace(0, 1, STEPS)
    fresh, same = network.build(dim, base, rng()), network.build(dim, base, rng())
    for p, q in zip(fresh.parameters(), same.parameters(), strict=True):
        assert torch.equal(p, q)  # drawn from the generator alone
    assert torch.equal(fresh.control(x, t[:5], hint), torch.zeros_like(x))
    model = awake_network(case)
    stepper = model.on_grid(t)
    k = torch.tensor([4, 0, 4, 2, 5])
    whole = model.control(x, t[k], hint)
    assert torch.allclose(stepper(x, k, hint), whole, atol=1e-5)
    for i, step in enumerate(k.tolist()):
        assert torch.allclose(stepper(x[i], step, hint[i]), whole[i], atol=1e-5)
        assert torch.allclose(model.control(x[i], t[step], hint[i]), whole[i], atol=1e-5)
    path = torch.stack([x, 0.5 * x, -x])  # a batch of two axes with one time a row
    dense = torch.stack([model.control(path[j], t[j], hint) for j in range(3)])
    hints = hint.expand(3, *hint.shape)
    assert torch.allclose(model.control(path, t[:3, None], hints), dense, atol=1e-5)


@cases
def test_points_are_counted_and_state_is_whole(case):
    model, (x, t, hint) = awake_network(case), inputs(case)
    with torch.no_grad():
        u = model.control(x, t, hint)
    assert (model.forward_points, model.backward_points) == (9, 0)
    twin = copy.deepcopy(model)
    assert torch.equal(twin.control(x, t, hint), u)
    assert (model.forward_points, twin.forward_points, twin.backward_points) == (9, 18, 9)
    network, base, dim = CASES[case]
    other = network.build(dim, base, rng(9))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.control(x, t, hint), u)


@cases
def test_gradients_reach_every_parameter_of_the_control(case):
    model, (x, t, hint) = awake_network(case), inputs(case)
    model.control(x, t, hint).square().sum().backward()
    of_time = [id(p) for p in model.free_energy_parameters()]
    for name, p in model.named_parameters():
        if id(p) not in of_time:
            assert p.grad is not None and bool((p.grad != 0).any()), name


@pytest.mark.parametrize("case", ["4 in 2-D", "8 x 8"])
def test_divergence_by_products_is_that_of_the_control(case):
    model, (x, t, _) = awake_network(case, torch.float64), inputs(case, torch.float64, n=1)
    dim = x.shape[-1]
    u, each = model.stretched(x, t, torch.eye(dim, dtype=torch.float64))
    jacobian = torch.autograd.functional.jacobian(lambda y: model.control(y, t), x)[0, :, 0]
    assert torch.allclose(u, model.control(x, t))
    assert torch.allclose(each[0], jacobian.diagonal(), atol=1e-8)


@pytest.mark.parametrize("case", ["4 in 2-D", "5 in 3-D, angles"])
def test_controls_are_bounded_and_smooth_where_particles_meet(case):
    model = awake_network(case)
    with torch.no_grad():
        model.network.field.time[-1].weight.mul_(1e4)
    x, t, _ = inputs(case)
    u = model.control(x, t).unflatten(-1, CASES[case][1].target.particles)
    assert 0.5 * MOST < u.norm(dim=-1).max() < 2 * MOST
    x = torch.zeros(3, x.shape[-1], requires_grad=True)
    u = model.control(x, torch.tensor(0.7))
    (slope,) = torch.autograd.grad(u.sum(), x)
    assert bool(u.isfinite().all()) and bool(slope.isfinite().all())


@clouds
def test_controls_far_away_are_those_of_the_greatest_length(case):
    """Beyond all distances that are told apart |u| nears MOST: nothing overflows."""
    model, (x, t, hint) = awake_network(case), inputs(case)
    u = model.control(1e5 * x, t, hint).unflatten(-1, CASES[case][1].target.particles)
    assert 0.5 * MOST < u.norm(dim=-1).max() < 2 * MOST


def test_features_are_gaussians_and_never_subnormal():
    field = awake_network("4 in 2-D").network.field
    d = torch.linspace(0.0, 40.0, 500)[:, None]
    features = field.features(d**2, d)
    gaussians = torch.exp(-(((d.double() - field.centres) * field.sharpness) ** 2))
    assert torch.allclose(features[:, : len(field.centres)].double(), gaussians, atol=1e-6)
    assert features.min() >= 0 and features[features > 0].min() > 1e-16


@pytest.mark.parametrize("network", [EquivariantGuided, ConvolutionalGuided])
def test_guidance_is_clipped_in_length_only(network):
    where = Cloud(2, 2) if network is EquivariantGuided else Field((4,))
    base = Confined(Brownian(scale=3.0), where)
    model = network(clip=2.0).build(4, base, rng())
    with torch.no_grad():
        model.network.field.time[-1].bias[-1] = 1.0
    hint = torch.tensor([[0.1, 0.2, -0.1, -0.2], [30.0, 40.0, -30.0, -40.0]])
    expected = torch.stack([3 * hint[0], hint[1] * 2 / math.sqrt(5000)])
    u = model.control(torch.zeros(2, 4), torch.tensor(0.5), hint)
    assert torch.allclose(u, expected, atol=1e-5)
    with pytest.raises(ValueError, match="hint"):
        model.control(torch.zeros(2, 4), torch.tensor(0.5))


def test_networks_refuse_what_has_not_their_symmetry():
    for network in PARTICLES:
        with pytest.raises(Unsupported, match="centre of mass"):
            network.build(8, Brownian(), rng())
        for alike, chiral in (((), False), (((0, 1),), False), (((0, 1, 2),), True)):
            with pytest.raises(Unsupported, match="use Atomic"):
                network.build(9, labelled(3, 3, alike, chiral), rng())
    with pytest.raises(Unsupported, match="in three dimensions only"):
        ATOMS[0].build(6, labelled(3, 2, (), True), rng())
    for network in FIELDS:
        for base, dim in [(Brownian(), 64), (cloud(4, 2), 8), (torus(2, 2, 2, 2), 16)]:
            with pytest.raises(Unsupported, match="lattice of one to three axes"):
                network.build(dim, base, rng())
    for network in (Equivariant, EquivariantGuided, Convolutional, ConvolutionalGuided):
        with pytest.raises(ValueError, match="width"):
            network(width=0)
    with pytest.raises(ValueError, match="clip"):
        replace(PARTICLES[1], clip=0.0)
    with pytest.raises(ValueError, match="vectors is -1; it must be 0 or more"):
        Equivariant(vectors=-1)
    with pytest.raises(ValueError, match="set rounds to 2"):
        Equivariant(rounds=1, vectors=4)


def regression_error(model, points, field, steps=150):
    """Relative error, on fresh points, of a regression on `field`."""
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, fused=True)
    for k in range(steps):
        x, t = points(64, rng(10 + k))
        loss = (model.control(x, t) - field(x)).square().sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    x, t = points(1000, rng(5))
    with torch.no_grad():
        y = field(x)
        return float((model.control(x, t) - y).square().sum() / y.square().sum())


def test_particles_are_learnt_better_than_by_a_perceptron_of_equal_cost():
    """Forces of dw4: at 35 k multiplications a point against 36 k."""
    base = Confined(Brownian(scale=2.0), Cloud(4, 2))

    def points(n, generator):
        return base.normal((n, 8), generator, torch.float32) * 2, torch.rand(n, generator=generator)

    def field(x):
        y = x.unflatten(-1, (4, 2))
        away = y[:, :, None] - y[:, None]
        d = away.norm(dim=-1, keepdim=True).clamp(min=1e-6)
        s = (d - 4).clamp(-2, 2)
        return centred((away / d * (2 * s - 0.9 * s**3)).sum(2).flatten(1), 2)

    aware = Equivariant(width=32).build(8, base, rng())
    plain = Mlp(width=108).build(8, base, rng())
    errors = [regression_error(model, points, field) for model in (aware, plain)]
    assert errors[0] < 0.02 and errors[0] < 0.2 * errors[1]


@pytest.mark.parametrize("case", [case for case in CASES if "angles" in case])
def test_vectors_are_those_of_the_formula(case):
    """a_ic, one particle and one pair at a time, and what is heard of them in every round."""
    model, (x, t, hint) = awake_network(case, torch.float64), inputs(case, torch.float64, n=2)
    field, weights, heard = model.network.field, [], []
    for layer in (*field.aim, *field.lean):
        layer.register_forward_hook(lambda _, ins, out: weights.append(out[..., None, :]))
    for layer in (*field.lengths, *field.angles):
        layer.register_forward_hook(lambda _, ins, out: heard.append(ins[0]))
    model.control(x, t, hint)
    n, d = CASES[case][1].target.particles
    y = (x / CASES[case][1].spread).unflatten(-1, (n, d)).movedim(-2, 0)
    pairs = list(itertools.combinations(range(n), 2))

    def unit(away):
        return (away / (1 + (away.square().sum(-1, keepdim=True) + TOUCH**2).sqrt()))[..., None]

    a = [0.0] * n
    for k in range(0, len(weights), 2):
        for i in range(n):
            a[i] = a[i] + unit(y[i] - y.mean(0)) * weights[k + 1][i]
        for (i, j), w in zip(pairs, weights[k], strict=True):
            a[i] = a[i] + unit(y[i] - y[j]) * w / math.sqrt(n - 1)
            a[j] = a[j] + unit(y[j] - y[i]) * w / math.sqrt(n - 1)
        angles = torch.stack([((a[i] - a[j]) * unit(y[i] - y[j])).sum(-2) for i, j in pairs])
        torch.testing.assert_close(heard[k], torch.stack(a).square().sum(-2))
        torch.testing.assert_close(heard[k + 1], angles)
    assert len(heard) == 2 * (CASES[case][0].rounds - 1)


def test_vectors_tell_angles():
    """Forces of sum_i sum_jk f(d_ij) f(d_ik) cos^2(angle at i), as sum_i |tensor_i|^2."""
    base = Confined(Brownian(scale=1.0), Cloud(5, 3))

    def points(n, generator):
        return base.normal((n, 15), generator, torch.float32), torch.rand(n, generator=generator)

    def field(x):
        with torch.enable_grad():
            y = x.unflatten(-1, (5, 3)).requires_grad_()
            away = y[:, :, None] - y[:, None]
            square = away.square().sum(-1)[..., None]
            bond = away / (square + 0.3).sqrt() * torch.exp(-square / 4)
            tensor = torch.einsum("nijs,nijt->nist", bond, bond)
            (force,) = torch.autograd.grad(tensor.square().sum(), y)
        return centred(force.flatten(1), 3)

    networks = Equivariant(width=24, rounds=2, vectors=8), Equivariant(width=32, rounds=3)
    errors = [
        regression_error(network.build(15, base, rng()), points, field, 400) for network in networks
    ]
    assert errors[0] < 0.5 * errors[1]


def test_fields_are_learnt_better_than_by_a_perceptron_of_equal_cost():
    """Neighbours, a cubic and the magnetisation: 56 k multiplications a point against 55 k."""
    base = Confined(Brownian(scale=1.0), Field((4, 4)))

    def points(n, generator):
        shift = 0.5 * torch.randn(n, 1, generator=generator)
        return torch.randn(n, 16, generator=generator) + shift, torch.rand(n, generator=generator)

    def field(x):
        y = x.reshape(-1, 4, 4)
        near = y.roll(1, 1) + y.roll(-1, 1) + y.roll(1, 2) + y.roll(-1, 2)
        whole = torch.tanh(2 * y.mean((1, 2), keepdim=True))
        return (near - y * near**2 / 4 + 2 * whole).flatten(1)

    aware = Convolutional(width=8).build(16, base, rng())
    plain = Mlp(width=130).build(16, base, rng())
    errors = [regression_error(model, points, field) for model in (aware, plain)]
    assert errors[0] < 0.1 and errors[0] < 0.4 * errors[1]
