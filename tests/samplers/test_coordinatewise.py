"""A perceptron shared by all coordinates: what it treats alike, and what passes between them."""

import math

import torch

from tests.tools.worlds import rng
from tiltbench.samplers.networks.coordinatewise import Coordinatewise, CoordinatewiseGuided
from tiltbench.samplers.networks.sharpened import Sharpened
from tiltbench.samplers.networks.timed import MOST
from tiltbench.targets.bases.references import Brownian

PROCESS, D = Brownian(steps=4, scale=2.0), 5


def awake(network):
    """A fresh model that is not 0."""
    model = network.build(D, PROCESS, rng())
    torch.nn.init.normal_(model.network.field.out.weight, generator=rng(1))
    return model


def points():
    return torch.randn(7, D, generator=rng(2)), torch.full((7,), 0.25)


def test_coordinates_are_alike_until_they_are_told_apart():
    model, (x, t), order = awake(Coordinatewise(width=8)), points(), torch.tensor([3, 1, 4, 0, 2])
    assert torch.allclose(model.control(x[:, order], t), model.control(x, t)[:, order], atol=1e-5)
    torch.nn.init.normal_(model.network.field.each, generator=rng(3))
    moved = model.control(x[:, order], t) - model.control(x, t)[:, order]
    assert moved.abs().mean() > 1e-2


def test_what_a_coordinate_knows_of_the_others_is_their_mean():
    model, (x, t) = awake(Coordinatewise(width=8)), points()
    slopes = torch.func.jacrev(lambda y: model.control(y, t[0]))(x[0])
    off = slopes[~torch.eye(D, dtype=torch.bool)]
    assert off.abs().min() > 1e-5
    for mean in model.network.field.means:
        torch.nn.init.zeros_(mean.weight)
    slopes = torch.func.jacrev(lambda y: model.control(y, t[0]))(x[0])
    assert not slopes[~torch.eye(D, dtype=torch.bool)].any()
    assert slopes.diagonal().abs().min() > 1e-5


def test_the_first_layer_sees_points_in_units_of_the_base():
    wide = awake(Coordinatewise(width=8))
    narrow = Coordinatewise(width=8).build(D, Brownian(steps=4, scale=1.0), rng())
    narrow.load_state_dict(wide.state_dict())
    x, t = points()
    assert torch.allclose(wide.control(2 * x, t), narrow.control(x, t), atol=1e-5)
    sharp = Sharpened(Coordinatewise(width=8), 3.0).build(D, PROCESS, rng())
    sharp.load_state_dict(wide.state_dict())
    assert torch.allclose(sharp.control(x, t), wide.control(3 * x, t), atol=1e-5)


def test_hints_are_clipped_for_the_dimension():
    model, (x, t) = CoordinatewiseGuided(width=8, clip=3.0).build(D, PROCESS, rng()), points()
    torch.nn.init.ones_(model.network.field.time[-1].bias[-1:])
    long = torch.full_like(x, 1e4)
    gate = model.control(x, t, torch.full_like(x, 1e-3)) / 1e-3
    clipped = model.control(x, t, long)
    assert torch.allclose(clipped, gate * 3.0 / PROCESS.spread, rtol=1e-4)
    assert torch.allclose(clipped.norm(dim=-1), gate[:, 0] * 3.0 * math.sqrt(D) / 2, rtol=1e-4)


def test_twice_as_many_alike_coordinates_feel_the_same():
    """What passes from one to another is a mean, which does not grow with their number."""
    few, (x, t) = awake(Coordinatewise(width=8)), points()
    many = Coordinatewise(width=8).build(2 * D, PROCESS, rng())
    shared = {key: part for key, part in few.state_dict().items() if key != "each"}
    many.load_state_dict({**many.state_dict(), **shared})
    twice = many.control(torch.cat([x, x], -1), t)
    assert torch.allclose(twice, few.control(x, t).repeat(1, 2), atol=1e-5)


def test_a_control_stays_within_its_bound():
    model, (x, t) = awake(Coordinatewise(width=8)), points()
    with torch.no_grad():
        model.network.field.out.weight.mul_(1e5)
    u = model.control(x, t).abs()
    assert u.max() <= MOST < u.max() + 1e-3
