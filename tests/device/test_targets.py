"""Every registered target on the pretended GPU: its truth, its density or reward, and its base."""

import pytest
import torch

from tiltbench.plan.spec import build_target
from tiltbench.run.streams import generator
from tiltbench.targets.bases.process import Uncontrolled, retrace, simulate
from tiltbench.targets.bases.references import Brownian
from tiltbench.targets.problem import pose
from tiltbench.targets.registry import TARGETS
from tiltbench.targets.target import Density

SHORT = {"steps": 3}


def built(name):
    """With a short base, where it has one of its own."""
    full = build_target({"name": name, "params": {}})
    return build_target({"name": name, "params": SHORT}) if hasattr(full, "steps") else full


def on_gpu(*tensors):
    return all(x.device.type == "cuda" for x in tensors)


@pytest.mark.parametrize("name", sorted(TARGETS.entries))
def test_its_law(gpu, name):
    """In both dtypes, with the gradient by autograd and the target's own; zero density too."""
    target = built(name)
    for dtype in (torch.float32, torch.float64):
        x = torch.randn(4, target.dim, device="cuda", dtype=dtype) * target.scale
        x = target.project(x).requires_grad_()
        density = isinstance(target, Density)
        f, both = (
            (target.log_rho, target.log_rho_and_grad)
            if density
            else (target.reward, target.reward_and_grad)
        )
        y = f(x)
        (g,) = torch.autograd.grad(y.sum(), x)
        assert on_gpu(y, g, *both(x.detach())) and y.dtype == g.dtype == dtype
        if not density:
            assert on_gpu(target.features(x))
    source = generator(0, "truth", "cuda")
    assert on_gpu(target.posed(x.detach().double(), source))


@pytest.mark.parametrize("name", sorted(TARGETS.entries))
def test_its_truth(gpu, name):
    target = built(name)
    truth = target.truth()
    x = torch.randn(4, target.dim, device="cuda", dtype=torch.float64) * target.scale
    if truth.sample is not None:
        x = truth.sample(4, generator(0, "truth", "cuda"))
        assert on_gpu(x) and x.dtype == torch.float64
    if truth.modes is not None:
        cell = truth.modes.assign(x)
        assert on_gpu(cell)
    for seen in truth.observables.values():
        assert on_gpu(seen.f(x))
    if truth.noised_score is not None:
        signal, noise = torch.full((2, 4), 0.5, device="cuda", dtype=torch.float64)
        assert on_gpu(truth.noised_score(x, signal, noise))


@pytest.mark.parametrize("name", sorted(TARGETS.entries))
def test_its_base(gpu, name):
    """Simulated, traced back, weighed and pulled back."""
    problem = pose(built(name), Brownian(steps=3))
    source = generator(0, "train", "cuda")
    path = simulate(problem.base, Uncontrolled(), (4, problem.dim), source)
    back = retrace(problem.base, Uncontrolled(), path.x[-1], source)
    for one in (path, back):
        assert on_gpu(one.x, one.u, problem.base.log_ratio(one), problem.base.running_cost(one))
    assert on_gpu(problem.base.pull_back(path.x[1], 1, path.x[1]))
    if hasattr(problem.base, "denoise"):
        assert on_gpu(problem.base.denoise(path.x[1], 1))
