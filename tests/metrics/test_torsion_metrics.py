"""Metrics of torsion angles: closed forms on the torus, quadrature, floors."""

import math
from dataclasses import dataclass

import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import linear_sum_assignment
from scipy.special import i0

from tiltbench.estimators import jackknife
from tiltbench.metric import KINDS, Outcome, Unknown
from tiltbench.metrics import _torsions
from tiltbench.metrics.torsion_kl import BINS, EPSILON
from tiltbench.plan.spec import METRICS, build_target
from tiltbench.samplers.sampler import Draws
from tiltbench.score.evaluate import _missing
from tiltbench.score.floor import known, measure
from tiltbench.targets.target import Density, Observable, Truth

TURN = 2 * math.pi
NAMES = ("torsion_w2", "phi_kl", "psi_kl", "free_energy_err", "left_err")
METRIC = {name: METRICS.load(name) for name in NAMES}


def source(seed):
    return torch.Generator().manual_seed(seed)


def von_mises(n, kappa, seed):
    """Angles of density exp(kappa cos a) / (2 pi I_0): rejection from the uniform law."""
    g = source(seed)
    a = math.pi * (2 * torch.rand(60 * n, generator=g, dtype=torch.float64) - 1)
    keep = torch.rand(60 * n, generator=g, dtype=torch.float64).log() < kappa * (a.cos() - 1)
    found = a[keep][:n]
    assert len(found) == n
    return found


@dataclass(frozen=True)
class Torus(Density):
    """phi and psi von Mises about `middle`, x = (phi, psi), any real numbers."""

    name = "torus"
    dim = 2
    middle: float = 0.0
    kappa: float = 2.0

    def torsions(self):
        return {"phi": lambda x: _torsions.wrapped(x[:, 0]), "psi": lambda x: x[:, 1]}

    def log_rho(self, x):
        return self.kappa * (x - self.middle).cos().sum(-1)

    def truth(self):
        def sample(n, g):
            seed = int(torch.randint(2**30, (), generator=g))
            x = torch.stack([von_mises(n, self.kappa, seed + i) for i in range(2)], 1)
            return _torsions.wrapped(x + self.middle)

        def left(x):
            phi = self.torsions()["phi"](x)
            return ((phi > 0) & (phi < 2.1)).double()

        share = mass(self.kappa, -self.middle, 2.1 - self.middle)
        return Truth(
            "closed form",
            sample=sample,
            observables={"left": Observable(left, share, math.sqrt(share * (1 - share)))},
        )


def mass(kappa, low, high):
    return quad(lambda a: math.exp(kappa * math.cos(a)), low, high)[0] / (TURN * i0(kappa))


def points(phi, psi, n=40):
    return torch.tensor([[phi, psi]], dtype=torch.float64).repeat(n, 1)


def score(name, x, exact=None, target=None, group=None):
    target = target or Torus()
    truth = target.truth()
    if exact is not None:
        truth = truth._replace(sample=lambda n, g: exact[:n])
    return METRIC[name].fn(target, truth, Outcome(Draws(x, None, group), None, {}), source(3))


@pytest.mark.parametrize(
    ("phi", "psi", "squared"),
    [
        (1.0, -2.0, 1 + 4),
        (3.0, 0.0, 9),
        (4.0, 0.0, (TURN - 4) ** 2),  # the shorter way round
        (math.pi, -math.pi, 2 * math.pi**2),  # no two points are further apart
    ],
)
def test_transport_of_one_point_to_another(phi, psi, squared):
    scored = score("torsion_w2", points(phi, psi), points(0.0, 0.0)).value
    assert scored == pytest.approx(math.sqrt(squared), rel=1e-9)


def test_transport_goes_across_the_cut():
    """Half a set on each side of pi, moved by 0.2: on the line one half would go all the way
    round."""
    x = torch.cat([points(3.1, 0.0), points(-3.1, 0.0)])
    moved = _torsions.wrapped(x + torch.tensor([0.2, 0.0], dtype=torch.float64))
    assert score("torsion_w2", moved, x).value == pytest.approx(0.2, rel=1e-9)
    still = score("torsion_w2", x[torch.randperm(80, generator=source(0))], x).value
    assert still == pytest.approx(0.0, abs=1e-9)


def test_transport_is_the_best_assignment():
    x, y = Torus(middle=2.5).truth().sample(60, source(1)), Torus().truth().sample(60, source(2))
    away = (x[:, None] - y).abs()
    cost = torch.minimum(away, TURN - away).square().sum(-1)
    row, column = linear_sum_assignment(cost.numpy())
    expected = math.sqrt(float(cost[row, column].mean()))
    assert score("torsion_w2", x, y).value == pytest.approx(expected, rel=1e-9)


def test_transport_of_a_rotated_law_is_its_angle():
    """All of a von Mises law turned by 0.4: from above by the rotation, and from below by the means
    on the circle where the law is narrow."""
    x = 0.05 * torch.randn(300, 2, generator=source(4), dtype=torch.float64)
    turned = _torsions.wrapped(x + math.pi)  # about the cut
    moved = _torsions.wrapped(turned + torch.tensor([0.4, 0.3], dtype=torch.float64))
    assert score("torsion_w2", moved, turned).value == pytest.approx(0.5, abs=1e-6)


def test_relative_entropy_of_von_mises_laws_is_that_of_quadrature():
    """KL(kappa = 2 at 0 || kappa = 2 at m) = 2 (1 - cos m) I_1 / I_0; in 200 bins with an epsilon
    by quadrature bin by bin."""
    shift, n = 0.7, 8_000
    target = Torus()
    exact = target.truth().sample(n, source(5))
    x = Torus(middle=shift).truth().sample(n, source(6))
    width = TURN / BINS
    edges = [-math.pi + k * width for k in range(BINS)]

    def shares(middle):
        found = torch.tensor([mass(2.0, e - middle, e + width - middle) for e in edges])
        return (found + EPSILON) / (1 + BINS * EPSILON)

    p, q = shares(0.0), shares(shift)
    expected = float((p * (p / q).log()).sum())
    kappa_mean = quad(lambda a: math.cos(a) * math.exp(2 * math.cos(a)), -math.pi, math.pi)[0]
    continuous = 2 * (1 - math.cos(shift)) * kappa_mean / (TURN * i0(2.0))
    assert expected == pytest.approx(continuous, rel=0.05)  # the bins and epsilon cost a little
    for name in ("phi_kl", "psi_kl"):
        found = score(name, x, exact)
        assert abs(found.value - expected) < 5 * found.se < 0.2
    reverse = score("phi_kl", exact, x)
    assert abs(reverse.value - float((q * (q / p).log()).sum())) < 5 * reverse.se
    assert score("phi_kl", exact, exact).value == 0.0


def test_relative_entropy_of_two_points():
    """All of the exact draws in one bin, and draws elsewhere: the epsilon decides."""
    e = EPSILON
    expected = (1 + e) / (1 + BINS * e) * math.log((1 + e) / e)
    expected += e / (1 + BINS * e) * math.log(e / (1 + e))
    x, y = points(1.0, 0.5), points(-1.0, 0.5)
    assert score("phi_kl", x, y).value == pytest.approx(expected, rel=1e-9)
    assert score("psi_kl", x, y).value == pytest.approx(0.0, abs=1e-12)


def test_the_error_of_relative_entropy_deletes_groups():
    x, y = Torus().truth().sample(12, source(7)), Torus().truth().sample(12, source(8))
    group = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2, 5, 5, 5])
    whole = score("phi_kl", x, y, group=group)
    values = []
    for g in group.unique():
        rest = Outcome(Draws(x[group != g]), None, {})
        truth = Torus().truth()._replace(sample=lambda n, g: y)
        values.append(METRIC["phi_kl"].fn(Torus(), truth, rest, source(0)).value)
    expected = jackknife(whole.value, torch.tensor(values, dtype=torch.float64))
    assert whole.n == 4 and whole.se == pytest.approx(expected, rel=1e-9)


def test_free_energies_of_steps():
    """Two halves of the circle with shares 1 : 1 and e : 1: F differs by 1 between them, +-1/2 from
    the mean of equally many bins."""
    bins = (torch.arange(36, dtype=torch.float64) + 0.5) * TURN / 36 - math.pi
    even = bins.repeat_interleave(1000)
    counts = torch.cat([torch.full((18,), 1000.0), torch.full((18,), 1000 * math.e)]).round().long()
    steep = bins.repeat_interleave(counts)
    exact = torch.stack([even, even], 1)
    x = torch.stack([even, steep[torch.randperm(len(steep), generator=source(0))][: len(even)]], 1)
    assert score("free_energy_err", x, exact).value == pytest.approx(0.5, abs=0.02)
    lost = x[x[:, 1] > 0]
    scored = score("free_energy_err", lost, exact[:: len(exact) // len(lost)]).value
    assert 1.5 < scored < 6  # a lost half has half a draw a bin


def test_bins_without_exact_draws_are_not_compared():
    even = torch.linspace(-1, 1, 4000, dtype=torch.float64)
    exact = torch.stack([even, even], 1)
    half = torch.arange(4000)[:, None] % 2 == 0
    far = torch.where(half, exact + 2.1, exact)  # of the rest F differs by a constant
    assert far.max() < math.pi
    assert score("free_energy_err", far, exact).value < 0.01
    assert score("free_energy_err", exact, exact).value == 0.0


def test_the_weight_of_a_rare_basin():
    x = torch.cat([points(1.0, 0.0, 30), points(-1.0, 0.0, 70)])
    target = Torus()
    known_share = target.truth().observables["left"]
    found = score("left_err", x)
    assert found.value == pytest.approx(abs(0.3 / known_share.mean - 1), rel=1e-12)
    assert found.se == pytest.approx(math.sqrt(0.3 * 0.7 / 99) / known_share.mean, rel=1e-9)
    unsure = target.truth()._replace(observables={"left": known_share._replace(se=0.1)})
    wide = METRIC["left_err"].fn(target, unsure, Outcome(Draws(x), None, {}), source(0))
    ratio = 0.3 / known_share.mean
    assert wide.se == pytest.approx(math.hypot(found.se, ratio * 0.1 / known_share.mean))
    assert score("left_err", points(-1.0, 0.0)).value == 1.0
    blank = target.truth()._replace(observables={"other": known_share})
    with pytest.raises(Unknown, match="left"):
        METRIC["left_err"].fn(target, blank, Outcome(Draws(x), None, {}), source(0))


@pytest.mark.parametrize("name", NAMES)
def test_exact_draws_score_at_the_floor_and_turned_ones_above(name):
    target = Torus()
    floor = measure(target, {name: METRIC[name]}, 400, repetitions=8)[name]
    x = target.truth().sample(400, source(11))
    scores = [score(name, _torsions.wrapped(x + turn)).value for turn in (0.0, 0.5, 1.0, 2.0)]
    assert abs(scores[0] - floor.mean) < 4 * floor.sd
    rising = scores if name != "left_err" else [*scores[:1], scores[3]]
    assert rising == sorted(rising)
    assert scores[3] > floor.mean + 4 * floor.sd


def test_only_molecules_have_them():
    plain, empty = build_target({"name": "gmm9"}), Outcome(Draws(torch.zeros(9, 2)), None, {})
    for metric in METRIC.values():
        assert not known(metric, plain, plain.truth())
        assert _missing(metric, plain, plain.truth(), empty) == KINDS["torsions"]
        assert known(metric, Torus(), Torus().truth())
    aldp = build_target({"name": "aldp"})
    assert list(aldp.torsions()) == ["phi", "psi"]
    inner = build_target({"name": "aldp", "params": {"coordinates": "internal"}})
    z = inner.point.repeat(3, 1) + 0.1
    x = inner.chart.to_cartesian(z)
    for name, f in aldp.torsions().items():
        assert torch.allclose(f(x), inner.torsions()[name](z), atol=1e-12)


def test_angles_that_are_no_numbers_are_refused():
    x = points(1.0, 0.0, 5)
    x[2] = math.nan
    with pytest.raises(Unknown, match="phi of 1 of 5 draws are not finite"):
        score("phi_kl", x, points(0.0, 0.0, 5))
