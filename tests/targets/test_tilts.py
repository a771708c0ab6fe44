"""The tilts beside what holds of every target: figures, log Z along the noise, the optimum."""

import math

import pytest
import torch

from tests.tools.worlds import rng, z_score
from tiltbench.plan.errors import BadSpec
from tiltbench.plan.spec import build_target, parse
from tiltbench.targets.bases.mixture_flow import MixtureFlow
from tiltbench.targets.bases.optimal import Optimal
from tiltbench.targets.bases.references import Brownian
from tiltbench.targets.problem import pose
from tiltbench.targets.target import Tilt

LINEAR = ["tilt_linear", "tilt_linear[dim=10]", "tilt_linear[dim=50]"]
QUADRATIC = ["tilt_quadratic", "tilt_quadratic[dim=10]", "tilt_quadratic[dim=50]"]
NAMES = ("diagonal", "corners", "cross", "ring", "checkerboard")
SHAPES = [f"tilt_shapes[shape={shape}]" for shape in NAMES]
ALL = [*LINEAR, *QUADRATIC, *SHAPES]
PLANE = [LINEAR[0], QUADRATIC[0], *SHAPES]

each = pytest.mark.parametrize("text", ALL)


def build(text) -> Tilt:
    return build_target(parse(text))


def test_figures_of_the_linear_tilt():
    """math.md 11."""
    target = build("tilt_linear")
    truth = target.truth()
    assert truth.log_Z == pytest.approx(0.606237, abs=5e-7)
    means = [truth.observables[f"mean_{i}"].mean for i in range(2)]
    assert means == pytest.approx([1.44073, 0.35870], abs=5e-6)
    assert target.slope == (0.8, -0.5)
    assert target.base.weights == (0.4, 0.6) and target.base.variances == (0.3, 0.2)
    assert target.base.means == ((-1.5, 0.0), (1.5, 0.5))


@pytest.mark.parametrize("name", ["tilt_linear", "tilt_quadratic"])
def test_more_dimensions_keep_the_first_two(name):
    small, large = build(name), build(f"{name}[dim=50]")
    for a, b in zip(small.base.means, large.base.means, strict=True):
        assert b[:2] == a
        assert len(b) == 50
    rest = torch.randn(5, 48, generator=rng(0), dtype=torch.float64)
    x = torch.randn(5, 2, generator=rng(1), dtype=torch.float64)
    origin = torch.zeros(1, 2, dtype=torch.float64)
    ahead = large.reward(torch.cat([x, rest], -1)) - small.reward(x)
    behind = large.reward(torch.cat([origin.expand(5, 2), rest], -1)) - small.reward(origin)
    assert torch.allclose(ahead, behind)


@pytest.mark.parametrize("text", [*LINEAR, *QUADRATIC])
def test_the_first_two_coordinates_do_not_decide_the_mode(text):
    """Both modes hold mass in every dimension."""
    assert 0.05 < float(build(text).truth().modes.weight.min())


@pytest.mark.parametrize(
    "text, shown",
    [
        ("tilt_linear", 0.58),
        ("tilt_linear[dim=10]", 0.54),
        ("tilt_linear[dim=50]", 0.39),
        ("tilt_quadratic", 0.63),
        ("tilt_quadratic[dim=10]", 0.43),
        ("tilt_quadratic[dim=50]", 0.06),
        ("tilt_shapes[shape=corners]", 0.165),
        ("tilt_shapes[shape=ring]", 0.645),
    ],
)
def test_stated_ess_of_the_base(text, shown):
    """Z^2 / E exp 2r, closed form and over draws."""
    target = build(text)
    truth = target.truth()
    ess = math.exp(2 * truth.log_Z - truth.log_Z_along(1.0, 0.0, 2.0))
    assert ess == pytest.approx(shown, abs=0.006)
    x = target.base.end((100_000, target.dim), rng(2), torch.float64)
    w = (target.reward(x) - truth.log_Z).exp()
    assert float(1 / w.square().mean()) == pytest.approx(ess, rel=0.2)


@each
def test_base_is_exact_and_weighs_to_Z(text):
    """Draws of the base weighted by exp r have the moments of p*, and the mean Z."""
    target = build(text)
    truth = target.truth()
    assert isinstance(target.base, MixtureFlow)
    x = target.base.end((60_000, target.dim), rng(3), torch.float64)
    w = (target.reward(x) - truth.log_Z).exp()
    assert abs(z_score(w, 1.0)) < 4
    for f, mean, _, _ in truth.observables.values():
        assert abs(z_score(w * (f(x) - mean), 0.0)) < 4


@each
def test_problem_brings_its_own_base(text):
    target = build(text)
    problem = pose(target, Brownian())
    assert problem.base is target.base and problem.dim == target.dim
    x = target.truth().sample(5, rng(4))
    assert torch.equal(problem.reward(x), target.reward(x))


# log Z along the noise


@each
def test_log_Z_along_ends(text):
    truth = build(text).truth()
    assert truth.log_Z_along(1.0, 0.0, 1.0) == pytest.approx(truth.log_Z, abs=1e-10)
    for levels in ((1.0, 0.0), (0.5, 0.5), (0.0, 1.0)):
        assert truth.log_Z_along(*levels, 0.0) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    "levels", [(0.0, 1.0, 0.3), (0.3, 0.7, 0.5), (0.6, 0.5, 1.0), (0.9, 0.2, 0.8)]
)
@each
def test_log_Z_along_against_noised_draws(text, levels):
    signal, noise, strength = levels
    target = build(text)
    n = 40_000 if target.dim == 2 else 10_000
    x1 = target.base.end((n, target.dim), rng(5), torch.float64)
    x = signal * x1 + noise * torch.randn(x1.shape, generator=rng(6), dtype=x1.dtype)
    w = (strength * target.reward(x)).exp()
    assert abs(z_score(w / math.exp(target.truth().log_Z_along(*levels)), 1.0)) < 4


# the shapes


def test_pictures_of_the_shapes():
    """Which of the 25 are in: r is near 0 at their centres and near log 1e-3 at the others."""
    ring = {(i, j) for i in range(5) for j in range(5) if {i, j} & {0, 4}}
    inside = {
        "diagonal": {(i, i) for i in range(5)},
        "corners": {(i, j) for i in (0, 4) for j in (0, 4)},
        "cross": {(2, i) for i in range(5)} | {(i, 2) for i in range(5)},
        "ring": ring,
        "checkerboard": {(i, j) for i in range(5) for j in range(5) if (i + j) % 2 == 0},
    }
    centres = torch.tensor([-4.0, -2.0, 0.0, 2.0, 4.0], dtype=torch.float64)
    for name, wanted in inside.items():
        target = build(f"tilt_shapes[shape={name}]")
        r = target.reward(torch.cartesian_prod(centres, centres)).reshape(5, 5)
        cells = {(i, j) for i in range(5) for j in range(5) if r[i, j] > -0.01}
        assert cells == wanted, name
        off = r[r < -0.01]
        assert torch.allclose(off, torch.tensor(1e-3).double().log(), atol=0.05), name
        share = len(wanted) / 25
        log_Z = math.log(share + 1e-3 * (1 - share))
        assert target.truth().log_Z == pytest.approx(log_Z, abs=1e-12)


def test_a_wrong_shape_is_refused_with_the_names():
    with pytest.raises(BadSpec, match="'star'; it must be one of " + ", ".join(NAMES)):
        build("tilt_shapes[shape=star]")


# the optimum


@pytest.mark.parametrize("text", PLANE)
def test_optimal_control_by_quadrature(text):
    """u*_k / lift_k = (beta^2 / alpha) grad log E_base[exp r(X_1) | X_t = x] (math.md 2)."""
    target = build(text)
    base, control = target.base, Optimal(target.base, target.truth().noised_score)
    step = 0.1
    axis = torch.arange(-8, 8, step, dtype=torch.float64)
    nodes = torch.cartesian_prod(axis, axis)
    log_p, r = base.log_end(nodes), target.reward(nodes)
    for k in (10, 25, 40):
        alpha, beta = base.signals[k], base.noises[k]
        x1 = base.end((6, 2), rng(7), torch.float64)
        x = (alpha * x1 + beta * torch.randn(6, 2, generator=rng(8))).requires_grad_()
        near = log_p - (x[:, None] - alpha * nodes).square().sum(-1) / (2 * beta**2)
        log_h = (near + r).logsumexp(-1) - near.logsumexp(-1)
        expected = beta**2 / alpha * torch.autograd.grad(log_h.sum(), x)[0] * base.lifts[k]
        u = control.control(x.detach(), torch.tensor(base.times[k]))
        assert torch.allclose(u, expected, atol=1e-6 * float(expected.abs().max()))
