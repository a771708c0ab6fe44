"""Lattice fields: partition functions by every route there is, draws against enumeration."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from tests.tools.free_field import FreeField, integrated
from tiltbench.targets.densities._transfer import bethe_rms, heat_bath, potential, ring, sites
from tiltbench.targets.densities.ising_hs import IsingHS
from tiltbench.targets.densities.phi4 import Phi4
from tiltbench.targets.densities.phi4_chain import Phi4Chain


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def z(values, mean=0.0):
    return float((values.mean() - mean) / values.std() * math.sqrt(len(values)))


def score(target, x):
    x = x.detach().requires_grad_()
    return torch.autograd.grad(target.log_rho(x).sum(), x)[0]


def quadrature(target, reach, points):
    """(log Z, x, masses) by the trapezoidal rule in every coordinate."""
    axis = torch.linspace(-reach, reach, points, dtype=torch.float64)
    x = torch.cartesian_prod(*[axis] * target.dim)
    log_mass = target.log_rho(x) + target.dim * math.log(float(axis[1] - axis[0]))
    log_Z = log_mass.logsumexp(0)
    return float(log_Z), x, torch.exp(log_mass - log_Z)


# the chain


@pytest.mark.parametrize(
    "side, m2, lam, log_Z",
    [
        (2, -2.0, 0.5, 2.055901450),
        (3, -2.0, 0.5, 2.841989005),
        (32, -2.0, 0.5, 28.979201936),
        (2, 1.0, 0.2, 0.809211636),
        (3, 1.0, 0.2, 1.106680989),
        (32, 1.0, 0.2, 11.530674344),
    ],
)
def test_chain_as_printed(side, m2, lam, log_Z):
    assert Phi4Chain(side, m2, lam).truth().log_Z == pytest.approx(log_Z, abs=1e-8)


@pytest.mark.parametrize("target", [Phi4Chain(2), Phi4Chain(3), Phi4Chain(4, 1.0, 0.2)], ids=str)
def test_chain_by_quadrature(target):
    log_Z, x, mass = quadrature(target, 3.2, 61 if target.side < 4 else 33)
    truth = target.truth()
    assert log_Z == pytest.approx(truth.log_Z, abs=1e-8)
    for name, (f, mean, sd, _) in truth.observables.items():
        first, second = float(mass @ f(x)), float(mass @ f(x).square())
        smooth = name != "magnetisation"  # |mean| has an edge, which the rule sees to O(h^2)
        assert first == pytest.approx(mean, abs=1e-8 if smooth else 5e-3), name
        assert math.sqrt(second - first**2) == pytest.approx(sd, abs=1e-8 if smooth else 5e-3), name


@pytest.mark.parametrize("m2, lam", [(-2.0, 0.5), (-5.0, 0.5), (1.0, 0.0), (3.0, 0.1)])
def test_the_grid_is_fine_and_wide_enough(m2, lam):
    """Against one of twice the reach and half the step."""
    x = sites(m2, lam)
    reach, step = 2 * float(x[-1]), float(x[1] - x[0]) / 2
    x = torch.arange(-reach, reach, step, dtype=torch.float64)
    log_t = -(x[:, None] - x).square() / 2 - potential(x, m2, lam)
    t = torch.exp(log_t) * step
    expected = float(torch.linalg.matrix_power(t, 5).trace().log())
    assert ring(5, m2, lam).log_Z == pytest.approx(expected, abs=1e-10)


def test_free_chain_in_closed_form():
    truth = Phi4Chain(6, m2=0.7, lam=0.0).truth()
    free = FreeField((6,), 0.7)
    assert truth.log_Z == pytest.approx(free.log_Z, abs=1e-10)
    level = free.level(torch.device("cpu"))
    assert truth.observables["square"].mean == pytest.approx(float((1 / level).mean()), abs=1e-10)
    # the mean is N(0, 1 / (m2 side))
    folded = math.sqrt(2 / (math.pi * 0.7 * 6))
    assert truth.observables["magnetisation"].mean == pytest.approx(folded, abs=1e-9)


@pytest.mark.parametrize("target", [Phi4Chain(2), Phi4Chain(3), Phi4Chain(5, -3.0, 0.4)], ids=str)
def test_draws_of_the_chain(target):
    """Even and odd rings; the moments of each site and of each bond."""
    n = 20_000
    x = target.truth().sample(n, generator(3))
    law = ring(target.side, target.m2, target.lam)
    for i in range(target.side):
        assert abs(z(x[:, i])) < 4
        assert abs(z(x[:, i].square(), law.moment(0, 0))) < 4
        assert abs(z(x[:, i].pow(4), law.moment(0, 0, 0, 0))) < 4
        assert abs(z(x[:, i] * x[:, i - 1], law.moment(0, 1))) < 4
        assert abs(z((x[:, i] * x[:, i - 1]).square(), law.moment(0, 0, 1, 1))) < 4
    assert len(x.flatten().unique()) == x.numel()  # off the grid
    assert abs(z((x * score(target, x)).sum(-1), -target.dim)) < 4


@pytest.mark.parametrize("neighbours, m2, lam", [(2, -6.0, 0.5), (4, -2.4, 0.5), (2, 1.0, 0.0)])
@pytest.mark.parametrize("pull", [0.0, 0.7, -5.0])
def test_heat_bath(neighbours, m2, lam, pull):
    y = heat_bath(torch.full((20_000,), pull).double(), neighbours, m2, lam, generator(1))
    x = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    p = torch.softmax(pull * x - neighbours * x.square() / 2 - potential(x, m2, lam), 0)
    for k in (1, 2, 4):
        assert abs(z(y**k, float(p @ x**k))) < 4


# the torus


def by_rows(m2, lam, points=41):
    """log Z at side 2 by the transfer matrix of rows (a, b), which have two bonds inside and two
    for each site to the other row."""
    x = torch.linspace(-3.2, 3.2, points, dtype=torch.float64)
    a, b = torch.cartesian_prod(x, x).unbind(-1)
    row = (a - b).square() + potential(a, m2, lam) + potential(b, m2, lam)
    between = (a[:, None] - a).square() + (b[:, None] - b).square()
    log_mass = -between - row[:, None] - row
    return float(log_mass.logsumexp((0, 1)) + 4 * math.log(float(x[1] - x[0])))


def by_tensors(m2, lam, bond):
    """log Z at side 4 by a tensor network: each bond's kernel cut to `bond` eigenvectors."""
    x = sites(m2 + 2, lam)
    v = potential(x, m2, lam) / 4
    kernel = torch.exp(-(x[:, None] - x).square() / 2 - v[:, None] - v)
    value, vectors = torch.linalg.eigh(kernel)
    f = vectors[:, -bond:] * value[-bond:].sqrt()
    site = torch.einsum("al,ar,au,ad->lrud", f, f, f, f) * float(x[1] - x[0])
    pair = torch.einsum("lmud,mrve->lruvde", site, site).reshape(bond, bond, bond**2, bond**2)
    row = torch.einsum("lrab,rlcd->acbd", pair, pair).reshape(bond**4, bond**4)
    return 2 * float((row @ row).norm().log())


@pytest.mark.parametrize("side", [2, 3])
def test_torus_bond_by_bond(side):
    target = Phi4(side, m2=-1.3, lam=0.4)
    x = np.random.default_rng(0).normal(size=(4, side * side))
    phi = x.reshape(4, side, side)
    action = sum(
        -0.65 * phi[:, i, j] ** 2
        + 0.4 * phi[:, i, j] ** 4
        + (phi[:, (i + 1) % side, j] - phi[:, i, j]) ** 2 / 2
        + (phi[:, i, (j + 1) % side] - phi[:, i, j]) ** 2 / 2
        for i, j in itertools.product(range(side), repeat=2)
    )
    assert np.allclose(target.log_rho(torch.tensor(x)), -action, atol=1e-12)
    assert np.allclose(target.statistics()["action"](torch.tensor(x)), action, atol=1e-12)


def test_free_torus_in_closed_form():
    target, free = Phi4(5, m2=0.8, lam=0.0), FreeField((5, 5), 0.8)
    x = free.sample(20_000, generator(2))
    assert torch.allclose(target.log_rho(x), -free.action(x), atol=1e-10)
    hessian = torch.autograd.functional.hessian(target.log_rho, x[0])
    log_Z = (25 * math.log(2 * math.pi) - torch.linalg.slogdet(-hessian)[1]) / 2
    assert free.log_Z == pytest.approx(float(log_Z), abs=1e-9)
    assert abs(z((x * score(target, x)).sum(-1), -25)) < 4
    variance = torch.linalg.inv(-hessian)
    assert abs(z(x[:, 0] * x[:, 6], float(variance[0, 6]))) < 4


def test_three_routes_to_log_Z_at_side_two():
    target = Phi4(2)
    exact, _, _ = quadrature(target, 3.0, 25)
    assert by_rows(target.m2, target.lam) == pytest.approx(exact, abs=1e-7)
    log_Z, se = integrated(
        target.log_rho, FreeField((2, 2), 1.0), generator(0), chains=48, trajectories=40
    )
    assert abs(log_Z - exact) < 4 * se and se < 0.05


def test_integration_meets_the_tensor_network_at_side_four():
    target = Phi4(4)
    exact = by_tensors(target.m2, target.lam, 6)
    assert exact == pytest.approx(by_tensors(target.m2, target.lam, 5), abs=1e-3)
    log_Z, se = integrated(
        target.log_rho, FreeField((4, 4), 1.0), generator(0), chains=48, trajectories=40
    )
    assert abs(log_Z - exact) < 4 * se and se < 0.15


def test_symmetries_of_the_torus():
    target, g = Phi4(6), generator(1)
    x = torch.randn(500, 36, generator=g, dtype=torch.float64)
    y = target.moved(x, g)
    assert torch.allclose(target.log_rho(y), target.log_rho(x), atol=1e-10)
    for f in target.statistics().values():
        assert torch.allclose(f(y), f(x), atol=1e-10)
    assert not (y == x).all(-1).any() or (y == x).all(-1).sum() < 10
    # each of 2 * 8 * 36 images alike: where the first site goes, and with which sign
    x = torch.zeros(40_000, 36).double()
    x[:, 1] = 1.0
    y = target.moved(x, g)
    assert abs(z(y.sum(-1))) < 4
    count = y.abs().sum(0)
    assert float((count - 40_000 / 36).square().sum() / (40_000 / 36)) < 36 + 4 * math.sqrt(72)
    # a corner of three unequal sites meets all eight of its orientations
    x = torch.zeros(2_000, 36).double()
    x[:, 0], x[:, 1], x[:, 6] = 3.0, 2.0, 1.0
    y = target.moved(x, g).abs().unflatten(-1, (6, 6))
    corner = (y == 3).flatten(1).long().argmax(1)
    seen = set()
    for phi, at in zip(y, corner.tolist(), strict=True):
        i, j = divmod(at, 6)
        seen.add(
            tuple(int(phi[(i + a) % 6, (j + b) % 6]) for a, b in ((0, 1), (1, 0), (0, -1), (-1, 0)))
        )
    assert len(seen) == 8


@pytest.mark.parametrize(
    "m2, rms", [(-1.2, 0.5815), (-1.8, 0.682), (-2.0, 0.741), (-2.4, 0.906), (-2.8, 1.044)]
)
def test_the_tree_comes_close_to_the_torus(m2, rms):
    """rms by long HMC at side 8."""
    assert bethe_rms(4, m2, 0.5) == pytest.approx(rms, rel=0.05)


def test_the_tree_of_two_neighbours_is_the_chain():
    assert bethe_rms(2, -2.0, 0.5) == pytest.approx(ring(64, -2.0, 0.5).moment(0, 0) ** 0.5, 1e-7)


# the Ising field


@pytest.mark.parametrize("beta", [0.2, 0.4406868])
def test_draws_of_the_ising_field_against_all_states(beta):
    """At side 4: given x the spins are independent, of means tanh x_i."""
    side, n = 4, 20_000
    s = 2.0 * (np.arange(2**16)[:, None] >> np.arange(16) & 1) - 1
    grid = s.reshape(-1, side, side)
    bonds = (grid * (np.roll(grid, 1, 1) + np.roll(grid, 1, 2))).sum((1, 2))
    p = np.exp(beta * (bonds - 32))
    p /= p.sum()
    target = IsingHS(side, beta)
    assert target.lattice == (4, 4)
    truth = target.truth()
    x = truth.sample(n, generator(4))
    assert truth.observables["energy"].mean == pytest.approx(-p @ bonds, abs=1e-9)
    mean = torch.tanh(x)
    for j in (1, 2, 5, 6, 10):
        assert abs(z(mean[:, 0] * mean[:, j], p @ (s[:, 0] * s[:, j]))) < 4
    spins = torch.where(torch.rand(x.shape, generator=generator(5)) < (1 + mean) / 2, 1.0, -1.0)
    assert abs(z(spins.mean(-1).abs(), p @ np.abs(s.mean(1)))) < 4
    assert abs(z(spins.mean(-1).square(), p @ s.mean(1) ** 2)) < 4


@pytest.mark.parametrize("side", [3, 4])
def test_derivatives_of_the_ising_field(side):
    """Against the dense precision: first and second, by autograd and under transforms."""
    target = IsingHS(side, 0.3)
    a = torch.zeros(side, side, side, side).double()
    for i, j in itertools.product(range(side), repeat=2):
        for k, m in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)):
            a[i, j, k % side, m % side] += 1
    a = a.reshape(side**2, side**2)
    lowest = torch.linalg.eigvalsh(a)[0]
    precision = torch.linalg.inv(0.3 * a + (0.05 - 0.3 * lowest) * torch.eye(side**2))
    x = torch.randn(5, side**2, generator=generator(), dtype=torch.float64)
    expected = torch.tanh(x) - x @ precision
    assert torch.allclose(score(target, x), expected, atol=1e-9)
    assert torch.allclose(torch.func.vmap(torch.func.grad(target.log_rho))(x), expected, atol=1e-9)
    jacobian = torch.func.vmap(torch.func.jacrev(torch.func.grad(target.log_rho)))(x)
    expected = torch.diag_embed(1 - torch.tanh(x).square()) - precision
    assert torch.allclose(jacobian, expected, atol=1e-9)
    x = x[:2].requires_grad_()
    assert torch.autograd.gradgradcheck(target.log_rho, x)


@pytest.mark.slow
def test_observables_of_large_ising_fields():
    truth = IsingHS(12, 0.4406868).truth()
    x = truth.sample(512, generator(9))
    for f, mean, sd, se in truth.observables.values():
        assert abs(f(x).mean() - mean) < 4 * math.hypot(sd / math.sqrt(512), se)


@pytest.mark.slow
def test_integration_of_the_default_torus():
    """One more route beside those of the reference, where there is one."""
    target = Phi4()
    log_Z, se = integrated(target.log_rho, FreeField((8, 8), 1.0), generator(0), nodes=16)
    truth = target.truth()
    if truth.log_Z is None:
        pytest.skip("no reference")
    assert abs(log_Z - truth.log_Z) < 4 * math.hypot(se, truth.log_Z_se)
