"""Parts of a draw: as before on a CPU, larger on a GPU, and of no matter for the law."""

import pytest
import torch

from tests.tools.worlds import rng, z_score
from tiltbench.plan.spec import build_sampler, build_target, parse
from tiltbench.samplers.at_once import LARGE, WIDER, at_once
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import pose

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")


@pytest.mark.parametrize(
    "dim, wider", [(1, 8), (64, 8), (65, 7), (128, 4), (300, 1), (512, 1), (10**6, 1)]
)
def test_more_at_once_on_a_gpu_unless_they_are_large(dim, wider):
    assert at_once(2048, dim, CPU) == 2048
    assert at_once(2048, dim, GPU) == 2048 * wider
    assert wider * max(dim, LARGE) <= max(WIDER * LARGE, dim)


DRAWING = {
    "log_variance[model=Mlp[width=8]]": "drawing",
    "guidance": "baselines.guidance",
}


@pytest.mark.parametrize("size", [70, 10**6])
@pytest.mark.parametrize("name, file", DRAWING.items())
def test_draws_in_parts_are_of_one_law(name, file, size, monkeypatch):
    """E exp log_w = Z forward, N(0, I) at the start back, with new noise in every part."""
    asked = []

    def parts(few, dim, device):
        asked.append((few, dim, device))
        return size

    monkeypatch.setattr(f"tiltbench.samplers.{file}.at_once", parts)
    target, sampler = build_target(parse("tilt_linear[steps=8]")), build_sampler(parse(name))
    problem, truth = pose(target, sampler.reference), target.truth()
    state = sampler.init(problem, Cost(10**6, 10**6), rng())
    draws = sampler.draw(problem, state, 1000, rng(1))
    assert len(draws.x.unique(dim=0)) == len(draws.log_w) == 1000
    assert abs(z_score((draws.log_w - truth.log_Z).exp(), 1.0)) < 4
    traced = sampler.reverse(problem, state, truth.sample(1000, rng(2)), rng(3))
    assert traced.x.shape == (9, 1000, 2) and len(traced.x[0].unique(dim=0)) == 1000
    assert (
        abs(z_score(traced.x[0].flatten(), 0.0)) < 4
        and abs(z_score(traced.x[0].flatten() ** 2, 1.0)) < 4
    )
    assert asked == [(2048, 2, CPU)] * 2


def test_groups_of_a_step_of_best_of_n_are_as_many(monkeypatch):
    target, sampler = build_target(parse("tilt_linear[steps=2]")), build_sampler(parse("best_of_n"))
    problem = pose(target, sampler.reference)
    state = sampler.init(problem, Cost(10**6, 0), rng())
    assert sampler.step(problem, state, rng()).size == 2048 // 16
    monkeypatch.setattr("tiltbench.samplers.baselines.best_of_n.at_once", lambda *_: 4096)
    assert sampler.step(problem, state, rng()).size == 4096 // 16
