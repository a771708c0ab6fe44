"""Every registered target on the pretended GPU: its truth, its density or reward, and its base."""

import pytest
import torch

from tests.tools.registered import by_default
from tiltbench.plan.spec import build_target
from tiltbench.run.streams import generator
from tiltbench.targets.bases.noising import Noising
from tiltbench.targets.bases.process import Additive, Uncontrolled, retrace, simulate
from tiltbench.targets.bases.references import Brownian
from tiltbench.targets.problem import pose
from tiltbench.targets.registry import REFERENCES, SCHEDULES, STEPPINGS
from tiltbench.targets.target import Density
from tiltbench.targets.tilts.digits_even import DigitsEven
from tiltbench.targets.tilts.tilt_linear import TiltLinear

SHORT = {"steps": 3}


def built(name):
    """With a short base, where it has one of its own."""
    full = build_target({"name": name, "params": {}})
    return build_target({"name": name, "params": SHORT}) if hasattr(full, "steps") else full


def on_gpu(*tensors):
    return all(x.device.type == "cuda" for x in tensors)


@pytest.mark.parametrize("name", by_default())
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


@pytest.mark.parametrize("name", by_default())
def test_its_truth(gpu, name):
    target = build_target({"name": name, "params": {}})
    truth = target.truth()
    x = torch.randn(4, target.dim, device="cuda", dtype=torch.float64) * target.scale
    if truth.sample is not None:
        x = truth.sample(4, generator(0, "truth", "cuda"))
        assert on_gpu(x) and x.dtype == torch.float64
    if truth.modes is not None:
        assert on_gpu(truth.modes.assign(x))
    for seen in truth.observables.values():
        assert on_gpu(seen.f(x))
    if truth.noised_score is not None:
        signal, noise = torch.full((2, 4), 0.5, device="cuda", dtype=torch.float64)
        assert on_gpu(truth.noised_score(x, signal, noise))


def runs(base, dim):
    """Simulated, traced back, weighed and pulled back, all on the device."""
    source = generator(0, "train", "cuda")
    path = simulate(base, Uncontrolled(), (4, dim), source)
    for one in (path, retrace(base, Uncontrolled(), path.x[-1], source)):
        assert on_gpu(one.x, one.u, base.log_ratio(one), base.running_cost(one))
    if isinstance(base, Additive):
        assert on_gpu(base.pull_back(path.x[1], 1, path.x[1]))
    if isinstance(base, Noising):
        assert on_gpu(base.denoise(path.x[1], 1))


@pytest.mark.parametrize("name", by_default())
def test_its_base(gpu, name):
    target = built(name)
    runs(pose(target, Brownian(steps=3)).base, target.dim)


@pytest.mark.parametrize("name", sorted(REFERENCES.entries))
def test_references(gpu, name):
    runs(REFERENCES.load(name)(steps=3), 2)


@pytest.mark.parametrize("stepping", sorted(STEPPINGS.entries))
@pytest.mark.parametrize("schedule", sorted(SCHEDULES.entries))
def test_interpolants(gpu, schedule, stepping):
    asked = {"schedule": SCHEDULES.load(schedule)(), "stepping": STEPPINGS.load(stepping)()}
    for kind in (TiltLinear, DigitsEven):
        try:
            target = kind(steps=3, **asked)
        except ValueError:  # no such noise on this schedule, or no network trained on it
            continue
        runs(target.base, target.dim)
