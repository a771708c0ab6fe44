"""Settings that make no sense are refused when they are written, in one sentence with a remedy."""

import math

import pytest
import torch

from tests.tools.worlds import Mixture, rng
from tiltbench.plan.errors import BadSpec
from tiltbench.plan.spec import build_sampler, parse
from tiltbench.samplers.sampler import Unsupported
from tiltbench.targets.bases.references import Brownian
from tiltbench.targets.cost import Cost

MUCH = Cost(10**6, 10**6)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("trajectory_balance[lr_log_Z=-1]", "lr_log_Z is -1.0; it must be at least 0"),
        ("trajectory_balance[lr_log_Z=nan]", "lr_log_Z is nan"),
        ("trajectory_balance[lr_log_Z=1e300]", "lr_log_Z is 1e.300; it must be at least 0 and at"),
        ("log_variance[lr=1e300]", "lr is 1e.300; it must be above 0 and at most"),
        ("log_variance[full_tilt=0.2]", "set start_tilt below 1, or leave full_tilt out"),
        ("log_variance[start_tilt=1e-300]", "start_tilt is 1e-300; it must be from 1e-06 to 1"),
        ("log_variance[model=Valued]", "log_variance learns no flow, which model=Valued"),
        ("subtrajectory_balance[model=Valued[control=Valued]]", "control is Valued"),
        ("log_variance[model=Guided[clip=inf]]", "clip is inf; it must be positive and finite"),
        ("log_variance[model=CoordinatewiseGuided[clip=inf]]", "clip is inf"),
        ("scld[recipe=Resampled[ratio=1e300]]", "ratio is 1e.300; it must be from 0.001 to 1000"),
        ("scld[recipe=Resampled[ratio=1e-300]]", "ratio is 1e-300; it must be from 0.001"),
        ("scld[recipe=Resampled[ratio=100]]", "eps / ratio.2, the noise at the end, is 0.0001"),
        ("cmcd_lv[recipe=Escorted[ratio=nan]]", "ratio is nan"),
        ("nets_pinn[recipe=Transported[ratio=0]]", "ratio is 0.0"),
    ],
)
def test_senseless_settings_are_refused_as_they_are_written(text, why):
    with pytest.raises(BadSpec, match=why):
        build_sampler(parse(text))


def test_a_flow_that_is_missing_is_said_before_anything_is_paid():
    sampler = build_sampler(parse("subtrajectory_balance[model=Mlp]"))
    with pytest.raises(Unsupported, match="use model=Valued"):
        sampler.init(Mixture(Brownian(steps=4)).problem(), MUCH, rng())


def test_the_buffer_of_a_tempered_training_holds_the_whole_reward():
    """To the bit: what was bought at a small tilt is not divided by it again."""
    problem = Mixture(Brownian(steps=4, scale=2.0)).problem()
    text = "log_variance[paths=16,batches=8,replay=Ranked,start_tilt=1e-6,model=Mlp[width=8]]"
    sampler, generator = build_sampler(parse(text)), rng(1)
    state = sampler.init(problem, MUCH, generator)
    for _ in range(3):
        state = sampler.step(problem, state, generator)
    seen = state.store.seen
    points, r = seen.x[: seen.filled], seen.r[: seen.filled]
    assert seen.filled == 48 and torch.equal(r.float(), problem.reward(points))
    assert math.isfinite(float(r.sum()))
