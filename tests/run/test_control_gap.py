"""control_err is 0 at u*, and says so where there is no closed u*."""

import math

import pytest
import torch

from tests.tools.worlds import rng
from tiltbench.metric import Outcome
from tiltbench.metrics.control_err import control_err
from tiltbench.plan.spec import build_sampler, build_target, parse
from tiltbench.run.control_gap import control_gap
from tiltbench.samplers.sampler import Draws, Traced, Unsupported
from tiltbench.targets.bases.optimal import Optimal
from tiltbench.targets.bases.process import Controlled, retrace
from tiltbench.targets.problem import pose


class Away(Controlled):
    """u* + a constant."""

    def __init__(self, optimal, away):
        self.optimal, self.away = optimal, away

    def control(self, x, t, hint=None):
        return self.optimal.control(x, t) + self.away


def gap(target, sampler, away):
    target, sampler = (
        f(parse(text)) for f, text in ((build_target, target), (build_sampler, sampler))
    )
    base, truth = pose(target, sampler.reference).base, target.truth()
    model = Away(Optimal(base, truth.noised_score), away)
    path = retrace(base, model, truth.sample(200, rng()).float(), rng(1))
    return control_gap(target, sampler, Traced(path.x[0, :, 0], path.t, path.x, path.u))


@pytest.mark.parametrize("target", ["tilt_linear[steps=20]", "tilt_quadratic[dim=10]", "gmm9"])
def test_the_distance_from_the_optimum(target):
    dim = build_target(parse(target)).dim
    assert float(gap(target, "log_variance", 0.0).max()) < 1e-9
    far = gap(target, "log_variance", 0.3)
    assert torch.allclose(far, torch.full_like(far, 0.09 * dim), rtol=1e-3)
    estimate = control_err.fn(
        None, None, Outcome(Draws(far[:, None]), None, {"control_gap": far}), rng()
    )
    assert estimate.value == pytest.approx(0.09 * dim, rel=1e-3) and math.isfinite(estimate.se)


def test_there_is_no_closed_optimum_on_a_base_with_memory():
    with pytest.raises(Unsupported, match=r"not memoryless, corr\(X_0, X_1\) = 0.5"):
        gap("tilt_linear[stepping=Constant]", "log_variance", 0.0)
    with pytest.raises(Unsupported, match="not memoryless"):
        gap("gmm9", "adjoint_schroedinger_bridge", 0.0)
    assert gap("gmm9", "dds", 0.0) is not None  # 0.0066 is as good as none


def test_where_no_closed_form_is_known_there_is_no_gap():
    target, sampler = build_target(parse("many_well_mdelta")), build_sampler(parse("log_variance"))
    assert control_gap(target, sampler, Traced(torch.zeros(2))) is None
    escort = build_sampler(parse("cmcd_lv"))
    assert control_gap(build_target(parse("gmm9")), escort, Traced(torch.zeros(2))) is None
