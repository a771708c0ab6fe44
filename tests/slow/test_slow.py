"""Long training runs (`make slow`): every trained method meets the truth from both sides."""

import pytest
import torch

from tiltbench.estimators import bar
from tiltbench.plan.spec import build_target
from tiltbench.run.meter import BudgetExceeded, Meter
from tiltbench.samplers.diffusion import Diffusion
from tiltbench.samplers.loss import Loss
from tiltbench.samplers.registry import SAMPLERS
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import pose

pytestmark = pytest.mark.slow

LOSSES = [
    made for made in (SAMPLERS.load(name) for name in SAMPLERS.entries) if isinstance(made, Loss)
]


@pytest.mark.parametrize("target", ["gaussian", "many_well_mdelta", "gmm_weighted"])
@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_bennett_estimate_of_a_trained_control(loss, target):
    """300,000 points: log Z from both sides within 4 errors + 0.02 of the truth."""
    law = build_target({"name": target, "params": {}})
    repeats = {} if loss.through_path else {"repeats": 2}
    sampler = Diffusion(loss, paths=256, **repeats)
    meter = Meter(Cost(300_000, 300_000))
    problem = pose(law, sampler.reference, meter.watch)
    generator = torch.Generator().manual_seed(0)
    state = sampler.init(problem, meter.budget, generator)
    while True:
        try:
            state = sampler.step(problem, state, generator)
        except BudgetExceeded:
            break
    free = pose(law, sampler.reference)
    truth = law.truth()
    forward = sampler.draw(free, state, 10_000, generator).log_w
    backward = sampler.reverse(free, state, truth.sample(10_000, generator), generator).log_w
    found = bar(forward, backward)
    assert abs(found.value - truth.log_Z) < 4 * found.se + 0.02
    assert found.se < 0.2
