"""The hint is followed as far as each coordinate's gate says, at each point."""

import pytest
import torch

from tests.tools.worlds import rng
from tiltbench.samplers.networks.gated import Gated
from tiltbench.targets.bases.references import Brownian
from tiltbench.targets.problem import pose
from tiltbench.targets.registry import TARGETS

PROCESS = Brownian(steps=4, scale=2.0)


def test_both_halves_of_the_output_have_their_part():
    model = Gated(width=8, clip=3.0).build(2, PROCESS, rng())
    x, t = torch.randn(5, 2, generator=rng(1)), torch.full((5,), 0.25)
    hint = torch.tensor([[0.1, 0.2], [30.0, -40.0]])[[0, 1, 0, 1, 0]]
    assert torch.equal(model.control(x, t, hint), torch.zeros(5, 2))  # at first
    torch.nn.init.normal_(model.network.field.out.weight, generator=rng(2))
    out = model.network.field(x, model.network.field.embed(t, x))
    h = hint * PROCESS.spread  # of length .45, and 100, which is clipped to 3
    h = torch.where(h.norm(dim=-1, keepdim=True) > 3, 3 * h / h.norm(dim=-1, keepdim=True), h)
    expected = out[:, :2] + out[:, 2:] * h
    assert torch.allclose(model.control(x, t, hint), expected, atol=1e-5)
    on_grid = model.on_grid(PROCESS.grid(x)[:-1])
    assert torch.allclose(on_grid(x, 1, hint), expected, atol=1e-5)
    gates = out[:, 2:]
    assert (gates[0] - gates[2]).abs().min() > 1e-3  # of points that differ, at one time


@pytest.mark.parametrize(
    ("sizes", "message"), [({"clip": 0.0}, "clip is 0"), ({"width": 0}, "width")]
)
def test_sizes_that_are_none_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        Gated(**sizes)


def test_controls_of_particles_leave_the_centre_of_mass_in_its_place():
    base = pose(TARGETS.load("dw4")(), PROCESS).base
    model = Gated(width=8).build(8, base, rng())
    torch.nn.init.normal_(model.network.field.out.weight, generator=rng(2))
    u = model.control(torch.randn(5, 8, generator=rng(1)), torch.full((5,), 0.25), torch.ones(5, 8))
    assert u.abs().max() > 0.1 and torch.allclose(base.project(u), u, atol=1e-5)
