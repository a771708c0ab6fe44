"""Parameters with bounds: transforms, their Jacobians, and tables of them."""

import math

import pytest
import torch

from tiltbench.targets.constrained import transforms
from tiltbench.targets.constrained.parameters import (
    Parameter,
    constrain,
    dimension,
    rows,
    unconstrain,
)
from tiltbench.targets.constrained.transforms import Log, Logit

ALL = {
    "identity": (transforms.REAL, 3),
    "log": (Log(lower=-2.0), 3),
    "logit": (Logit(-1.0, 3.0), 3),
    "ordered": (transforms.ORDERED, 4),
    "positive ordered": (transforms.POSITIVE_ORDERED, 4),
    "stick-breaking": (transforms.CORNER, 4),
    "simplex": (transforms.SIMPLEX, 4),
}
each = pytest.mark.parametrize("transform, size", ALL.values(), ids=ALL)


def free_numbers(transform, size, n=50):
    g = torch.Generator().manual_seed(1)
    return 1.5 * torch.randn(n, transform.free(size), generator=g, dtype=torch.float64)


@each
def test_log_jacobian_is_that_of_autograd(transform, size):
    u = free_numbers(transform, size)
    _, stated = transform.forward(u)
    free = transform.free(size)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda v: transform.forward(v)[0][:free]))(u)
    assert torch.allclose(stated, torch.linalg.slogdet(jacobian).logabsdet, atol=1e-10)


@each
def test_inverse_undoes_forward_in_any_batch(transform, size):
    u = free_numbers(transform, size, 6).reshape(2, 3, -1)
    theta, slope = transform.forward(u)
    assert theta.shape == (2, 3, size) and slope.shape == (2, 3)
    assert torch.allclose(transform.inverse(theta), u, atol=1e-9)
    alone, _ = transform.forward(u[0, 0])
    assert torch.allclose(alone, theta[0, 0])


@each
def test_at_its_reach_the_parameters_are_in_their_support(transform, size):
    reach = min(transform.reach, 100.0)
    for sign in (-1, 1):
        u = torch.full((transform.free(size),), sign * reach, dtype=torch.float64)
        theta, slope = transform.forward(u.requires_grad_())
        assert theta.isfinite().all() and slope.isfinite()
        (g,) = torch.autograd.grad(theta.sum() + slope, u)
        assert g.isfinite().all()


def test_supports():
    u = 3 * torch.randn(1000, 3, generator=torch.Generator().manual_seed(2)).double()
    assert (Log(2.0).forward(u)[0] > 2).all()
    low, high = Logit(-1, 3).forward(u)[0].aminmax()
    assert -1 < low < high < 3
    assert (transforms.ORDERED.forward(u)[0].diff() > 0).all()
    assert (transforms.POSITIVE_ORDERED.forward(u)[0][:, 0] > 0).all()
    corner = transforms.CORNER.forward(u)[0]
    assert (corner > 0).all() and (corner.sum(-1) < 1).all()
    simplex = transforms.SIMPLEX.forward(u)[0]
    assert torch.allclose(simplex.sum(-1), torch.ones(1000).double())
    middle = transforms.SIMPLEX.forward(torch.zeros(3).double())[0]
    assert torch.allclose(middle, torch.full((4,), 0.25).double())


def test_a_flat_density_on_a_simplex_has_the_volume_of_it():
    """The integral of the Jacobian over R^2 is 1 / 2!, by a sum on a fine grid."""
    line = torch.arange(-25, 25, 0.1, dtype=torch.float64)
    u = torch.cartesian_prod(line, line)
    for transform in (transforms.SIMPLEX, transforms.CORNER):
        volume = transform.forward(u)[1].exp().sum() * 0.01
        assert volume == pytest.approx(0.5, rel=1e-8)


TABLE = (
    Parameter("mu"),
    Parameter("sd", transforms.POSITIVE, 2, centre=(0.5, -1.0), width=0.3),
    Parameter("share", transforms.SIMPLEX, 3, width=(2.0, 0.5)),
)


def test_a_table_moves_stretches_and_counts():
    assert dimension(TABLE) == 5
    assert rows(TABLE)[1:] == [
        ("sd[2]", "above 0", "log"),
        ("share[3]", "positive, of sum 1", "simplex"),
    ]
    assert TABLE[1].labels == ["sd[1]", "sd[2]"] and TABLE[0].labels == ["mu"]
    x = torch.randn(7, 5, generator=torch.Generator().manual_seed(0)).double()
    theta, slope, inside = constrain(TABLE, x)
    assert theta["mu"].shape == (7,) and theta["share"].shape == (7, 3) and inside.all()
    assert torch.allclose(theta["sd"][:, 1], (-1 + 0.3 * x[:, 2]).exp())
    assert torch.allclose(unconstrain(TABLE, theta), x)

    def all_free(v):
        theta = constrain(TABLE, v).theta
        return torch.cat([theta["mu"][None], theta["sd"], theta["share"][:2]])

    jacobian = torch.func.vmap(torch.func.jacrev(all_free))(x)
    assert torch.allclose(slope, torch.linalg.slogdet(jacobian).logabsdet)


def test_beyond_its_reach_nothing_is_inside():
    x = torch.tensor([[0.0, 0, 0, 0, 0], [0, 400, 0, 0, 0], [0, 0, 0, 0, -80]]).double()
    theta, _, inside = constrain(TABLE, x)
    assert inside.tolist() == [True, False, False]
    assert all(part.isfinite().all() for part in theta.values())


def test_no_number_is_not_taken_for_a_point_of_no_density():
    constrained = constrain(TABLE, torch.full((2, 5), math.nan).double())
    assert constrained.inside.all() and constrained.log_jacobian.isnan().all()


def test_the_log_of_a_share_near_one_is_exact():
    u = torch.tensor([-25.0, 25.0, 38.0]).double()
    exact = torch.nn.functional.logsigmoid(u)
    assert torch.allclose(transforms.logsigmoid(u), exact, rtol=1e-14, atol=0)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Parameter("s", transforms.SIMPLEX, 1), "size 1, which leaves no free number"),
        (lambda: Parameter("b", size=2, centre=(1.0,)), "1 numbers as its centre; it must have 2"),
        (lambda: Parameter("b", width=0.0), "the width of b is 0.0; it must be positive"),
        (lambda: Parameter("b", width=math.nan), "the width of b is nan; it must be finite"),
        (lambda: Parameter("b", size=2, width=(1.0, math.nan)), "the width of b .* must be finite"),
        (lambda: Parameter("b", centre=math.inf), "the centre of b is inf; it must be finite"),
        (lambda: dimension((Parameter("b"), Parameter("b"))), "more than one parameter b: give"),
        (lambda: Logit(1.0, 1.0), "upper is 1.0; it must be above lower, 1.0"),
    ],
)
def test_an_impossible_table_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_parameters_outside_their_support_are_refused():
    theta = {"mu": torch.zeros(1), "sd": torch.tensor([[1.0, -1.0]]), "share": torch.ones(1, 3) / 3}
    with pytest.raises(ValueError, match="sd is outside its support, above 0"):
        unconstrain(TABLE, theta)
    theta = {**theta, "sd": torch.ones(1, 2), "share": torch.tensor([[0.5, 0.2, 0.1]])}
    with pytest.raises(ValueError, match="share is outside its support, positive, of sum 1"):
        unconstrain(TABLE, theta)
