"""A sharpened perceptron is the perceptron of points that are further apart, in every way asked."""

import pytest
import torch

from tests.tools.worlds import rng
from tiltbench.plan.spec import build_sampler, parse
from tiltbench.samplers.networks.gated import Gated
from tiltbench.samplers.networks.perceptron import Corrected, Guided, Mlp, Potential
from tiltbench.samplers.networks.sharpened import Sharpened
from tiltbench.targets.bases.references import Brownian

PROCESS, FACTOR = Brownian(steps=4, scale=2.0), 4.0


def both(network):
    """The plain model and the sharpened one, of the same parameters, neither of them zero."""
    pair = [each.build(2, PROCESS, rng()) for each in (network, Sharpened(network, FACTOR))]
    for model in pair:
        torch.nn.init.normal_(model.network.field.out.weight, generator=rng(1))
    return pair


@pytest.mark.parametrize(
    "network", [Mlp(width=8), Guided(width=8), Gated(width=8)], ids=lambda n: n.name
)
def test_it_sees_its_points_enlarged(network):
    plain, sharp = both(network)
    x, t = torch.randn(5, 2, generator=rng(2)), torch.full((5,), 0.25)
    hint = torch.ones(5, 2) if sharp.guided else None
    expected = plain.control(FACTOR * x, t, hint)
    assert torch.allclose(sharp.control(x, t, hint), expected, atol=1e-5)
    on_grid = sharp.on_grid(PROCESS.grid(x)[:-1])
    assert torch.allclose(on_grid(x, 1, hint), expected, atol=1e-5)
    assert not torch.allclose(plain.control(x, t, hint), expected, atol=1e-3)


def test_its_derivatives_are_those_of_what_it_says():
    _, sharp = both(Mlp(width=8))
    x, t = torch.randn(5, 2, generator=rng(2)), torch.full((5,), 0.25)
    _, stretches = sharp.stretched(x, t, torch.eye(2))
    jacobian = torch.stack([torch.func.jacrev(lambda y: sharp.control(y, t[0]))(y) for y in x])
    assert torch.allclose(stretches, jacobian.diagonal(dim1=-2, dim2=-1), atol=1e-4)
    plain, sharp = both(Potential(width=8))
    assert torch.allclose(sharp.potential(x, t), plain.potential(FACTOR * x, t), atol=1e-4)
    assert torch.allclose(sharp.control(x, t), FACTOR * plain.control(FACTOR * x, t), atol=1e-4)


@pytest.mark.parametrize("factor", [0.0, -1.0, float("inf"), float("nan")])
def test_a_factor_that_is_none_is_refused(factor):
    with pytest.raises(ValueError, match="factor is .* positive and finite"):
        Sharpened(factor=factor)


def test_only_perceptrons_can_be_sharpened():
    with pytest.raises(ValueError, match="network is Corrected; it must be Mlp"):
        Sharpened(Corrected())
    sampler = build_sampler(
        parse("log_variance[model=Sharpened[network=Guided[width=32],factor=2]]")
    )
    assert sampler.model == Sharpened(Guided(width=32), 2.0)
