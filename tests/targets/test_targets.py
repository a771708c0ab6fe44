"""Every target: draws against density, log Z and observables re-derived, the contract."""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import math
from functools import cache, partial

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch

from tests.tools.registered import by_default
from tiltbench.check.truth import log_integrand
from tiltbench.targets.densities._ising import log_Z_and_slope, row_transfer, swendsen_wang
from tiltbench.targets.densities._mixture import Mixture
from tiltbench.targets.registry import TARGETS, Registry, UnknownName
from tiltbench.targets.target import DATA, Density, table, test_point

ALL = [TARGETS.load(name)() for name in by_default()]
SHAPES = [TARGETS.load("tilt_shapes")(shape=s) for s in ("diagonal", "corners", "ring")]
WIDE = [TARGETS.load(name)(dim=10) for name in ("tilt_linear", "tilt_quadratic")]
# Those with exact, independent draws; finite reference sets are tested in test_reference.py.
EXACT = [t for t in [*ALL, *SHAPES, *WIDE] if t.truth().sample and t.truth().held == math.inf]
KNOWN = [t for t in EXACT if log_integrand(t)]
PLANE = [t for t in KNOWN if t.dim == 2]
SCORED = [t for t in KNOWN if t.truth().noised_score]
CELLED = [t for t in KNOWN if t.truth().modes]
N = 10_000


def each(targets):
    ids = [f"{t.name}-{getattr(t, 'shape', '')}-{t.dim}" for t in targets]
    return pytest.mark.parametrize("target", targets, ids=ids)


def value(target, x):
    """log rho, or the reward."""
    return target.log_rho(x) if isinstance(target, Density) else target.reward(x)


@cache
def draws(target):
    return target.truth().sample(N, torch.Generator().manual_seed(5))


def gradient(target, x):
    """The score of p*."""
    x = x.detach().requires_grad_()
    return torch.autograd.grad(log_integrand(target)(x).sum(), x)[0]


def z_scores(values):
    """Of the means of the columns of `values` against zero."""
    return values.mean(0) / (values.std(0) / math.sqrt(len(values)))


def axis(x, low, high, step):
    """(nodes, weights): middles of even cells on [low, high]; where draws x fall outside, as those
    of heavy tails do, Gauss-Legendre beyond on two pieces of every octave, out to 10^6."""
    even = torch.arange(low + step / 2, high, step, dtype=torch.float64)
    node, weight = (torch.as_tensor(v) for v in np.polynomial.legendre.leggauss(5))
    octaves = 19 if x.min() < low or x.max() > high else 0
    edge = 2 * 2 ** torch.linspace(0, octaves, 2 * octaves + 1, dtype=torch.float64) - 2
    half = edge.diff()[:, None] / 2
    far, w = ((edge[:-1, None] + half) + half * node).flatten(), (half * weight).flatten()
    nodes = torch.cat([low - far.flip(0), even, high + far])
    return nodes, torch.cat([w.flip(0), torch.full_like(even, step), w])


def plane(target, points=700):
    """(x, log (Z p*), log of the weight) of a quadrature over the plane, even over the target.

    Halves of whole numbers, where the cells of some targets end, are lines of the grid."""
    x = draws(target)
    low, high = x.quantile(torch.tensor([5e-4, 1 - 5e-4]).double(), 0)
    margin = 0.3 * (high - low).clamp(max=20)
    low, high = (low - margin).floor(), (high + margin).ceil()
    step = float(0.5 / (points / (2 * (high - low).max())).ceil())
    axes = [axis(*side, step) for side in zip(x.T, low.tolist(), high.tolist(), strict=True)]
    x = torch.cartesian_prod(*[nodes for nodes, _ in axes])
    log_area = torch.cartesian_prod(*[weights for _, weights in axes]).log().sum(-1)
    return x, by_parts(log_integrand(target), x), log_area


def by_parts(f, x):
    """f(x), from parts of x that fit into the cache: components times points do not."""
    return torch.cat([f(part) for part in x.split(4096)])


# draws against density


@each(KNOWN)
def test_draws_are_float64_rows_and_repeat(target):
    sample = target.truth().sample
    x = sample(7, torch.Generator().manual_seed(1))
    assert x.shape == (7, target.dim) and x.dtype == torch.float64
    assert torch.equal(x, sample(7, torch.Generator().manual_seed(1)))
    assert not torch.equal(x, sample(7, torch.Generator().manual_seed(2)))


@each(KNOWN)
def test_stein_identities(target):
    """E grad log rho = 0 and E[x_i d_i log rho] = -1, so that E[x . grad log rho] = -D."""
    x = draws(target)
    g = gradient(target, x)
    assert abs(z_scores((x * g).sum(-1) + target.dim)) < 4
    assert z_scores(g).abs().max() < 4.5
    assert z_scores(x * g + 1).abs().max() < 4.5


@each(KNOWN)
def test_observables(target):
    x = draws(target)
    for name, (f, mean, sd, se) in target.truth().observables.items():
        values = f(x)
        assert values.shape == (N,), name
        error = math.hypot(sd / math.sqrt(N), se)
        assert abs(values.mean() - mean) < 4 * error, name
        square = (values - mean).square()  # sd itself may come from draws, to 1 %
        error = math.hypot(square.std() / math.sqrt(N), 0.008 * sd**2)
        assert abs(square.mean() - sd**2) < 4 * error, name


@each(CELLED)
def test_masses_of_cells_against_draws(target):
    weight, assign = target.truth().modes
    assert weight.sum() == pytest.approx(1, abs=1e-12) and len(weight) <= 100
    cell = assign(draws(target))
    assert cell.shape == (N,)
    count = torch.bincount(cell, minlength=len(weight))
    square = ((count - N * weight).square() / (N * weight)).sum()
    free = len(weight) - 1
    assert scipy.stats.chi2.sf(square, free) > 6e-5


@each(PLANE)
def test_the_plane_by_quadrature(target):
    """Log Z.  The observables, sharper than draws: sees a term of relative size 1e-3 missing from a
    variance.  Masses, sharp enough to tell that of a cell from the weight of its component (gmm40:
    7e-4)."""
    x, log_rho, log_area = plane(target)
    truth = target.truth()
    assert (log_rho + log_area).logsumexp(0) == pytest.approx(truth.log_Z, abs=1e-7)
    mass = torch.exp(log_rho + log_area - truth.log_Z)
    for name, (f, mean, sd, _) in truth.observables.items():
        values = by_parts(f, x).to(mass)
        first, second = float(mass @ values), float(mass @ values.square())
        assert first == pytest.approx(mean, abs=max(1e-4 * sd, 5e-5)), name  # edges of cells
        assert math.sqrt(second - first**2) == pytest.approx(sd, rel=3e-4, abs=1e-4), name
    if truth.modes:
        weight, assign = truth.modes
        shares = torch.zeros_like(weight).index_add(0, by_parts(assign, x), mass)
        assert (shares - weight).abs().max() < 1e-4


def test_masses_of_unequal_cells():
    """In one dimension the border between the modes of gmm_weighted carries a visible density."""
    target = TARGETS.load("gmm_weighted")(dim=1)
    x = torch.linspace(-3, 4, 200_001, dtype=torch.float64)[:, None]
    weight, assign = target.truth().modes
    mass = torch.exp(target.log_rho(x)) * float(x[1] - x[0])
    shares = torch.zeros_like(weight).index_add(0, assign(x), mass)
    assert (shares - weight).abs().max() < 1e-8


@each(KNOWN)
def test_scale_is_the_rms_coordinate(target):
    square = draws(target).square().mean(-1)
    error = float(square.std()) / math.sqrt(N)  # heavy tails
    assert target.scale**2 == pytest.approx(float(square.mean()), rel=0.06, abs=3 * error)


# log Z


def log_integral(log_f, low, high, cuts=()):
    value, _ = scipy.integrate.quad(
        lambda x: math.exp(log_f(x)), low, high, points=cuts, epsabs=0, epsrel=1e-11, limit=400
    )
    return math.log(value)


def block(target, like, i):
    """x -> log rho with coordinate i at x, the others of `like`."""

    def log_f(x):
        point = like.clone()
        point[i] = x
        return float(target.log_rho(point))

    return log_f


@pytest.mark.parametrize(
    "text, log_Z",
    [
        (("many_well", {"dim": 2}), 10.293480),
        (("many_well", {"dim": 32}), 164.695675),
        (("many_well", {"dim": 64}), 329.391351),
        (("many_well", {"dim": 128}), 658.782701),
        (("many_well_mdelta", {}), -0.541056),
        (("many_well_mdelta", {"dim": 50}), 40.811178),
        (("many_well_mdelta", {"dim": 50, "delta": 2.0}), 42.817243),
    ],
)
def test_log_Z_of_products_one_coordinate_at_a_time(text, log_Z):
    """rho factorises: Z rho(0)^(D-1) = prod_i of the integral along axis i through 0."""
    name, params = text
    target = TARGETS.load(name)(**params)
    origin = torch.zeros(target.dim, dtype=torch.float64)
    at_zero = float(target.log_rho(origin))
    kinds = {}  # equal axes are integrated once: recognised by their values
    total = at_zero
    for i in range(target.dim):
        log_f = block(target, origin, i)
        key = tuple(round(log_f(x) - at_zero, 9) for x in (0.7, -0.3))
        if key not in kinds:
            kinds[key] = log_integral(log_f, -9, 9, (-2, 0, 2)) - at_zero
        total += kinds[key]
    assert total == pytest.approx(log_Z, abs=1e-6)
    assert target.truth().log_Z == pytest.approx(total, abs=1e-9)


def test_many_well_as_printed():
    truth = TARGETS.load("many_well")(dim=2).truth()
    z = math.exp(truth.log_Z - math.log(2 * math.pi) / 2)
    assert z == pytest.approx(11784.509265, abs=1e-6)
    assert truth.observables["right_0"].mean == pytest.approx(0.8443071, abs=1e-7)


def test_log_Z_of_the_funnel_nested_and_by_importance():
    target = TARGETS.load("funnel")()

    # over each of the other coordinates along its axis, then over x0: even nodes are exact to
    # exp(-2 pi^2 / step^2), the step in standard deviations
    x0, z = (torch.arange(-r, r + h / 2, h, dtype=torch.float64) for r, h in ((30, 0.5), (12, 0.4)))
    x = torch.zeros(len(x0), len(z), target.dim, dtype=torch.float64)
    x[..., 0], x[..., 3] = x0[:, None], torch.exp(x0 / 2)[:, None] * z
    log_rho = target.log_rho(x)
    at_zero = log_rho[:, len(z) // 2]
    along = log_rho.logsumexp(1) + math.log(0.4) + x0 / 2 - at_zero
    assert (at_zero + 9 * along).logsumexp(0) + math.log(0.5) == pytest.approx(0, abs=1e-7)
    g = torch.Generator().manual_seed(3)
    x0 = 4 * torch.randn(N, generator=g, dtype=torch.float64)
    width = 1.2 * torch.exp(x0 / 2)
    rest = torch.randn(N, 9, generator=g, dtype=torch.float64)
    log_q = -x0.square() / 32 - math.log(4) - rest.square().sum(-1) / 2 - 9 * width.log()
    x = torch.cat([x0[:, None], width[:, None] * rest], -1)
    w = torch.exp(target.log_rho(x) - log_q + 5 * math.log(2 * math.pi))
    assert abs(z_scores(w - 1)) < 4


# the Ising lattice


def torus(side):
    """(side^2, side^2) adjacency, each bond once in each direction."""
    a = np.zeros((side * side, side * side))
    for i, j in itertools.product(range(side), repeat=2):
        for k in ((i + 1) % side * side + j, i * side + (j + 1) % side):
            a[i * side + j, k] += 1
            a[k, i * side + j] += 1
    return a


@cache
def states(side):
    """(spins (2^N, N), sum over bonds of s_i s_j)."""
    n = side * side
    s = 2.0 * (np.arange(2**n)[:, None] >> np.arange(n) & 1) - 1
    return s, np.einsum("ai,ij,aj->a", s, torus(side), s, optimize=True) / 2


SMALL = pytest.mark.parametrize("side, beta", [(3, 0.2), (4, 0.4406868), (4, 0.6)])


@SMALL
def test_ising_by_enumeration(side, beta):
    s, bonds = states(side)
    log_w = beta * bonds
    log_Z = float(torch.logsumexp(torch.tensor(log_w), 0))
    p = np.exp(log_w - log_Z)
    value, slope = log_Z_and_slope(side, beta)
    assert value == pytest.approx(log_Z, abs=1e-10)
    assert slope == pytest.approx(p @ bonds, abs=1e-9)
    exact = row_transfer(side, beta)
    law = np.bincount(((s.sum(1) + side**2) / 2).astype(int), weights=p)
    assert np.allclose(exact.magnetisation().numpy(), law, atol=1e-12)
    pair = (s * s[:, :1] * p[:, None]).sum(0).reshape(side, side)
    assert np.allclose(exact.two_point().numpy(), pair, atol=1e-12)
    # the continuous density: one Gaussian integral a state
    target = TARGETS.load("ising_hs")(side=side, beta=beta)
    c = 0.05 - beta * np.linalg.eigvalsh(torus(side)).min()
    k = beta * torus(side) + c * np.eye(side**2)
    total = torch.logsumexp(torch.tensor(np.einsum("ai,ij,aj->a", s, k, s, optimize=True) / 2), 0)
    assert target.truth().log_Z == pytest.approx(float(total), abs=1e-9)
    x = np.random.default_rng(0).normal(size=(5, side**2)) * 2
    normal = torch.distributions.MultivariateNormal(torch.zeros(side**2).double(), torch.tensor(k))
    stated = normal.log_prob(torch.tensor(x)) + torch.tensor(np.log(2 * np.cosh(x)).sum(1))
    assert torch.allclose(target.log_rho(torch.tensor(x)), stated, atol=1e-9)


@pytest.mark.parametrize(
    "side, beta, log_Z",
    [
        (3, 0.2, 6.6697446),
        (4, 0.4406868, 15.5219156),
        (4, 0.6, 20.0565329),
        (8, 0.4406868, 60.141781),
        (8, 0.6, 78.141649),
        (8, 1.2, 154.297555),
        (16, 0.2, 188.039888),
        (16, 0.3, 202.383232),
        (16, 0.4406868, 238.642259),
        (16, 0.6, 310.487039),
        (16, 1.2, 615.110777),
        (24, 0.4406868, 536.144609),
    ],
)
def test_kaufman_as_printed(side, beta, log_Z):
    assert log_Z_and_slope(side, beta)[0] == pytest.approx(log_Z, abs=1e-6)


@pytest.mark.parametrize("beta", [0.2, 0.4406868, 1.2])
def test_kaufman_by_transfer_matrix(beta):
    s = 2.0 * (np.arange(256)[:, None] >> np.arange(8) & 1) - 1
    inside = (s * np.roll(s, 1, 1)).sum(1)
    t = np.exp(beta * (s @ s.T + (inside[:, None] + inside) / 2 - 16))
    log_Z = math.log(np.trace(np.linalg.matrix_power(t, 8))) + 8 * 16 * beta
    assert log_Z_and_slope(8, beta)[0] == pytest.approx(log_Z, abs=1e-9)


def test_spins_of_the_transfer_matrix_have_the_law_of_the_states():
    n = 40_000
    s = row_transfer(3, 0.2).sample(n, torch.Generator().manual_seed(0)).flatten(1)
    code = ((s > 0) * 2 ** torch.arange(9)).sum(1)
    _, bonds = states(3)
    p = torch.softmax(torch.tensor(0.2 * bonds), 0)
    count = torch.bincount(code, minlength=512)
    square = ((count - n * p).square() / (n * p)).sum()
    assert abs(square - 511) < 4 * math.sqrt(2 * 511)


@pytest.mark.parametrize("side, beta", [(4, 0.4406868), (9, 0.3)])
def test_swendsen_wang(side, beta):
    s = swendsen_wang(side, beta, 400, torch.Generator().manual_seed(2), sweeps=25)
    bonds = (s * (s.roll(1, 1) + s.roll(1, 2))).sum((1, 2))
    assert abs(z_scores(bonds - log_Z_and_slope(side, beta)[1])) < 4
    assert abs(z_scores(s.mean((1, 2)))) < 4


def test_ising_beyond_the_transfer_matrix():
    target = TARGETS.load("ising_hs")(side=11, beta=0.2)
    truth = target.truth()
    x = truth.sample(300, torch.Generator().manual_seed(0))
    assert abs(z_scores(truth.observables["energy"].f(x) - truth.observables["energy"].mean)) < 4
    assert abs(z_scores((x * gradient(target, x)).sum(-1) + target.dim)) < 4


# the noised score


@each(SCORED)
def test_noised_score_without_noise_is_the_score(target):
    x = draws(target)[:100]
    score = target.truth().noised_score
    assert torch.allclose(score(x, 1.0, 0.0), gradient(target, x), rtol=1e-9, atol=1e-9)


@each(SCORED)
def test_noised_score_denoises(target):
    """score(Y) + xi / noise has mean zero given Y = signal X + noise xi; signal, noise (B,)."""
    g = torch.Generator().manual_seed(8)
    x = draws(target)
    xi = torch.randn(x.shape, generator=g, dtype=x.dtype)
    signal = 0.2 + 0.8 * torch.rand(len(x), generator=g, dtype=x.dtype)
    noise = target.scale * (0.1 + torch.rand(len(x), generator=g, dtype=x.dtype))
    y = signal[:, None] * x + noise[:, None] * xi
    residual = target.truth().noised_score(y, signal, noise) + xi / noise[:, None]
    assert z_scores(residual).abs().max() < 4
    assert z_scores(residual * y).abs().max() < 4


def test_the_noised_score_of_the_funnel_is_finite_far_out():
    """There Y_i says nothing and the slope in Y_0 is that of N(0, total) less k lean / 2."""
    target = TARGETS.load("funnel")()
    x = torch.ones(2, target.dim, dtype=torch.float64)
    x[:, 0] = torch.tensor([1e3, 1e5])
    score = target.truth().noised_score(x, 0.5, 0.5)
    lean, total = 9 * 0.5 / 2.5, 2.5
    due = -(x[:, 0] + lean * total * (target.dim - 1) / 2) / total
    assert torch.allclose(score[:, 0], due) and score[:, 1:].abs().max() < 1e-100


@each([t for t in SCORED if t.dim == 2])
def test_noised_score_by_quadrature(target):
    x, log_rho, log_area = plane(target, 300)
    signal, noise = 0.6, 0.5 * target.scale
    y = (signal * draws(target)[:4] + 0.3 * noise).requires_grad_()
    kernel = -(y[:, None] - signal * x).square().sum(-1) / (2 * noise**2)
    noised = (log_rho + log_area + kernel).logsumexp(-1)
    expected = torch.autograd.grad(noised.sum(), y)[0]
    score = target.truth().noised_score(y.detach(), signal, noise)
    assert torch.allclose(score, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("signal", "noise"), [(1.0, 0.05), (0.7, 0.5), (0.3, 8.0), (0.0, 2.0)])
def test_noised_score_of_the_funnel_by_a_wide_quadrature(signal, noise):
    """log of the noised density, X_0 integrated over 60 standard deviations, differentiated."""
    (target,) = (t for t in SCORED if t.name == "funnel")
    xi = torch.randn(8, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = (signal * draws(target)[:8] + noise * xi).requires_grad_()
    u = torch.linspace(-30, 30, 60_001, dtype=torch.float64)
    v = signal**2 * u.exp() + noise**2
    inner = y[:, 1:].square().sum(-1, keepdim=True)
    near = (y[:, :1] - signal * u).square() / noise**2
    noised = ((u / 3).square() + near + inner / v + 9 * v.log()).div(-2).logsumexp(-1)
    expected = torch.autograd.grad(noised.sum(), y)[0]
    score = target.truth().noised_score(y.detach(), signal, noise)
    assert torch.allclose(score, expected, rtol=1e-8, atol=1e-9)


# the contract


@each([t for t in ALL if t.test_value is not None])
def test_value_at_the_test_point(target):
    computed = value(target, test_point(target))  # up to 1e15 nats where particles nearly coincide
    assert computed == pytest.approx(target.test_value, rel=1e-12, abs=1e-10)


def test_every_target_states_its_test_value():
    assert [t.name for t in ALL if t.test_value is None] == []


@each(ALL)
def test_shapes_and_dtypes(target):
    x = target.scale * torch.randn(2, 3, 5, target.dim, generator=torch.Generator().manual_seed(0))
    y = value(target, x)
    assert y.shape == (2, 3, 5) and y.dtype == torch.float32
    assert torch.allclose(value(target, x[1, 2]), y[1, 2], rtol=1e-5, atol=1e-4)
    assert value(target, x[0, 0, 0]).shape == ()
    assert value(target, x[:0]).shape == (0, 3, 5)
    assert value(target, x.double()).dtype == torch.float64


@each(KNOWN)
def test_single_precision_is_enough(target):
    x = draws(target)
    exact, single = value(target, x), value(target, x.float()).double()
    assert ((single - exact).abs() / exact.abs().clamp(min=1)).max() < 1e-4


@each(ALL)
def test_gradients_are_those_of_finite_differences(target):
    g = torch.Generator().manual_seed(4)
    x = 0.7 * target.scale * torch.randn(8, target.dim, generator=g, dtype=torch.float64)
    v = torch.randn(x.shape, generator=g, dtype=torch.float64)
    if bool((value(target, x) == -torch.inf).all()):  # where there is no density there is no slope
        x = test_point(target) + 0.05 * x
    v, h = v / v.norm(dim=-1, keepdim=True), 1e-5
    slope = (value(target, x + h * v) - value(target, x - h * v)) / (2 * h)
    x.requires_grad_()
    along = (torch.autograd.grad(value(target, x).sum(), x)[0] * v).sum(-1)
    assert torch.allclose(along, slope, rtol=1e-5, atol=1e-6)
    each_point = torch.func.vmap(torch.func.grad(partial(value, target)))(x.detach())
    assert torch.allclose((each_point * v).sum(-1), along)


@each(KNOWN)
@pytest.mark.cuda
def test_on_a_gpu(target):
    truth = target.truth()
    x = truth.sample(2000, torch.Generator("cuda").manual_seed(0))
    assert x.is_cuda and value(target, x.float()).is_cuda
    assert torch.allclose(value(target, x).cpu(), value(target, x.cpu()))
    assert abs(z_scores((x * gradient(target, x)).sum(-1) + target.dim)) < 4
    for f, mean, sd, _ in truth.observables.values():
        assert abs(f(x).mean() - mean) < 4 * sd / math.sqrt(len(x))
    if truth.modes:
        assert torch.equal(truth.modes.assign(x).cpu(), truth.modes.assign(x.cpu()))
    if truth.noised_score:
        assert truth.noised_score(x, 0.5, 0.5).is_cuda


@pytest.mark.parametrize(
    "name, params",
    [
        ("gaussian", {"std": 0.0}),
        ("gmm_weighted", {"dim": 0}),
        ("many_well", {"dim": 3}),
        ("many_well_mdelta", {"wells": 6}),
        ("ising_hs", {"side": 2}),
        ("tilt_linear", {"dim": 1}),
        ("tilt_quadratic", {"dim": 1}),
        ("tilt_shapes", {"shape": "star"}),
        ("phi4", {"side": 1}),
        ("phi4", {"lam": -1.0}),
        ("phi4_chain", {"side": 1}),
    ],
)
def test_impossible_parameters_are_refused_with_a_remedy(name, params):
    with pytest.raises(ValueError, match="must be"):
        TARGETS.load(name)(**params)


# frozen data and the registry


def test_frozen_means_are_those_of_the_stated_command():
    spec = importlib.util.spec_from_file_location("make_gmm40", DATA / "make_gmm40.py")
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    assert torch.equal(make.means(), table("gmm40", torch.zeros((), dtype=torch.float64)))


def test_tables_are_checked_against_their_provenance(tmp_path, monkeypatch):
    raw = (DATA / "gmm40.npy").read_bytes()
    (tmp_path / "t.npy").write_bytes(raw[:-1] + b"\0")
    (tmp_path / "t.json").write_text(f'{{"sha256": "{hashlib.sha256(raw).hexdigest()}"}}')
    monkeypatch.setattr("tiltbench.targets.target.DATA", tmp_path)
    with pytest.raises(ValueError, match="restore"):
        table("t", torch.zeros(()))


PLUG_IN = '''
"""A plug-in."""
from dataclasses import dataclass
from tiltbench.targets.target import Density, Truth

@dataclass(frozen=True)
class Mine(Density):
    """One line."""
    name = "mine"
    dim: int = 3

    def log_rho(self, x):
        return -x.square().sum(-1)

    def truth(self):
        return Truth("unknown")
'''


def test_a_plug_in_is_one_file(tmp_path):
    (tmp_path / "mine.py").write_text(PLUG_IN)
    folder = Registry("target", ((tmp_path, "nowhere"),))
    assert folder.entries["mine"].summary == "One line."
    target = TARGETS.load(str(tmp_path / "mine.py"))()
    assert target.log_rho(torch.ones(2, 3)).tolist() == [-3, -3]
    assert TARGETS.load(f"{tmp_path / 'mine.py'}:mine")() == target


def test_two_files_of_one_name_are_an_error(tmp_path):
    (tmp_path / "a.py").write_text(PLUG_IN)
    (tmp_path / "b.py").write_text(PLUG_IN)
    with pytest.raises(UnknownName, match="two targets are called 'mine'"):
        Registry("target", ((tmp_path, "nowhere"),)).entries


def test_unknown_names_get_the_nearest():
    with pytest.raises(UnknownName, match="did you mean 'funnel'"):
        TARGETS.find("funel")


def test_moments_of_a_mixture_by_quadrature():
    weight, mean = (torch.tensor(v, dtype=torch.float64) for v in ([0.3, 0.7], [[1.0], [-2.0]]))
    law, var = Mixture(weight, mean, 0.6), 0.6
    nodes, w = np.polynomial.hermite_e.hermegauss(8)  # exact to order 15
    for order in (1, 2, 4):
        each = [(w * (m + math.sqrt(var) * nodes) ** order).sum() / w.sum() for m in (1.0, -2.0)]
        assert law.moment(0, order) == pytest.approx(0.3 * each[0] + 0.7 * each[1], rel=1e-12)
