"""Particle targets: the stated formulas, derivatives, symmetries, edges, known figures."""

from __future__ import annotations

import itertools
import math
from functools import cache

import pytest
import torch
from torch.func import grad, jacrev, vmap

from tiltbench.plan.spec import build_target
from tiltbench.plan.text import parse
from tiltbench.targets.bases.confined import Confined
from tiltbench.targets.bases.references import Brownian, Scattered, Stationary
from tiltbench.targets.densities import _particles
from tiltbench.targets.densities._lennard_jones import LennardJones
from tiltbench.targets.densities.dw4 import Dw4
from tiltbench.targets.densities.lj13 import Lj13
from tiltbench.targets.densities.lj55 import Lj55
from tiltbench.targets.target import test_point as point_of

TARGETS = [Dw4(), Lj13(), Lj55()]


class Six(LennardJones):
    """An even number of particles, where the pairs half-way round need care."""

    name, particles, dim, scale = "six", (6, 3), 18, 1.0


class Three(Dw4):
    name, particles, dim, scale = "three", (3, 2), 6, 2.0


ODD = [Six(), Three()]


def each(targets):
    return pytest.mark.parametrize("target", targets, ids=lambda t: t.name)


def textbook(target, x):
    """The formula as printed, by autograd: all differences, a masked diagonal, powers."""
    n, d = target.particles
    y = x.unflatten(-1, (n, d))
    diff = y[..., :, None, :] - y[..., None, :, :]
    same = torch.eye(n, dtype=torch.bool, device=x.device)
    r = diff.square().sum(-1).masked_fill(same, 1.0).sqrt()
    i, j = torch.triu_indices(n, n, 1, device=x.device)
    if isinstance(target, Dw4):
        away = r[..., i, j] - 4
        return -(0.9 * away.pow(4) - 4 * away.pow(2)).sum(-1)
    wells = (r.pow(-12) - 2 * r.pow(-6))[..., i, j].sum(-1)
    return -2 * wells - (y - y.mean(-2, keepdim=True)).square().sum((-1, -2)) / 2


@cache
def points(target, *shape):
    """Spread configurations: close pairs now and then."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(*shape, target.dim, generator=generator, dtype=torch.float64)
    return 1.5 * target.scale * x


def tower(f, x):
    """(value, gradient, Hessian times u, its slope along u), by plain autograd."""
    y = x.clone().requires_grad_()
    u = torch.cos(torch.arange(x.numel(), dtype=x.dtype)).reshape(x.shape)
    value = f(y)
    (g,) = torch.autograd.grad(value.sum(), y, create_graph=True)
    (h,) = torch.autograd.grad(g, y, u, create_graph=True)
    (third,) = torch.autograd.grad((h * u).sum(), y)
    return value.detach(), g.detach(), h.detach(), third


def error(values, expected):
    """Relative, of the worst point."""
    if values.ndim == 1:
        return float(((values - expected).abs() / expected.abs().clamp(min=1)).max())
    size = expected.flatten(1).norm(dim=-1)
    return float(((values - expected).flatten(1).norm(dim=-1) / size).max())


@each(TARGETS)
def test_values_at_the_test_point_pair_by_pair(target):
    n, d = target.particles
    x = point_of(target).reshape(n, d)
    r = [math.dist(x[i].tolist(), x[j].tolist()) for i, j in itertools.combinations(range(n), 2)]
    if n == 4:
        energy = math.fsum(0.9 * (a - 4) ** 4 - 4 * (a - 4) ** 2 for a in r)
    else:
        centre = x.mean(0)
        energy = math.fsum(2 * (a**-12 - 2 * a**-6) for a in r)
        energy += float((x - centre).square().sum()) / 2
    value = float(target.log_rho(point_of(target)))
    assert value == pytest.approx(-energy, rel=1e-12)
    assert value == pytest.approx(target.test_value, rel=1e-12, abs=1e-10)


@each([*TARGETS, *ODD])
@pytest.mark.parametrize("cache", [1, 200, 2**16])
def test_derivatives_are_those_of_the_textbook_formula(target, cache, monkeypatch):
    """To third order; in many blocks of few pairs as in one."""
    monkeypatch.setattr(_particles, "CACHE", cache)
    x = points(target, 7)
    ours, theirs = (tower(f, x) for f in (target.log_rho, lambda y: textbook(target, y)))
    for derivative, expected in zip(ours, theirs, strict=True):
        assert error(derivative, expected) < 1e-10
    assert torch.allclose(target.log_rho(x), ours[0], rtol=1e-12, atol=1e-12)


@each([*TARGETS, *ODD])
def test_transforms_of_functions(target):
    x, f = points(target, 4), target.log_rho
    expected = tower(lambda y: textbook(target, y), x)[1]
    assert error(vmap(grad(f))(x), expected) < 1e-10
    assert error(grad(lambda y: vmap(f)(y).sum())(x), expected) < 1e-10
    assert error(vmap(f, in_dims=1)(x.T), textbook(target, x)) < 1e-10
    if target.dim > 50:
        return
    hessian = vmap(jacrev(grad(lambda y: textbook(target, y))))(x)
    assert error(vmap(jacrev(grad(f)))(x), hessian) < 1e-10
    assert error(vmap(jacrev(jacrev(f)))(x), hessian) < 1e-10
    trace = vmap(lambda y: jacrev(grad(f))(y).diagonal().sum())(x)
    assert torch.allclose(trace, hessian.diagonal(dim1=1, dim2=2).sum(-1), rtol=1e-9)


@each(TARGETS)
def test_shapes(target):
    x = points(target, 2, 3)
    for y in (x, x.clone().requires_grad_()):
        assert target.log_rho(y).shape == (2, 3)
        assert target.log_rho(y[0, 0]).shape == ()
        assert target.log_rho(y[:, :0]).shape == (2, 0)
        assert torch.allclose(target.log_rho(y)[1, 2], target.log_rho(y[1, 2]), rtol=1e-12)
    empty = x[:0].clone().requires_grad_()
    (g,) = torch.autograd.grad(target.log_rho(empty).sum(), empty)
    assert g.shape == empty.shape
    cut = x.transpose(0, 1).clone().transpose(0, 1)  # not contiguous
    assert torch.equal(target.log_rho(cut), target.log_rho(x))


@each(TARGETS)
def test_single_precision_is_no_worse_than_the_textbook(target):
    """Differences first, then squares: a close pair costs its own digits only."""
    x = points(target, 400).float()
    exact = tower(lambda y: textbook(target, y), x.double())
    ours, theirs = (tower(f, x) for f in (target.log_rho, lambda y: textbook(target, y)))
    for k in range(3):
        size = exact[k].abs().clamp(min=1) if k == 0 else exact[k].norm(dim=-1)
        off = [(t[k].double() - exact[k]).reshape(len(x), -1).norm(dim=-1) for t in (ours, theirs)]
        wrong, usual = (error / size for error in off)
        assert wrong.median() < 1.5 * usual.median() + 1e-7
        assert wrong.max() < 2 * usual.max() + 1e-6 and wrong.median() < 1e-5


# symmetries


@each(TARGETS)
def test_symmetries(target):
    n, d = target.particles
    x = points(target, 50)
    y = x.unflatten(-1, (n, d))
    value = textbook(target, x)
    q, _ = torch.linalg.qr(torch.randn(d, d, generator=torch.Generator().manual_seed(1)).double())
    mirror = torch.diag(torch.tensor([-1.0] + [1.0] * (d - 1), dtype=torch.float64))
    order = torch.randperm(n, generator=torch.Generator().manual_seed(1))
    for z in (y + 3, y @ q, y @ mirror, y[:, order]):
        assert torch.allclose(target.log_rho(z.flatten(1)), value, rtol=1e-9, atol=1e-9)
    slope = tower(target.log_rho, x)[1].unflatten(-1, (n, d))
    assert (slope.sum(1).norm(dim=-1) < 1e-12 * slope.norm(dim=(1, 2)).clamp(min=1)).all()
    assert target.rank == n * d - d


@each(TARGETS)
def test_moved(target):
    """Same density and centre; rotations Haar (moments, half reflections), all places equal."""
    n, d = target.particles
    count = 4000
    x = points(target, 1).expand(count, -1)
    y = target.moved(x, torch.Generator().manual_seed(3))
    assert torch.equal(y, target.moved(x, torch.Generator().manual_seed(3)))
    assert torch.allclose(target.log_rho(y), target.log_rho(x), rtol=1e-8)
    before, after = (t.unflatten(-1, (n, d)) for t in (x, y))
    assert torch.allclose(before.mean(1), after.mean(1), atol=1e-9)
    before, after = before - before.mean(1, keepdim=True), after - after.mean(1, keepdim=True)
    away = torch.cdist(after.norm(dim=-1)[..., None], before.norm(dim=-1)[..., None])
    origin = away.argmin(-1)  # of each particle, by its distance from the centre
    share = torch.stack([(origin == k).double().mean(0) for k in range(n)])
    assert (share - 1 / n).abs().max() < 5 * math.sqrt(1 / (n * count))
    place = origin.argsort(-1)
    back = after.gather(1, place[..., None].expand(after.shape))
    turn = torch.linalg.lstsq(before, back).solution  # (count, d, d)
    assert torch.allclose(before @ turn, back, atol=1e-8)
    eye = torch.eye(d, dtype=torch.float64)
    assert torch.allclose(turn @ turn.mT, eye.expand_as(turn), atol=1e-8)
    turns = [turn.flatten(1), turn.flatten(1).square() - 1 / d, torch.det(turn)[:, None]]
    turns.append(turn.diagonal(dim1=1, dim2=2).prod(-1, keepdim=True) - MOMENT[d])
    z = torch.cat(turns, 1)
    assert (z.mean(0) / z.std(0) * math.sqrt(count)).abs().max() < 4
    assert not torch.allclose(turn[0], turn[1], atol=0.1)


MOMENT = {2: 0.0, 3: 0.0}  # E prod_i q_ii under Haar measure on O(d): q_1 -> -q_1


# edges


def gradient(target, x):
    x = x.clone().requires_grad_()
    value = target.log_rho(x)
    return value.detach(), torch.autograd.grad(value.sum(), x)[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@each([Lj13(), Lj55()])
def test_the_hard_core(target, dtype):
    n, d = target.particles
    grid = torch.cartesian_prod(*3 * [torch.arange(4.0)])[:n].to(dtype)
    spread = grid.repeat(6, 1, 1)
    spread[1:, 1] = spread[1:, 0]
    spread[1:, 1, 0] += torch.tensor([0.0, 1e-30, 1e-4, 0.0099, 0.0101], dtype=dtype)
    x = spread.flatten(1)
    value, slope = gradient(target, x)
    assert value.isfinite().tolist() == [True, False, False, False, False, True]
    assert (value[1:5] == -torch.inf).all() and (slope[1:5] == 0).all()
    assert slope.isfinite().all() and torch.equal(target.log_rho(x), value)
    assert float(value[5]) == pytest.approx(-2 * 0.0101**-12, rel=1e-3)
    step = float(slope[5].unflatten(-1, (n, d))[1, 0])
    assert step == pytest.approx(24 * 0.0101**-13, rel=1e-3)  # outwards
    *_, h, third = tower(target.log_rho, x)
    assert h.isfinite().all() and (h[1:5] == 0).all() and (third[1:5] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_kink_of_dw4(dtype):
    target = Dw4()
    x = points(target, 1).to(dtype).repeat(4, 1)
    x[:, :2] = x[:, 2:4]
    x[1:, 0] += torch.tensor([1e-25, 1e-12, 1e-3], dtype=dtype)
    if dtype == torch.float32:
        x[:, 2:4] = x[:, :2] = 0
        x[1:, 0] = torch.tensor([1e-25, 1e-12, 1e-3], dtype=dtype)
    value, slope = gradient(target, x)
    assert value.isfinite().all() and slope.isfinite().all()
    rest = x[0].double().clone()
    alone = [torch.cat([rest[:2], rest[4:]]), rest[2:]]  # each of the two with the other two
    three = Three()
    for part, seen in zip(alone, (slope[0, :2], slope[0, 2:4]), strict=True):
        _, g = gradient(three, part)
        assert torch.allclose(seen.double(), g[:2], rtol=1e-5, atol=1e-4)
    assert tower(target.log_rho, x)[2].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("far", [1e6, 1e15, 1e30, 1e38])
@each(TARGETS)
def test_far_away(target, far, dtype):
    """Zero density where the energy overflows, never NaN, and no slope there."""
    x = points(target, 6).to(dtype)
    x[:3] *= far
    x[3, 0] = far
    x[4, -1] = -far
    value, slope = gradient(target, x)
    assert not value.isnan().any() and (value < torch.inf).all()
    assert slope.isfinite().all() and (slope[value == -torch.inf] == 0).all()
    assert value[5].isfinite() and torch.equal(target.log_rho(x), value)
    with_double = textbook(target, x.double())
    reach = torch.finfo(dtype).max
    inside = with_double.abs() < reach / 1e6
    assert torch.allclose(value[inside].double(), with_double[inside], rtol=1e-4)


@each(TARGETS)
def test_nan_stays_nan(target):
    x = points(target, 3).clone()
    x[1, 2] = torch.nan
    assert target.log_rho(x).isnan().tolist() == [False, True, False]


# known figures


def test_the_ground_state_of_thirteen():
    """-44.326801 in the usual units (Hoare and Pal 1971), every pair counted twice here: one
    particle inside a regular icosahedron, whose size alone is free."""
    gold = (1 + math.sqrt(5)) / 2
    corners = [(0, a, b * gold) for a in (-1, 1) for b in (-1, 1)]
    around = [c[k:] + c[:k] for c in corners for k in range(3)]
    x = torch.tensor([(0, 0, 0), *around], dtype=torch.float64)
    x = x / x[1].norm() * torch.linspace(0.94, 0.98, 4001, dtype=torch.float64)[:, None, None]
    bound = -Lj13().log_rho(x.flatten(1)) - x.square().sum((1, 2)) / 2
    assert float(bound.min()) == pytest.approx(2 * -44.326801, abs=2e-5)


def test_dw4_by_a_short_chain():
    """E[x . grad log rho] = -rank and a known mean energy, by HMC from spread starts."""
    target, generator = Dw4(), torch.Generator().manual_seed(0)

    def normal():
        draw = torch.randn(512, 8, generator=generator, dtype=torch.float64)
        return target.project(draw)

    x = 2 * normal()
    value, slope = gradient(target, x)
    energies, virials = [], []
    for sweep in range(160):
        p, y, g = normal(), x, slope
        start = value - p.square().sum(-1) / 2
        size = 0.16 if sweep >= 40 else 0.04  # starts are steep
        step = size * (0.8 + 0.4 * torch.rand(512, 1, generator=generator, dtype=torch.float64))
        for _ in range(10):
            p = p + step / 2 * g
            y = y + step * p
            new, g = gradient(target, y)
            p = p + step / 2 * g
        log_ratio = new - p.square().sum(-1) / 2 - start
        accept = torch.rand(512, generator=generator, dtype=torch.float64).log() < log_ratio
        x, slope = torch.where(accept[:, None], y, x), torch.where(accept[:, None], g, slope)
        value = torch.where(accept, new, value)
        if sweep >= 100:
            energies.append(-value)
            virials.append((x * slope).sum(-1))
    for series, mean, known in ((energies, -22.54, 0.01), (virials, -target.rank, 0.0)):
        chains = torch.stack(series).mean(0)
        spread = math.hypot(float(chains.std()) / math.sqrt(512), known)
        assert abs(float(chains.mean()) - mean) < 4 * spread


@each(TARGETS)
def test_statistics_and_basins(target):
    x = points(target, 40)
    y = target.moved(x, torch.Generator().manual_seed(4)) + 0.7
    for name, f in target.statistics().items():
        assert f(x).shape == (40,) and f(x.float()).dtype == torch.float32, name
        assert torch.allclose(f(x), f(y), rtol=1e-8), name
    basins = target.basins()
    cell = basins.assign(x)
    assert cell.shape == (40,) and not cell.is_floating_point()
    assert 0 <= int(cell.min()) and int(cell.max()) < basins.number
    assert torch.equal(cell, basins.assign(y))
    n, d = target.particles
    r = torch.cdist(*2 * [x.unflatten(-1, (n, d))]) + 1e9 * torch.eye(n, dtype=torch.float64)
    least = r.amin((1, 2)) if n == 4 else r.amin(-1).mean(-1)
    assert torch.allclose(target.statistics()["nearest"](x), least, rtol=1e-6)
    counted, limit = ("short_pairs", 4.0) if n == 4 else ("contacts", 1.3)
    assert torch.equal(target.statistics()[counted](x), ((r < limit).sum((1, 2)) / 2).double())


def test_basins_of_dw4_cover_all_counts():
    line = torch.zeros(3, 4, 2, dtype=torch.float64)
    line[0, :, 0] = torch.arange(4.0) * 9  # no short pair
    line[1, :, 0] = torch.arange(4.0)  # six
    line[2, :, 0] = torch.tensor([0.0, 3, 6, 9])  # three
    assert Dw4().basins().assign(line.flatten(1)).tolist() == [0, 3, 1]


@pytest.mark.parametrize("reference", [Stationary(steps=4), Scattered(steps=4), Brownian(steps=4)])
def test_normalisers_count_the_rank_and_not_the_coordinates(reference):
    """log p_t of a process without centre of mass has (n - 1) d dimensions: at its end, and in the
    change along any path."""
    target = build_target(parse("dw4"))
    base = Confined(reference.widened(2.0), target)
    rank, k = target.dim - 2, base.steps
    assert target.rank == rank and base.removed == 2
    x = base.project(torch.randn(k + 1, 50, target.dim, dtype=torch.float64))

    def log_p(x, var):
        return -x.square().sum(-1) / (2 * var) - rank / 2 * math.log(2 * math.pi * var)

    last = base.variance(1.0)
    torch.testing.assert_close(base.log_end(x[k]), log_p(x[k], last))
    if not base.start_var:
        return
    none = torch.zeros_like(x)
    change = base.log_change(x, none, none, none, torch.ones(k), torch.ones(k))
    for j in range(k + 1):
        here = log_p(x[j], base.variance(base.times[j])) - log_p(x[0], base.variance(0.0))
        torch.testing.assert_close(change[j], here)
    y, g = torch.zeros(50, dtype=torch.float64), torch.zeros_like(x[k])
    less, _ = base.less_log_end(x[k], y, g)
    torch.testing.assert_close(less, -log_p(x[k], last))
