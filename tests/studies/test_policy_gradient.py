"""The study of policy gradients: its closed forms of the noise, against gradients drawn."""

import pytest
import torch

from tests.tools.worlds import rng
from tiltbench.plan.spec import build_sampler, parse
from tiltbench.samplers.diffusion import Diffusion
from tiltbench.studies.policy_gradient import study
from tiltbench.studies.policy_gradient.closed_forms import (
    forward_ratio,
    free_gradients,
    ratio,
    reinforce_ratio,
)
from tiltbench.studies.policy_gradient.fixed_points import Law, end, fixed_states, in_reward
from tiltbench.targets.bases.references import Brownian

LINE, SLOPE = Brownian(steps=4, ratio=1.0), torch.tensor([0.9, -0.6])


def sampled_gradients(name, share, paths=128, batches=400):
    sampler = Diffusion(build_sampler(parse(name)).loss, reference=LINE, paths=paths)
    return free_gradients(sampler, LINE, SLOPE, share, batches, seed=3)


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_the_noise_of_reinforce(share):
    """1 + D K on a uniform grid, of a path, at any distance from the optimum; 9 here."""
    assert reinforce_ratio(LINE, 2) == pytest.approx(1 + 2 * LINE.steps)
    rows = sampled_gradients("reinforce", share)
    assert 128 * ratio(rows.flatten(1)) == pytest.approx(reinforce_ratio(LINE, 2), rel=0.1)
    pulls = torch.tensor(LINE.pulls)[:, None] * SLOPE / LINE.steps  # (1 - share) dt u*
    torch.testing.assert_close(rows.mean(0), (share - 1) * pulls.double(), rtol=0.1, atol=0.02)


def test_the_noise_of_a_point_of_the_forward_process():
    """A (steer - u_old) of one noised end point at step k: as drawn one by one."""
    n = 200_000
    x1 = LINE.end((n, 2), rng(1))
    A = (x1 @ SLOPE).double()
    for k in range(1, LINE.steps):
        at = torch.full((n,), k)
        steer = LINE.steer(LINE.renoise(x1, at, rng(k + 10)), at, x1).double()
        rows = (A - A.mean())[:, None] * steer
        assert ratio(rows) == pytest.approx(forward_ratio(LINE, k, 2), rel=0.05)


def test_adjoint_matching_has_none():
    rows = sampled_gradients("adjoint_matching", 0.0, paths=4, batches=5)
    assert float(rows.var(0).max()) < 1e-12 < float(rows.mean(0).square().max())


def test_the_claims_of_where_it_ends_judge_what_was_trained():
    goal = end(study.LINE, in_reward(study.LINE, study.PEAK, 1.0))
    other = end(study.LINE, fixed_states(study.LINE, study.PEAK, 1.0))
    kept = [study.End("reinforce", goal, goal), study.End("dpok", other, other)]
    gone = [study.End("reinforce", goal, Law(9.0, 1.0)), study.End("dpok", other, goal)]
    for ends, words in ((kept, "supported"), (gone, "refuted")):
        assert [claim.verdict for claim in study._closing(ends)] == [words, words]
    assert "| `dpok` |" in study._table_of_ends(kept)
