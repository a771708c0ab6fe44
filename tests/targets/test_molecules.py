"""Molecules: energies and forces beside OpenMM's, derivatives, support, symmetries, conversion."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.func import grad, jacrev, vmap

from tiltbench.targets.densities import _molecule
from tiltbench.targets.densities._molecule import GAS
from tiltbench.targets.densities.aldp import PHI, PSI, Aldp
from tiltbench.targets.molecules.angles import dihedral
from tiltbench.targets.molecules.forcefield import force_field
from tiltbench.targets.molecules.parameters import read
from tiltbench.targets.molecules.system import DESCREENING, Unconvertible, converted
from tiltbench.targets.target import DATA
from tiltbench.targets.target import test_point as point_of

DEFINITIONS = [
    Aldp(),
    Aldp(solvent="vacuum"),
    Aldp(forcefield="ff14sb"),
    Aldp(forcefield="ff99sbildn", solvent="obc2"),
]
VALUES = [55.71403855811965, 35.31540667000016, 42.76698960900682, 38.35933202625917]
each = pytest.mark.parametrize("target", DEFINITIONS, ids=lambda t: f"{t.forcefield}-{t.solvent}")
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


@cache
def openmm(target):
    """24 conformations, half at 300 K and half at 800 K; energies and forces of OpenMM's Reference
    platform, kJ/mol and kJ/mol/nm."""
    stored = np.load(Path(__file__).with_name("aldp_openmm.npz"))
    parts = (stored[f"{target.forcefield}_{target.solvent}_{key}"] for key in "xEF")
    x, energy, force = map(torch.from_numpy, parts)
    return x.flatten(1), energy, force.flatten(1)


def relative(values, expected):
    return float(((values.double() - expected).norm(dim=-1) / expected.norm(dim=-1)).max())


@each
@pytest.mark.parametrize(
    ("dtype", "energies", "forces"), [(torch.float64, 5e-5, 1e-7), (torch.float32, 1e-3, 5e-5)]
)
def test_energies_and_forces_are_those_of_openmm(target, dtype, energies, forces):
    x, energy, force = openmm(target)
    unit = GAS * target.temperature
    value, slope = target.log_rho_and_grad(x.to(dtype))
    assert value.dtype == slope.dtype == dtype
    assert (-unit * value.double() - energy).abs().max() < energies
    assert relative(unit * slope, force) < forces
    assert (target.energy(x.to(dtype)).double() - energy).abs().max() < energies
    alone = target.log_rho(x.to(dtype))
    assert torch.allclose(alone, value, rtol=0, atol=energies / unit)


@each
def test_value_at_the_test_point(target):
    expected = VALUES[DEFINITIONS.index(target)]
    assert float(target.log_rho(point_of(target))) == pytest.approx(expected, rel=1e-12)
    hotter = type(target)(target.forcefield, target.solvent, 600.0)
    assert float(hotter.log_rho(point_of(target))) == pytest.approx(expected / 2, rel=1e-12)


@each
def test_derivatives(target):
    """The stated gradient is that of the values, its derivatives are those of the gradient: central
    differences, whose errors are of order 1e-6; and autograd of the plain energy to 1e-12."""
    x = openmm(target)[0][[0, 5, 14]]
    u = torch.cos(torch.arange(x.numel(), dtype=x.dtype)).reshape(x.shape)
    step = 1e-6
    ahead, behind = (target.log_rho_and_grad(x + sign * step * u) for sign in (1, -1))
    y = x.clone().requires_grad_()
    value = target.log_rho(y)
    (g,) = torch.autograd.grad(value.sum(), y, create_graph=True)
    (h,) = torch.autograd.grad(g, y, u, create_graph=True)
    assert torch.allclose((ahead[0] - behind[0]) / (2 * step), (g * u).sum(-1), rtol=1e-6)
    assert relative((ahead[1] - behind[1]) / (2 * step), h.detach()) < 1e-6
    z = x.clone().requires_grad_()
    (plain,) = torch.autograd.grad(target.energy(z).sum(), z)
    assert relative(-plain / (GAS * target.temperature), g.detach()) < 1e-12
    (third,) = torch.autograd.grad((h * u).sum(), y)
    assert third.isfinite().all() and third.abs().max() > 0


def test_transforms_of_functions():
    target = Aldp()
    x = openmm(target)[0][:2]
    expected = target.log_rho_and_grad(x)[1]
    assert relative(vmap(grad(target.log_rho))(x), expected) < 1e-12
    hessian = vmap(jacrev(grad(target.log_rho)))(x)
    u = torch.cos(torch.arange(66, dtype=x.dtype))
    y = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(target.log_rho(y).sum(), y, create_graph=True)
    (product,) = torch.autograd.grad(g @ u, y, torch.ones(2, dtype=x.dtype))
    assert relative(hessian @ u, product) < 1e-10
    assert torch.allclose(hessian, hessian.mT, atol=1e-8 * float(hessian.abs().max()))


@dtypes
def test_shapes_and_blocks(dtype, monkeypatch):
    target = Aldp()
    x = openmm(target)[0].to(dtype)
    whole = target.log_rho_and_grad(x)
    for room in (1, 231 * 8 * 5):
        monkeypatch.setattr(_molecule, "CACHE", room)
        value, slope = target.log_rho_and_grad(x.reshape(2, 3, 4, 66))
        assert value.shape == (2, 3, 4) and slope.shape == (2, 3, 4, 66)
        assert torch.allclose(value.flatten(), whole[0], rtol=0, atol=4e-4)
        assert relative(slope.reshape(24, 66), whole[1]) < 5e-5
    assert target.log_rho(x[0]).shape == () and target.log_rho(x[:0]).shape == (0,)
    assert [part.shape for part in target.log_rho_and_grad(x[:0])] == [(0,), (0, 66)]
    cut = x.reshape(4, 6, 66).transpose(0, 1)
    assert torch.equal(target.log_rho(cut), target.log_rho(cut.contiguous()))


# the support


def mirrored(x):
    return (x.unflatten(-1, (22, 3)) * x.new_tensor([-1.0, 1.0, 1.0])).flatten(-2)


def turned(x, about, angle):
    """The atoms behind the bond of two atoms turned about it: those of higher index."""
    y = x.unflatten(-1, (22, 3)).clone()
    a, b = about
    axis = y[b] - y[a]
    axis = axis / axis.norm()
    moved = torch.arange(22) > (5 if about == (4, 6) else 15)
    v = y[moved] - y[b]
    along = (v @ axis)[:, None] * axis
    across = torch.linalg.cross(axis.expand_as(v), v)
    y[moved] = y[b] + along + (v - along) * math.cos(angle) + across * math.sin(angle)
    return y.flatten()


@dtypes
def test_the_support_is_cut(dtype):
    """L form with both omega within 90 degrees of trans; energies go on beyond."""
    target = Aldp()
    x = openmm(target)[0][0]
    for about, omega in (((4, 6), (1, 4, 6, 8)), ((14, 16), (8, 14, 16, 18))):
        trans = float(dihedral(x, omega))
        for angle in (0.5, 1.2, 2.0, math.pi):
            y = turned(x, about, angle)
            now = (trans + angle + math.pi) % (2 * math.pi) - math.pi
            assert float(dihedral(y, omega)) == pytest.approx(now, abs=1e-9)
            inside = abs(now) > math.pi / 2
            value, slope = target.log_rho_and_grad(y.to(dtype))
            assert bool(value > -torch.inf) == inside and bool(slope.any()) == inside
            assert target.energy(y.to(dtype)).isfinite()
    other = mirrored(x).to(dtype)
    assert float(target.log_rho(other)) == -torch.inf
    assert float(target.energy(other)) == pytest.approx(float(target.energy(x)), rel=1e-5)


@dtypes
def test_the_core_and_far_away(dtype):
    target = Aldp()
    x = openmm(target)[0][:6].to(dtype).clone()
    y = x.unflatten(-1, (22, 3))
    y[0, 20], y[1, 20], y[2, 20] = y[0, 0], y[1, 0] + 0.005, y[2, 0] + 0.02
    y[3] *= 1e12
    y[4] *= torch.finfo(dtype).max / 1e3
    z = y.flatten(1).requires_grad_()
    value = target.log_rho(z)
    (slope,) = torch.autograd.grad(value.sum(), z, create_graph=True)
    dead = (value == -torch.inf).tolist()
    assert dead[:3] == [True, True, False] and dead[4:] == [True, False]
    assert not value.isnan().any() and dead[3] == (dtype == torch.float32)
    assert slope.isfinite().all() and not slope[[0, 1, 4]].any() and slope[5].any()
    (bent,) = torch.autograd.grad(slope.sum(), z)
    assert not bent[[0, 1, 4]].any() and bent[5].isfinite().all()


@dtypes
@each
def test_degenerate_geometry_is_finite_or_nothing(target, dtype):
    """All atoms in one place, on a line, and in a plane; NaN stays NaN."""
    line = torch.arange(22, dtype=dtype)[:, None] * torch.tensor([0.1, 0.0, 0.0], dtype=dtype)
    plane = torch.cartesian_prod(*2 * [torch.arange(5, dtype=dtype) / 10])[:22]
    flat = torch.cat([plane, torch.zeros(22, 1, dtype=dtype)], 1)
    x = torch.stack([torch.zeros(22, 3, dtype=dtype), line, flat]).flatten(1)
    value, slope = target.log_rho_and_grad(x)
    assert (value == -torch.inf).all() and not slope.any()  # none is of the L form
    assert target.energy(x)[1:].isfinite().all() and float(target.energy(x)[0]) == torch.inf
    z = x[1:].clone().requires_grad_()
    assert torch.autograd.grad(target.energy(z).sum(), z)[0].isfinite().all()
    y = openmm(target)[0][:2].to(dtype).clone()
    y[1, 40] = torch.nan
    assert target.log_rho(y).isnan().tolist() == [False, True]


# symmetries


@each
def test_what_leaves_the_law_as_it_is(target):
    x = openmm(target)[0]
    generator = torch.Generator().manual_seed(0)
    y = target.moved(x, generator)
    value, moved = target.log_rho(x), target.log_rho(y)
    assert torch.allclose(moved, value, rtol=1e-10) and target.rank == 63
    before, after = (torch.cdist(z, z) for z in (v.unflatten(1, (22, 3)) for v in (x, y)))
    assert not torch.allclose(before, after)  # methyl hydrogens have other names
    single = [k for k in range(22) if all(k not in group for group in target.alike)]
    pick = torch.tensor(single)
    assert torch.allclose(before[:, pick][..., pick], after[:, pick][..., pick])
    for group in target.alike:
        for order in ((1, 0, 2), (1, 2, 0)):
            z = x.unflatten(1, (22, 3)).clone()
            z[:, list(group)] = z[:, [group[k] for k in order]]
            assert torch.allclose(target.log_rho(z.flatten(1)), value, rtol=1e-10)
    z = x.unflatten(1, (22, 3)).clone()
    z[:, [7, 9]] = z[:, [9, 7]]
    assert (target.energy(z.flatten(1)) > target.energy(x) + 50).all()
    assert torch.allclose(target.log_rho(x + 3.0), value, rtol=1e-9)


def test_the_cut_leaves_the_virial_alone():
    """The boundary is a cone: whether x is in the support does not depend on its length."""
    target = Aldp()
    x = openmm(target)[0]
    y = target.moved(x, torch.Generator().manual_seed(1))
    both = torch.cat([y, mirrored(y)])
    inside = target.allowed(both.T.reshape(22, 3, -1))
    assert inside.tolist() == [True] * 24 + [False] * 24
    for scale in (0.5, 3.0):
        assert torch.equal(target.allowed(scale * both.T.reshape(22, 3, -1)), inside)


def test_dihedrals():
    """0 where the ends are cis; the far bond turned clockwise is positive, and so are mirror images
    negative; phi and psi of the extended and helical forms are where textbooks have them."""
    angle = torch.linspace(-3.1, 3.1, 20, dtype=torch.float64)
    near, far = torch.tensor([1.0, 0, 0]).expand(20, 3), torch.tensor([0.0, 0, 1]).expand(20, 3)
    end = torch.stack([angle.cos(), -angle.sin(), torch.ones(20).double()], 1)
    x = torch.stack([near, 0 * near, far, end], 1).double().flatten(1)
    assert torch.allclose(dihedral(x, (0, 1, 2, 3)), -angle) or torch.allclose(
        dihedral(x, (0, 1, 2, 3)), angle
    )
    cold = openmm(Aldp())[0][:12]
    phi, psi = dihedral(cold, PHI), dihedral(cold, PSI)
    assert (phi < -0.8).all() and (phi > -math.pi).all() and psi.std() > 0.3
    assert torch.allclose(dihedral(mirrored(cold), PHI), -phi)


def test_statistics_and_basins():
    target = Aldp()
    x = openmm(target)[0]
    y = target.moved(x, torch.Generator().manual_seed(4)) + 0.7
    for name, f in target.statistics().items():
        assert f(x).shape == (24,) and f(x.float()).dtype == torch.float32, name
        assert torch.allclose(f(x), f(y), rtol=1e-8), name
    basins = target.basins()
    cell = basins.assign(x)
    assert torch.equal(cell, basins.assign(y)) and 0 <= int(cell.min()) and int(cell.max()) < 3
    x = torch.randn(500, 66, generator=torch.Generator().manual_seed(5))  # angles all around
    cell, phi, psi = basins.assign(x), dihedral(x, PHI), dihedral(x, PSI)
    assert torch.equal(cell == 0, (phi > 0) & (phi < 2.1))
    assert torch.equal(cell == 1, (cell != 0) & (psi > -2.1) & (psi < 0.9))


# parameters


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"forcefield": "ff03"},
            "forcefield is 'ff03'; it must be one of ff96, ff99sbildn, ff14sb",
        ),
        ({"solvent": "obc2"}, "solvent is 'obc2'; with ff96 it must be obc1 or vacuum"),
        ({"temperature": 0.0}, "temperature is 0.0; it must be positive, in kelvin"),
        ({"temperature": math.nan}, "temperature is nan; it must be positive, in kelvin"),
    ],
)
def test_fields_that_name_nothing(fields, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        Aldp(**fields)


def test_parameters_are_the_file_that_their_provenance_describes(tmp_path):
    source = DATA / "aldp_ff96.npz"
    copy = tmp_path / source.name
    with pytest.raises(ValueError, match=r"there is no aldp_ff96.npz, .* convert"):
        read(copy)
    copy.write_bytes(source.read_bytes())
    with pytest.raises(ValueError, match="aldp_ff96.json does not say the SHA-256"):
        read(copy)
    note = json.loads(source.with_suffix(".json").read_text())
    copy.with_suffix(".json").write_text(json.dumps(note))
    assert read(copy).atoms == 22
    raw = bytearray(source.read_bytes())
    raw[-40] ^= 1
    copy.write_bytes(bytes(raw))
    with pytest.raises(ValueError, match="is not the file that aldp_ff96.json describes: restore"):
        read(copy)
    assert note["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pair_values": torch.zeros(230, 3)}, "230 rows of pair_values are those of no molecule"),
        ({"bonds": torch.tensor([[0, 22]])}, "1 bonds have 21 rows of parameters"),
        ({"angles": torch.full((36, 3), 22)}, "angles name atoms that are not among the 22"),
        ({"bond_values": torch.full((21, 2), torch.nan)}, "bond_values holds a number that is not"),
        ({"torsion_values": torch.zeros(42, 2)}, r"torsion_values has the shape \(42, 2\)"),
        ({"solvent": None}, "a solvent needs both born and solvent"),
        ({"positions": torch.zeros(21, 3)}, "positions has 21 rows for 22 atoms"),
    ],
)
def test_parameters_that_fit_no_molecule(change, message):
    with pytest.raises(ValueError, match=message):
        replace(read(DATA / "aldp_ff14sb.npz"), **change)


# conversion

SYSTEM = """<?xml version="1.0" ?>
<System type="System"><Particles>{atoms}</Particles><Constraints/><Forces>
<Force type="HarmonicBondForce" usesPeriodic="0"><Bonds>
<Bond d=".15" k="2e5" p1="0" p2="1"/><Bond d=".15" k="2e5" p1="1" p2="2"/>
<Bond d=".15" k="2e5" p1="2" p2="3"/></Bonds></Force>
<Force type="HarmonicAngleForce"><Angles><Angle a="1.9" k="300" p1="0" p2="1" p3="2"/></Angles>
</Force>
<Force type="PeriodicTorsionForce"><Torsions>
<Torsion k="2" p1="0" p2="1" p3="2" p4="3" periodicity="3" phase=".4"/>
<Torsion k="5" p1="3" p2="2" p3="1" p4="0" periodicity="1" phase="3.141592653589793"/>
</Torsions></Force>
<Force type="NonbondedForce" method="0"><ParticleOffsets/><ExceptionOffsets/><Particles>
<Particle eps=".4" q=".3" sig=".3"/><Particle eps=".1" q="-.3" sig=".2"/>
<Particle eps=".4" q=".2" sig=".3"/><Particle eps=".2" q="-.2" sig=".25"/></Particles><Exceptions>
<Exception eps="0" p1="1" p2="0" q="0" sig="1"/><Exception eps="0" p1="1" p2="2" q="0" sig="1"/>
<Exception eps="0" p1="2" p2="3" q="0" sig="1"/></Exceptions></Force>
<Force type="CMMotionRemover"/>EXTRA</Forces></System>""".format(atoms='<Particle mass="1"/>' * 4)
DIELECTRIC = "solventDielectric=78.5; soluteDielectric=1; kappa=0; offset=0.009"
GB = f"""<Force type="CustomGBForce" method="0"><PerParticleParameters><Parameter name="charge"/>
<Parameter name="or"/><Parameter name="sr"/></PerParticleParameters><ComputedValues>
<Value expression="{DESCREENING}" name="I" type="2"/>
<Value expression="1/(1/or-tanh(0.8*psi+2.909125*psi^3)/radius);psi=I*or; radius=or+offset;
 offset=0.009" name="B" type="0"/></ComputedValues><EnergyTerms>
<Term expression="-0.5*138.9*(1/soluteDielectric-1/solventDielectric)*charge^2/B; {DIELECTRIC}"/>
<Term expression="-138.9*(1/soluteDielectric-1/solventDielectric)*charge1*charge2/f;
f=sqrt(r^2+B1*B2*exp(-r^2/(4*B1*B2))); {DIELECTRIC}"/></EnergyTerms>
<Particles>{'<Particle param1=".3" param2=".15" param3=".12"/>' * 4}</Particles></Force>"""
PLACES = torch.tensor(
    [[0.1, 0.14, 0.0], [0.0, 0.0, 0.0], [0.16, 0.0, 0.0], [0.2, 0.07, 0.12]], dtype=torch.float64
)


def test_a_small_system_term_by_term():
    """The four atoms of SYSTEM, the energy summed by hand."""
    field = force_field(converted(SYSTEM, PLACES), torch.device("cpu"), torch.float64)
    x = PLACES.tolist()

    def r(i, j):
        return math.dist(x[i], x[j])

    bent = (r(0, 1) ** 2 + r(1, 2) ** 2 - r(0, 2) ** 2) / (2 * r(0, 1) * r(1, 2))
    phi = float(dihedral(PLACES.flatten(), (0, 1, 2, 3)))
    energy = sum(1e5 * (r(i, i + 1) - 0.15) ** 2 for i in range(3))
    energy += 150 * (math.acos(bent) - 1.9) ** 2
    energy += 2 * (1 + math.cos(3 * phi - 0.4)) + 5 * (1 + math.cos(phi - math.pi))
    atoms = [(0.3, 0.3, 0.4), (-0.3, 0.2, 0.1), (0.2, 0.3, 0.4), (-0.2, 0.25, 0.2)]
    for i, j in ((0, 2), (0, 3), (1, 3)):
        (q, s, e), (p, t, d) = atoms[i], atoms[j]
        six = ((s + t) / 2 / r(i, j)) ** 6
        energy += 4 * math.sqrt(e * d) * (six**2 - six) + 138.93545764438198 * q * p / r(i, j)
    value = field.energy(PLACES[..., None])
    assert float(value) == pytest.approx(energy, rel=1e-12)
    assert float(field.energy_and_gradient(PLACES[..., None])[0]) == pytest.approx(energy)


def test_a_solvent_without_surface():
    """Charges alone, far apart: every atom has nearly its own radius, every pair nearly its
    distance; B_i, summed by hand, to second order."""
    parameters = converted(SYSTEM.replace("EXTRA", GB), PLACES)
    assert parameters.solvent.tolist() == [0.8, 0.0, 2.909125, 1.0, 78.5, 0.0, 138.9]
    field = force_field(parameters, torch.device("cpu"), torch.float64)
    far = 50 * PLACES
    alone = force_field(parameters.in_vacuum(), torch.device("cpu"), torch.float64)
    gained = field.energy(far[..., None]) - alone.energy(far[..., None])
    factor = 138.9 * (1 - 1 / 78.5)
    expected = -factor * 4 * 0.3**2 / (2 * 0.15)
    for i in range(4):
        for j in range(i):
            expected -= factor * 0.3**2 / float((far[i] - far[j]).norm())
    assert float(gained) == pytest.approx(expected, rel=1e-4)


def test_the_solvent_that_OpenMM_knows_by_itself():
    """GBSAOBCForce states radii and factors of them; 4 pi is not in its tension."""
    atom = '<Particle q=".3" r=".159" scale=".8"/>'
    force = (
        '<Force type="GBSAOBCForce" method="0" soluteDielectric="1" solventDielectric="78.5" '
        f'surfaceAreaEnergy="2">{atom * 4}</Force>'
    )
    parameters = converted(SYSTEM.replace("EXTRA", force), PLACES)
    assert parameters.born[0].tolist() == pytest.approx([0.3, 0.15, 0.12])
    due = [1.0, -0.8, 4.85, 1.0, 78.5, 8 * math.pi, 138.93545764438198]
    assert parameters.solvent.tolist() == pytest.approx(due)


def test_no_number_has_no_gradient_of_zero():
    x = Aldp().point.repeat(2, 1)
    x[1, 3] = math.nan
    value, slope = Aldp().log_rho_and_grad(x)
    assert value.isnan().tolist() == [False, True] and slope[1].isnan().all()
    assert slope[0].isfinite().all()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<?xml", "?xml", "the file is not XML"),
        ('<System type="System">', '<Integrator><System type="System">', "the file is not XML"),
        ("<Constraints/>", '<Constraints><Constraint d="1"/></Constraints>', "constraints=None"),
        ("EXTRA", '<Force type="CMAPTorsionForce"/>', "a CMAPTorsionForce, which the energy here"),
        ('method="0"', 'method="4"', "make the System with nonbondedMethod=NoCutoff"),
        ('usesPeriodic="0"', 'usesPeriodic="1"', "has a cut-off or a periodic box"),
        (
            'd=".15" k="2e5" p1="0"',
            'd="1.5" k="2e5" p1="0"',
            "1 is 1.5 nm long: lengths must be in",
        ),
        ('k="300"', 'k="nan"', "a Angle of the HarmonicAngleForce has k = nan: it must be finite"),
        ('k="300"', "", "has no number 'k' .* parameters are missing"),
        ('<Particle eps=".2" q="-.2" sig=".25"/>', "", "parameters of 3 atoms, the System 4"),
        ('p4="3"', 'p4="4"', "names an atom that is not among the 4"),
        ('p1="2" p2="3" q', 'p1="2" p2="7" q', "an exception of atoms 2 and 7"),
        ("<ExceptionOffsets/>", "<ExceptionOffsets><A/></ExceptionOffsets>", "parameter offsets"),
        ("EXTRA", GB.replace("0.8*psi", "0.7*psi"), "make the System with implicit/obc1.xml"),
        ("EXTRA", GB.replace("kappa=0", "kappa=1"), "not the solvent OBC1 or OBC2 without salt"),
        ("EXTRA", GB + GB, "the System has two solvents"),
        ('<Particle mass="1"/>', '<Particle mass="0"><V/></Particle>', "virtual sites"),
    ],
)
def test_systems_that_cannot_be_converted(old, new, message):
    assert SYSTEM.count(old) >= 1
    with pytest.raises(Unconvertible, match=message) as caught:
        converted(SYSTEM.replace(old, new, 1), PLACES)
    assert "\n" not in str(caught.value)


def test_systems_made_by_openmm():
    """Fresh conformations in systems that OpenMM makes now, on its Reference platform."""
    mm = pytest.importorskip("openmm", reason="OpenMM is not installed (the extra `molecules`)")
    from tests.tools.peptide import FIELDS, energies, system

    target = Aldp()
    generator = torch.Generator().manual_seed(3)
    x = openmm(target)[0]
    x = x + 0.003 * torch.randn(x.shape, generator=generator, dtype=x.dtype)
    for name in FIELDS:
        peptide = system(name)
        energy, force = energies(peptide, x, "Reference")
        parameters = converted(mm.XmlSerializer.serialize(peptide), x[0].reshape(22, 3))
        field = force_field(parameters, torch.device("cpu"), torch.float64)
        value, slope = field.energy_and_gradient(x.T.reshape(22, 3, -1))
        assert (value - energy).abs().max() < 5e-5
        assert relative(-slope.permute(2, 0, 1).flatten(1), force) < 1e-7
