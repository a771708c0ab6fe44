"""What depends on the device by itself: the size of parts, and where numbers of two kinds meet."""

import pytest
import torch
from torch import Generator

from tiltbench.plan.spec import build_sampler, build_target, parse
from tiltbench.records.provenance import environment
from tiltbench.samplers.least_squares import least_squares
from tiltbench.samplers.networks.free_energy import FreeEnergy
from tiltbench.studies.bias.regressed import closed, continued, points
from tiltbench.studies.common.tilts import flow, linear, mixture
from tiltbench.studies.gradient_variance.gradients import split
from tiltbench.studies.memoryless.noise import Bell, optimum
from tiltbench.studies.memoryless_digits.coupled import Siblings, memory
from tiltbench.targets.bases.schedules import RectifiedFlow
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import pose


def randn(*shape):
    return torch.randn(*shape, generator=Generator("cuda").manual_seed(0), device="cuda")


@pytest.mark.parametrize("name", ["log_variance[model=Mlp[width=8]]", "guidance"])
def test_a_gpu_draws_more_at_once(gpu, monkeypatch, name):
    monkeypatch.setattr("tiltbench.samplers.drawing.CHUNK", 10)
    monkeypatch.setattr("tiltbench.samplers.baselines.guidance.CHUNK", 10)
    target, sampler = build_target(parse("tilt_linear[steps=2]")), build_sampler(parse(name))
    problem, starts = pose(target, sampler.reference), []
    start = type(problem.base).start

    def counted(self, shape, *rest):
        starts.append(shape[0])
        return start(self, shape, *rest)

    monkeypatch.setattr(type(problem.base), "start", counted)
    state = sampler.init(problem, Cost(10**6, 10**6), Generator("cuda"))
    draws = sampler.draw(problem, state, 200, Generator("cuda").manual_seed(0))
    assert starts == [80, 80, 40] and draws.x.device.type == "cuda"


def test_the_split_of_gradients_is_that_of_the_cpu(gpu):
    gram = randn(6, 20) @ randn(6, 20).T
    ours, cpu = split(gram.double()), split(gram.double().cpu())
    assert (ours.noises == cpu.noises).all() and (ours.signals == cpu.signals).all()
    assert ours[:2] == cpu[:2] and ours.worst == cpu.worst


def test_points_and_bridges_of_the_study_of_bias(gpu):
    tilting, law = linear((0.8, -0.5)), mixture((1.0,), ((0.7, -0.4),), (0.5,))
    base = flow(law, RectifiedFlow(), 6)
    source = Generator("cuda").manual_seed(0)
    p = points(base, law, tilting.law(law, 1.0), (0.5, 0.75), 5, source)
    drawn = p.x.new_zeros(2, *p.x.shape)
    assert continued(p, tilting, drawn, source).device.type == "cuda"
    assert all(x.device.type == "cuda" for x in closed(p, tilting, law, 0.0).values())


def test_siblings(gpu):
    ends, r = randn(4, 7, 2), randn(4, 7)
    assert optimum(ends, r, Generator("cuda")).device.type == "cuda"
    x = Bell().truth().sample(3, Generator("cuda"))
    assert x.device.type == "cuda" and x.dtype == torch.float64
    assert memory(Siblings(torch.zeros(7, 2, device="cuda"), ends)).linear == 0  # of no rank


def test_least_squares_and_a_free_energy(gpu):
    a, b = randn(9, 4).double(), randn(9, 2).double()
    a[:, 3] = a[:, 0]
    assert torch.equal(least_squares(a, b).cpu(), least_squares(a.cpu(), b.cpu()))
    energy = FreeEnergy().to("cuda")
    energy.fit(torch.linspace(0, 1, 9, device="cuda"), randn(9))
    assert energy.log_Z.isfinite()


def test_the_environment_is_told(gpu):
    found = environment("cuda")
    assert found["device_name"] and found["tf32"] in (True, False)
    assert {"cuda", "cudnn", "driver", "capability"} <= set(found)
