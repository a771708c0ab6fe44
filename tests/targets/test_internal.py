"""Internal coordinates: the maps, their volume, and the law of alanine dipeptide in them."""

from __future__ import annotations

import math
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from torch.autograd.functional import jacobian
from torch.func import grad, hessian, vmap

from tests.targets.test_molecules import DEFINITIONS, dtypes, mirrored, openmm, relative, turned
from tiltbench.targets import reference
from tiltbench.targets.densities.aldp import PHI, PSI, Aldp
from tiltbench.targets.molecules.angles import dihedral
from tiltbench.targets.molecules.internal import internal
from tiltbench.targets.molecules.tree import branches
from tiltbench.targets.target import test_point as point_of
from tiltbench.targets.truths.stored import Stored

CARTESIAN, INTERNAL = Aldp(), Aldp(coordinates="internal")
CHART = INTERNAL.chart
OMEGAS = Aldp.trans
CHAIN = torch.tensor(  # nm; the fourth and fifth hang where the third does, on which hangs the last
    [
        *([0.1, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.1, 0.0]),
        *([-0.05, -0.04, 0.08], [-0.05, -0.05, -0.08], [0.1, 0.2, 0.1]),
    ]
).double()
PAIRS = ((2, 3), (12, 13), (20, 21))  # hydrogens that are renamed


def exchanged(x, pairs):
    order = torch.arange(22)
    for pair in pairs:
        order[list(pair)] = order[list(pair[::-1])]
    return x.unflatten(-1, (22, 3))[..., order, :].flatten(-2)


def distances(x):
    y = x.unflatten(-1, (-1, 3))
    return torch.cdist(y, y)


def torsion_of(atoms):
    """Where z holds the torsion."""
    tree = CHART.tree
    return 39 + next(k for k, b in enumerate(tree) if k > 1 and _four(b) == atoms)


def _four(branch):
    return (branch.before, branch.grandparent, branch.parent, branch.atom)


# the maps


def test_round_trips():
    """z -> x -> z and x -> z -> x to 1e-10 in float64, x up to rigid motions and the names of
    hydrogens; also far from the origin, where angles are nearly 0 or pi."""
    x = openmm(CARTESIAN)[0]
    z = CHART.from_cartesian(x)
    y = CHART.to_cartesian(z)
    assert z.shape == (24, 60) and CHART.inside(z).all()
    assert y.unflatten(1, (22, 3)).mean(1).abs().max() < 1e-12
    named = [
        exchanged(x, [pair for pair, swap in zip(PAIRS, swaps, strict=True) if swap])
        for swaps in product((False, True), repeat=3)
    ]
    errors = torch.stack([(distances(y) - distances(one)).abs().amax((1, 2)) for one in named])
    assert (errors.amin(0) < 1e-10).all() and ((errors < 1e-3).sum(0) == 1).all()
    generator = torch.Generator().manual_seed(0)
    z = 3 * torch.randn(2000, 60, generator=generator, dtype=z.dtype)
    for atoms in (PHI, PSI):
        z[::2, torsion_of(atoms)] = 3.14159 * z[::2, torsion_of(atoms)].sign()
    z = z[CHART.inside(z)]
    back = CHART.from_cartesian(CHART.to_cartesian(z))
    assert len(z) > 100 and (back - z).abs().max() < 1e-10


def test_rigid_motions_and_names_of_hydrogens_do_not_count():
    x = openmm(CARTESIAN)[0]
    z = CHART.from_cartesian(x)
    generator = torch.Generator().manual_seed(1)
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=x.dtype))[0]
    rotation = rotation * rotation.det()
    moved = (x.unflatten(1, (22, 3)) @ rotation + 0.4).flatten(1)
    assert (CHART.from_cartesian(moved) - z).abs().max() < 1e-9
    for pair in PAIRS:
        assert (CHART.from_cartesian(exchanged(x, [pair])) - z).abs().max() < 1e-12
    y = CHART.to_cartesian(z).unflatten(1, (22, 3))
    bond, next_one = y[:, 1] - y[:, 0], y[:, 4] - y[:, 1]
    assert bond[:, [0, 2]].abs().max() < 1e-12 and (bond[:, 1] > 0).all()
    assert next_one[:, 2].abs().max() < 1e-12


def test_torsions_are_those_of_the_molecule():
    """phi, psi and omega are coordinates, from where their circles are cut; nothing else moves
    them."""
    x = openmm(CARTESIAN)[0]
    z = CHART.from_cartesian(x)
    for atoms, cut in ((PHI, 2.1), (PSI, -2.1), *((omega, 0.0) for omega in OMEGAS)):
        k = torsion_of(atoms)
        ahead = (dihedral(x, atoms) - cut) % (2 * math.pi)
        assert torch.allclose(z[:, k] * CHART.unit[k] + math.pi, ahead, atol=1e-5), atoms
        away = z + torch.randn(60, generator=torch.Generator().manual_seed(k)).double() / 9
        away[:, k] = z[:, k]
        back = dihedral(CHART.to_cartesian(away), atoms)
        assert torch.allclose(back.cos(), dihedral(x, atoms).cos(), atol=1e-9)


def test_turning_the_first_turns_all():
    """psi moves the oxygen as well: no distance behind the bond changes."""
    z = CHART.from_cartesian(openmm(CARTESIAN)[0])
    other = z.clone()
    other[:, torsion_of(PSI)] += 0.3
    before, after = distances(CHART.to_cartesian(z)), distances(CHART.to_cartesian(other))
    behind = torch.arange(14, 22)
    rest = torch.tensor([k for k in range(22) if k not in behind.tolist()])
    for part in (behind, rest):
        assert torch.allclose(before[:, part][..., part], after[:, part][..., part], atol=1e-12)
    assert (before - after).abs().max() > 0.01


def test_units_are_about_the_spread():
    for target in DEFINITIONS:
        z = CHART.from_cartesian(openmm(target)[0][:12])
        assert 0.8 < float(z.square().mean().sqrt()) < 1.5 * INTERNAL.scale
        assert float(z.abs().max()) < 6


# the volume


def test_volume_is_the_determinant_of_the_whole_map():
    """Of z, a rotation vector w at 0, where dw is the invariant measure with the volume 8 pi^2, and
    three unit vectors that shift all atoms: together 66 columns."""
    shift = torch.eye(3).repeat(22, 1).double() / math.sqrt(22)
    z = CHART.from_cartesian(openmm(CARTESIAN)[0])[::5]
    expected = CHART.log_volume(z) - math.log(8 * math.pi**2) - 3 * math.log(2)
    for one, volume in zip(z, expected, strict=True):
        y = CHART.to_cartesian(one).unflatten(0, (22, 3))
        turn = [axis.expand(22, 3).cross(y, dim=1).flatten() for axis in torch.eye(3).double()]
        columns = [jacobian(CHART.to_cartesian, one), torch.stack(turn, 1), shift]
        assert float(torch.cat(columns, 1).slogdet()[1]) == pytest.approx(float(volume), abs=1e-8)


def gaussian(stiffness):
    """-k/2 sum_{i<j} |x_i - x_j|^2, whose Z on the subspace is (2 pi / k n)^(3 (n - 1) / 2)."""

    def log_rho(x):
        y = x.unflatten(-1, (-1, 3))
        y = y - y.mean(-2, keepdim=True)
        return -stiffness / 2 * y.shape[-2] * y.square().sum((-1, -2))

    return log_rho


def test_normalising_constant_of_three_atoms_by_quadrature():
    k = 300.0
    chart = internal(torch.tensor([[0, 1], [1, 2]]), CHAIN[:3])
    node, weight = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(48))
    r, of_r = (node + 1) / 2 * 0.6, weight / 2 * 0.6
    theta, of_theta = (node + 1) / 2 * math.pi, weight / 2 * math.pi
    q = torch.cartesian_prod(r, r, theta)
    z = (q - chart.origin) / chart.unit
    weights = (torch.cartesian_prod(of_r, of_r, of_theta) / chart.unit).log().sum(-1)
    value = (chart.log_rho(gaussian(k), z) + weights).logsumexp(0)
    assert float(value) == pytest.approx(3 * math.log(2 * math.pi / (3 * k)), abs=1e-9)


def test_normalising_constant_of_six_atoms():
    """Bonds Maxwell, cos(theta) and tau uniform, two torsions in order: such z are exact draws of
    springs along bonds, where log rho less the log density is log Z for each of them; and with
    these weights Z of springs between all pairs is 1 in units of its own, within 3 errors."""
    k, n = 200.0, 100_000
    bonds = torch.tensor([[0, 1], [1, 2], [1, 3], [1, 4], [2, 5]])
    chart = internal(bonds, CHAIN, ((3, 4),))
    generator = torch.Generator().manual_seed(2)
    here = {"generator": generator, "dtype": torch.float64}
    r = (torch.randn(n, 5, 3, **here) / math.sqrt(k)).norm(dim=-1)
    theta = (2 * torch.rand(n, 4, **here) - 1).acos()
    tau = 2 * math.pi * torch.rand(n, 3, **here)
    tau[:, :2] = tau[:, :2].sort(-1).values
    log_g = (2 / math.pi) ** 0.5 * k**1.5 * r.square() * (-k / 2 * r.square()).exp()
    log_g = log_g.log().sum(-1) + (theta.sin() / 2).log().sum(-1)
    log_g += math.log(2) - 3 * math.log(2 * math.pi) + chart.unit.log().sum()
    away = torch.cat([r, theta, tau], -1) - chart.origin
    away[:, 9:] = (away[:, 9:] + math.pi) % (2 * math.pi) - math.pi
    z = away / chart.unit

    def springs(x):
        y = x.unflatten(-1, (-1, 3))
        return -k / 2 * (y[..., bonds[:, 0], :] - y[..., bonds[:, 1], :]).square().sum((-1, -2))

    log_z = 7.5 * math.log(2 * math.pi / k) - 1.5 * math.log(6)
    assert (chart.log_rho(springs, z) - log_g - log_z).abs().max() < 1e-7
    log_z = 7.5 * math.log(2 * math.pi / (6 * k / 2))
    weight = (chart.log_rho(gaussian(k / 2), z) - log_g - log_z).exp()
    error = float(weight.std()) / math.sqrt(n)
    assert error < 0.05 and abs(float(weight.mean()) - 1) < 3 * error


# the law


@pytest.mark.parametrize("target", DEFINITIONS, ids=lambda t: f"{t.forcefield}-{t.solvent}")
def test_the_law_is_the_same(target):
    """log rho of z less that of x is the log volume; the gradient is that of autograd, and of
    central differences."""
    inner = type(target)(target.forcefield, target.solvent, target.temperature, "internal")
    x = openmm(target)[0]
    z = inner.chart.from_cartesian(x)
    value, slope = inner.log_rho_and_grad(z)
    expected = target.log_rho(x) + inner.chart.log_volume(z)
    assert torch.allclose(value, expected, rtol=0, atol=1e-9)
    assert torch.allclose(inner.log_rho(z), value, rtol=0, atol=1e-11)
    y = z.clone().requires_grad_()
    (by_autograd,) = torch.autograd.grad(inner.log_rho(y).sum(), y)
    assert relative(slope, by_autograd) < 1e-12
    u = torch.cos(torch.arange(z.numel(), dtype=z.dtype)).reshape(z.shape)
    ahead, behind = (inner.log_rho(z + sign * 1e-5 * u) for sign in (1, -1))
    assert torch.allclose((ahead - behind) / 2e-5, (slope * u).sum(-1), rtol=1e-6, atol=1e-5)


def test_transforms_of_functions():
    z = CHART.from_cartesian(openmm(CARTESIAN)[0][:2])
    assert relative(vmap(grad(INTERNAL.log_rho))(z), INTERNAL.log_rho_and_grad(z)[1]) < 1e-12
    curvature = hessian(CHART.log_volume)(z[0])
    q = CHART.origin + CHART.unit * z[0]
    diagonal = torch.cat([-2 / q[:21].square(), -1 / q[21:41].sin().square(), torch.zeros(19)])
    assert torch.allclose(curvature, torch.diag(diagonal * CHART.unit**2), atol=1e-12)


def test_tables_made_in_inference_mode_serve_graphs():
    with torch.inference_mode():
        bonds = torch.tensor([[0, 1], [1, 2], [1, 3], [1, 4], [2, 5]])
        chart = internal(bonds, CHAIN, ((3, 4),))
        z = chart.from_cartesian(CHAIN.flatten())
        chart.log_rho(gaussian(1.0), z)
    y = z.clone().requires_grad_()
    (slope,) = torch.autograd.grad(chart.log_rho(gaussian(1.0), y), y)
    assert slope.isfinite().all() and slope.any()


@dtypes
def test_shapes_and_precision(dtype):
    x = openmm(CARTESIAN)[0]
    z = CHART.from_cartesian(x)
    value, slope = INTERNAL.log_rho_and_grad(z.to(dtype).reshape(2, 3, 4, 60))
    assert value.shape == (2, 3, 4) and slope.shape == (2, 3, 4, 60)
    assert value.dtype == slope.dtype == dtype
    assert (value.flatten().double() - INTERNAL.log_rho(z)).abs().max() < 5e-3
    assert relative(slope.reshape(24, 60), INTERNAL.log_rho_and_grad(z)[1]) < 1e-3
    assert INTERNAL.log_rho(z[0].to(dtype)).shape == ()
    assert [part.shape for part in INTERNAL.log_rho_and_grad(z[:0])] == [(0,), (0, 60)]
    assert CHART.from_cartesian(x.reshape(4, 6, 66).to(dtype)).dtype == dtype


@dtypes
def test_the_support_is_that_of_positions(dtype):
    """Cis bonds and D-alanine have no density in either form."""
    x = openmm(CARTESIAN)[0][0]
    bent = [turned(x, (4, 6), angle) for angle in (0.0, 0.5, 1.2, 2.0, math.pi)]
    both = torch.stack([*bent, mirrored(x)])
    z = CHART.from_cartesian(both)
    assert CHART.inside(z)[:4].all()
    alive = INTERNAL.log_rho(z.to(dtype)) > -torch.inf
    assert torch.equal(alive, CARTESIAN.log_rho(both.to(dtype)) > -torch.inf)
    assert alive.any() and not alive[-1]


@dtypes
def test_outside_there_is_no_density(dtype):
    z = CHART.from_cartesian(openmm(CARTESIAN)[0][:1]).to(dtype).repeat(9, 1)
    (low, high), phi = (pair := CHART.alike[0]), torsion_of(PHI)
    reach = math.pi / float(CHART.unit[phi])
    z[0, 3], z[1, 25], z[2, 25] = -40.0, -40.0, 40.0
    z[3, phi], z[4, phi] = 1.001 * reach, -1.001 * reach
    at = [39 + k for k in pair]
    q = (CHART.origin + CHART.unit * z[5].double())[at].flip(0)
    away = (q - CHART.origin[at] + math.pi) % (2 * math.pi) - math.pi  # the other hand
    z[5, at] = (away / CHART.unit[at]).to(dtype)
    z[6, 0], z[7, 0] = torch.inf, torch.nan
    assert low < high
    for value, slope in (INTERNAL.log_rho_and_grad(z), (INTERNAL.log_rho(z), None)):
        assert (value[:7] == -torch.inf).all() and value[7].isnan() and value[8].isfinite()
        if slope is not None:
            assert not slope[:7].any() and slope[8].isfinite().all() and slope[8].any()
    y = z.clone().requires_grad_()
    (slope,) = torch.autograd.grad(INTERNAL.log_rho(y).sum(), y)
    assert not slope[:7].any() and slope[8].any()
    assert (CHART.log_volume(z[:7]) == -torch.inf)[:6].all() and CHART.log_volume(z[8]).isfinite()


# the target


def test_what_the_target_states():
    assert (INTERNAL.dim, INTERNAL.rank, INTERNAL.particles) == (60, 60, None)
    assert INTERNAL.alike == () and CARTESIAN.alike == Aldp.same
    x, z = point_of(CARTESIAN), point_of(INTERNAL)
    assert float(INTERNAL.log_rho(z)) == pytest.approx(
        float(CARTESIAN.log_rho(x) + CHART.log_volume(z)), rel=1e-12
    )
    x = openmm(CARTESIAN)[0]
    z = CHART.from_cartesian(x)
    of_x, of_z = CARTESIAN.statistics(), INTERNAL.statistics()
    assert of_x.keys() == of_z.keys()
    for name, f in of_z.items():
        assert torch.allclose(f(z), of_x[name](x), atol=1e-9), name
    assert torch.equal(INTERNAL.basins().assign(z), CARTESIAN.basins().assign(x))
    with pytest.raises(ValueError, match="'polar'; it must be one of cartesian, internal"):
        Aldp(coordinates="polar")


@pytest.mark.parametrize("stored_for", [CARTESIAN, INTERNAL], ids=lambda t: t.coordinates)
@pytest.mark.parametrize("asked", [CARTESIAN, INTERNAL], ids=lambda t: t.coordinates)
def test_one_reference_serves_both(stored_for, asked, monkeypatch):
    x = CARTESIAN.project(openmm(CARTESIAN)[0][:12])
    params = {"forcefield": "ff96", "solvent": "obc1", "temperature": 300.0}
    if stored_for is INTERNAL:
        params["coordinates"] = "internal"
    known = {name: {"mean": 0.0, "sd": 1.0, "se": 0.1} for name in CARTESIAN.statistics()}
    facts = {
        **{"version": 1, "target": {"params": params}, "source": "made up", "log_Z": 7.0},
        **{"log_Z_se": 0.1, "statistics": known, "basins": [{"share": 1 / 3}] * 3},
    }
    rows = stored_for.chart.from_cartesian(x).float()
    monkeypatch.setattr(reference, "read", lambda home, name: Stored(rows, facts))
    truth = asked.truth()
    assert truth.log_Z == 7.0 and truth.held == 12
    draws = truth.sample(12, torch.Generator().manual_seed(0))
    assert draws.shape == (12, asked.dim) and draws.dtype == torch.float64
    energies = CARTESIAN.statistics()["energy"](x)
    value = truth.observables["energy"].f(draws)
    assert torch.allclose(value.sort().values, energies.sort().values, atol=0.02)
    assert Aldp("ff14sb", coordinates=asked.coordinates).truth().unknown


# trees and what has none


def test_trees():
    """The longest way starts the tree, the heaviest branch leads; rings are cut."""
    tree = CHART.tree
    assert [b.atom for b in tree[:4]] == [1, 4, 2, 3] and tree[0].parent == 0
    assert all(a.depth <= b.depth for a, b in pairwise(tree))
    leaders = {_four(b) for k, b in enumerate(tree) if b.leader == k and b.depth > 2}
    assert {PHI, PSI, *OMEGAS} < leaders and len(leaders) == 7
    ring = branches([(0, 1), (1, 2), (2, 3), (3, 1)], 4)
    assert [(b.atom, b.parent, b.depth) for b in ring] == [(1, 0, 1), (2, 1, 2), (3, 1, 2)]
    for bonds, atoms, sentence in (
        ([(0, 1), (1, 2), (2, 0)], 3, "no atom has one bond only"),
        ([(0, 1), (2, 3)], 4, "bonds join 2 of 4 atoms"),
    ):
        with pytest.raises(ValueError, match=sentence):
            branches(bonds, atoms)
    line = torch.tensor([[0.0, 0, 0], [0.1, 0, 0], [0.2, 0, 0]])
    with pytest.raises(ValueError, match="three atoms that follow each other are on a line"):
        internal(torch.tensor([[0, 1], [1, 2]]), line)
    with pytest.raises(ValueError, match="two atoms have no internal coordinates"):
        internal(torch.tensor([[0, 1]]), line[:2])


def test_the_virial_crosses_no_cut():
    """It is div v - k + v . grad log rho of a v that is 0 across every cut: where circles end, in
    the torsions in which hands and orders of hydrogens are cut, and in double bonds."""
    target = Aldp(coordinates="internal")
    chart = target.chart
    z = (target.point + 0.3 * torch.cos(torch.arange(60.0, dtype=torch.float64))).requires_grad_()

    def v(z):
        slope = torch.zeros_like(z, requires_grad=True)
        return torch.autograd.grad(
            target.virial(z[None], slope[None])[0].sum(), slope, create_graph=True
        )[0]

    value, k = target.virial(z[None], torch.zeros_like(z)[None])
    assert k == 41
    assert float(value.detach()) + k == pytest.approx(
        float(jacobian(v, z).diagonal().sum()), rel=1e-12
    )
    field = v(z)
    assert torch.equal(field[:41], z[:41])
    leads = [place for place, branch in enumerate(chart.tree[2:], 2) if branch.leader == place]
    followers = [41 + place - 2 for place in range(2, 21) if place not in leads]
    double = [41 + place - 2 for place in leads if chart.unit[41 + place - 2] != 1.0]
    assert len(followers) > 5 and len(double) == 2
    assert not field[followers].any() and not field[double].any()
    assert len(field.nonzero()) == 41 + len(leads) - 2
    ends = z.detach().clone()
    ends[41:] = math.pi / chart.unit[41:]
    assert v(ends.requires_grad_())[41:].abs().max() < 1e-12
    plain = Aldp()
    x, g = plain.point, plain.log_rho_and_grad(plain.point)[1]
    assert plain.virial(x[None], g[None]) == ((x * g).sum(), 63)
