"""Regressions at times of the grid: the embedding of time, most of a small network's work, is paid
once a time, and parts change nothing."""

import pytest
import torch

from tests.tools.worlds import rng
from tiltbench.plan.spec import build_sampler, build_target, parse
from tiltbench.samplers.loss import regress, regress_on_grid
from tiltbench.samplers.networks.perceptron import Mlp
from tiltbench.targets.bases.references import Brownian
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import pose

STEPS, PLENTY = 6, Cost(10**6, 10**6)
LOSSES = (
    "conditional_score_matching",
    "importance_fine_tuning_kl",
    "monte_carlo_score_matching",
    "novel_score_matching[model=Guided]",
    "target_score_matching",
    "tilt_matching",
)


@pytest.mark.parametrize("name", LOSSES)
def test_an_iteration_embeds_times_not_points(name):
    sampler = build_sampler(
        {**parse(name), "params": {**parse(name)["params"], "paths": 64, "repeats": 2}}
    )
    problem = pose(build_target(parse("gmm9")), Brownian(steps=STEPS))
    state = sampler.init(problem, PLENTY, rng())
    rows = []
    state.model.network.field.time.register_forward_hook(lambda m, x, y: rows.append(y.shape[:-1]))
    sampler.step(problem, state, rng(1))
    assert rows and all(shape.numel() <= STEPS + 1 for shape in rows), rows


@pytest.mark.parametrize("size", [7, 10**6])
def test_on_the_grid_and_in_parts_it_is_the_same_regression(size, monkeypatch):
    monkeypatch.setattr("tiltbench.samplers.loss.at_once", lambda few, dim, device: size)
    process = Brownian(steps=STEPS)
    model = Mlp(width=8).build(2, process, rng())
    torch.nn.init.normal_(model.network.field.out.weight, generator=rng(1))
    x, y = torch.randn(2, 20, 2, generator=rng(2))
    k = torch.randint(STEPS, (20,), generator=rng(3))
    results = []
    for value in (
        regress(model, x, process.grid(x)[k], y),
        regress_on_grid(model, process, x, k, y),
    ):
        grads = torch.autograd.grad(value, list(model.control_parameters()))
        results.append(torch.cat([value[None], *(g.flatten() for g in grads)]))
    assert torch.allclose(results[0], results[1], rtol=1e-4, atol=1e-5)
