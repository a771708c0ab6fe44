"""Gradients that targets state: those of autograd, at every point where log rho is finite."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import pytest
import torch

from tests.tools.registered import by_default
from tiltbench.targets.bases.components import Components
from tiltbench.targets.constrained.posterior import Posterior
from tiltbench.targets.densities._mixture import Mixture
from tiltbench.targets.densities._neighbours import neighbours
from tiltbench.targets.densities.gaussian import Gaussian
from tiltbench.targets.gradient import value_and_grad
from tiltbench.targets.log_sum import log_sum_exp
from tiltbench.targets.problem import graded
from tiltbench.targets.registry import TARGETS
from tiltbench.targets.target import Density, Tilt, table
from tiltbench.targets.tilts.tilt_linear import TiltLinear


def stated(target):
    kind, name = (Density, "log_rho") if isinstance(target, Density) else (Tilt, "reward")
    method, default = (getattr(c, f"{name}_and_grad") for c in (type(target), kind))
    return method is not default


def parts(target):
    """(log rho or the reward, the value and gradient that the target states)."""
    if isinstance(target, Density):
        return target.log_rho, target.log_rho_and_grad
    return target.reward, target.reward_and_grad


OTHERS = [
    TARGETS.load(name)(**params)
    for name, params in [
        ("gaussian", {"dim": 1, "mean": 0.0, "std": 3.0}),
        ("gmm_weighted", {"dim": 1}),
        ("gmm_weighted", {"dim": 2}),
        ("ising_hs", {"side": 3, "beta": 0.2}),
        ("ising_hs", {"side": 17}),
        ("many_well", {"dim": 2}),
        ("many_well_mdelta", {"wells": 3, "dim": 3}),
        ("phi4", {"side": 2}),
        ("phi4", {"side": 9, "m2": -1.0, "lam": 0.3}),
        ("phi4_chain", {"side": 2}),
        ("phi4_chain", {"side": 3, "m2": 0.5, "lam": 0.0}),
        ("tilt_linear", {"dim": 10}),
        ("tilt_quadratic", {"dim": 10}),
        ("tilt_shapes", {"shape": "diagonal"}),
    ]
]
ALL = [TARGETS.load(name)() for name in by_default()]
STATED = [target for target in ALL if stated(target)]
each = pytest.mark.parametrize("target", [*STATED, *OTHERS], ids=lambda t: f"{t.name}-{t.dim}")


def points(target, *shape, spread=1.0, dtype=torch.float64):
    g = torch.Generator().manual_seed(3)
    return (spread * target.scale * torch.randn(*shape, target.dim, generator=g).double()).to(dtype)


def apart(target, a, b):
    """By what gradients differ, relative to the largest entry at the point, or to 1 / scale; 0
    where there are none."""
    each = (a - b).abs().amax(-1) / b.abs().amax(-1).clamp(min=1 / target.scale)
    return max(each.tolist(), default=0.0)


def test_those_who_gain_state_a_gradient():
    by_autograd = {t.name for t in ALL if not stated(t) and not isinstance(t, Posterior)}
    assert by_autograd <= {"digits_class", "digits_even"}


@each
@pytest.mark.parametrize("spread", [0.1, 1.0, 30.0, 1e4])
def test_it_is_that_of_autograd(target, spread):
    f, both = parts(target)
    x = points(target, 40, spread=spread)
    value, grad = both(x)
    expected, slope = value_and_grad(f, x)
    assert torch.allclose(value, expected, rtol=1e-12, atol=1e-12)
    finite = expected.isfinite()
    assert apart(target, grad[finite], slope[finite]) < 1e-10


@each
def test_any_batch(target):
    f, both = parts(target)
    x = points(target, 2, 3)
    value, grad = both(x)
    for shape in ((), (6,), (1, 6), (2, 3), (2, 1, 3), (0,)):
        some = x.reshape(-1, target.dim)[: torch.Size(shape).numel()]
        y, g = both(some.reshape(*shape, target.dim))
        assert y.shape == shape and g.shape == (*shape, target.dim)
        assert torch.allclose(y.flatten(), value.flatten()[: len(some)], rtol=1e-12)
        assert torch.allclose(g.reshape(-1, target.dim), grad.reshape(-1, target.dim)[: len(some)])
    y, g = both(x.flatten(0, 1).T.contiguous().T)  # batch innermost in memory
    assert torch.allclose(y, value.flatten()) and torch.allclose(g, grad.flatten(0, 1))


@each
def test_the_middle_and_beyond_all_numbers(target):
    """0, where norms have no gradient, and points whose log rho is -inf or not a number."""
    f, both = parts(target)
    x = torch.stack([points(target, 1)[0] * scale for scale in (0.0, 1e100, 1e200)])
    value, grad = both(x)
    expected, slope = value_and_grad(f, x)
    assert torch.allclose(value, expected, rtol=1e-12, equal_nan=True)
    assert not target.name == "many_well" or value[2] == -torch.inf
    if expected[0].isfinite():
        assert torch.allclose(grad[0], slope[0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_slope_of_the_rings_near_their_cone(dtype):
    """Of one length all around the origin, down to the smallest numbers; 0 at it."""
    rings = TARGETS.load("rings")()
    way = torch.tensor([[0.6, 0.8], [-1.0, 0.0]], dtype=dtype)
    for radius in (1e-2, 1e-4, 1e-8):
        grad = rings.log_rho_and_grad(radius * way)[1]
        assert torch.allclose(grad, value_and_grad(rings.log_rho, radius * way)[1], rtol=1e-4)
        assert torch.allclose(grad.norm(dim=-1), torch.tensor(1 / 0.15**2).to(dtype), rtol=0.02)
    assert not rings.log_rho_and_grad(0 * way)[1].any()


@each
@pytest.mark.parametrize("spread", [1.0, 30.0])
def test_single_precision_is_as_good_as_before(target, spread):
    f, both = parts(target)
    x = points(target, 200, spread=spread, dtype=torch.float32)
    value, grad = both(x)
    assert value.dtype == grad.dtype == torch.float32
    best, right = value_and_grad(f, x.double())
    former, before = value_and_grad(f, x)
    fine = former.isfinite() & value.isfinite()
    assert torch.equal(value.isfinite(), former.isfinite())
    scale = best[fine].abs().clamp(min=1)
    assert ((value - best)[fine].abs() / scale).max() < max(
        2 * float(((former - best)[fine].abs() / scale).max()), 2e-6
    )
    error = apart(target, grad[fine].double(), right[fine])
    assert error < max(2 * apart(target, before[fine].double(), right[fine]), 2e-6)


@each
def test_no_graph_no_writing_and_nothing_shared(target):
    _, both = parts(target)
    x = points(target, 5)
    before = x.clone()
    value, grad = both(x.requires_grad_())
    assert not value.requires_grad and not grad.requires_grad
    assert torch.equal(x, before)
    again = grad.clone()
    value.zero_(), grad.zero_()
    assert torch.equal(x, before) and torch.equal(both(x)[1], again)


def test_a_mixture_of_students_far_out():
    """Finite to where the squares overflow, and no density beyond: never undefined."""
    target = TARGETS.load("student_mixture")()
    means = table("student_mixture", torch.zeros((), dtype=torch.float64))
    x = torch.tensor(
        [[1e3, 2e3], [1e60, -1e60], [1e60, 0.0]], dtype=torch.float64, requires_grad=True
    )
    away = x[:, None] - means
    log_t = math.log(2 / (math.pi * math.sqrt(3))) - 2 * (away.square() / 3).log1p()
    expected = log_t.sum(-1).logsumexp(-1) - math.log(len(means))
    (slope,) = torch.autograd.grad(expected.sum(), x)
    value, grad = target.log_rho_and_grad(x)
    assert torch.allclose(value, expected, rtol=1e-12)
    assert torch.allclose(grad, slope, rtol=1e-10, atol=0)
    beyond = torch.tensor([[1e200, 1.0], [1e200, 1e200]], dtype=torch.float64)
    for values in (target.log_rho(beyond), target.log_rho_and_grad(beyond)[0]):
        assert (values == -torch.inf).all()


def test_by_autograd_neither_records_a_graph():
    x = torch.randn(5, 2, requires_grad=True)
    for mode in (torch.no_grad, torch.enable_grad):
        with mode():
            for both in (value_and_grad, lambda f, x: graded(f).value_and_grad(x)):
                value, grad = both(lambda x: x.pow(3).sum(-1), x)
                assert not value.requires_grad and not grad.requires_grad
                assert torch.allclose(grad, 3 * x**2) and torch.allclose(value, (x**3).sum(-1))
    assert x.grad is None


@pytest.mark.parametrize(
    "law",
    [
        Mixture(torch.tensor([0.3, 0.7]).double(), torch.ones(2, 3).double(), 0.5),
        Components(
            torch.tensor([0.3, 0.7]).double(), torch.ones(2, 3).double(), torch.ones(2).double()
        ),
    ],
    ids=["one variance", "several"],
)
def test_a_mixture_first_asked_in_inference_mode_serves_whoever_records(law):
    score = law.noised_score if isinstance(law, Mixture) else law.score
    x = torch.randn(4, 3)  # of another precision than the law, which is copied
    with torch.inference_mode():
        first = score(x, 0.7, 0.5)
    again = score(x.requires_grad_(), 0.7, 0.5)
    assert torch.allclose(first, again)
    assert torch.autograd.grad(again.sum(), x)[0].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_sum_exp(dtype):
    """Against PyTorch's, with terms that differ by up to thousands of nats, and none at all."""
    g = torch.Generator().manual_seed(0)
    wide = torch.tensor([0.1, 10.0, 40.0, 1e4], dtype=dtype)
    near = (torch.randn(7, 50, 1, generator=g).to(dtype) * wide).requires_grad_()
    value, e, total = log_sum_exp(near)
    expected, share = near.logsumexp(0), near.softmax(0)
    tight = {"rtol": 4 * torch.finfo(dtype).eps, "atol": 4 * torch.finfo(dtype).eps}
    assert torch.allclose(value, expected, **tight)
    assert torch.allclose(e / total, share, **tight)
    (slope,) = torch.autograd.grad(value.sum(), near, create_graph=True)
    assert torch.allclose(slope, share, **tight)
    (bent,) = torch.autograd.grad(slope[0].sum(), near)
    (right,) = torch.autograd.grad(share[0].sum(), near)
    assert torch.allclose(bent, right, **tight)
    none = torch.full((3, 2), -torch.inf, dtype=dtype)
    assert torch.equal(log_sum_exp(none)[0], none[0])
    assert log_sum_exp(none * 0)[0].isnan().all()


@pytest.mark.parametrize("sides", [(2,), (3,), (65,), (2, 2), (8, 8), (3, 5), (9, 9)])
def test_sums_over_neighbours(sides):
    """Site by site, on lattices above and below the size up to which it is a matrix."""
    x = torch.randn(2, math.prod(sides), dtype=torch.float64)
    field = x.unflatten(-1, sides)
    total = torch.zeros_like(field)
    for site in itertools.product(*map(range, sides)):
        for axis, step in itertools.product(range(len(sides)), (1, -1)):
            other = list(site)
            other[axis] = (site[axis] + step) % sides[axis]
            total[(..., *site)] += field[(..., *other)]
    assert torch.allclose(neighbours(x, sides), total.flatten(1))


@pytest.mark.parametrize("side", [3, 16, 17])
def test_the_inverse_of_the_coupling(side):
    """K^-1 undoes beta A + c, as a matrix and by FFT."""
    target = TARGETS.load("ising_hs")(side=side)
    x = torch.randn(2, side**2, dtype=torch.float64)
    k = target.beta * neighbours(x, (side, side)) + target.shift * x
    assert torch.allclose(target._solve(k), x)


def test_another_log_rho_does_not_inherit_a_gradient():
    @dataclass(frozen=True)
    class Bent(Gaussian):
        def log_rho(self, x):
            return -x.pow(4).sum(-1)

    @dataclass(frozen=True)
    class Curved(TiltLinear):
        def reward(self, x):
            return -x.pow(4).sum(-1)

    class Mixin:
        def log_rho(self, x):
            return -x.pow(4).sum(-1)

    @dataclass(frozen=True)
    class Mixed(Mixin, Gaussian):
        pass

    @dataclass(frozen=True)
    class Faster(Gaussian):
        def log_rho_and_grad(self, x):
            return super().log_rho(x), 7 * x

    x = torch.tensor([[1.0, -2.0]])
    for target in (Bent(), Curved(), Mixed()):
        assert torch.equal(parts(target)[1](x)[1], -4 * x**3)
    assert torch.equal(Faster().log_rho_and_grad(x)[1], 7 * x)
