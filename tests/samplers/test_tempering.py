"""A tilt that grows while a sampler trains: what training sees is of lambda r, draws are of r."""

import math
from dataclasses import replace

import pytest
import torch

from tests.tools.worlds import Mixture, Shifted, rng, z_score
from tiltbench.plan.spec import build_sampler, parse
from tiltbench.samplers.loss import log_weight
from tiltbench.samplers.networks.control import Control
from tiltbench.samplers.networks.model import Model
from tiltbench.samplers.tempering import growing, marked, present
from tiltbench.targets.bases.references import Brownian, Stationary
from tiltbench.targets.cost import Cost

MUCH = Cost(10**7, 10**7)
HALF = "start_tilt=0.5,full_tilt=1"


class Exact(Control):
    """The optimum of a world, and theta of something else."""

    def __init__(self, world):
        super().__init__()
        self.world = world
        self.theta = torch.nn.Parameter(torch.zeros(()))

    def control(self, x, t, hint=None):
        return self.world.control(x.detach(), t) + self.theta * (0.5 + torch.sin(x))


def test_lambda_grows_linearly_and_stays():
    shares = [growing(share, 0.2, 0.5) for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert shares == pytest.approx([0.2, 0.6, 1.0, 1.0, 1.0])
    assert growing(0.0, 1.0, 0.5) == 1.0


@pytest.mark.parametrize(
    "loss", ["log_variance", "relative_entropy", "adjoint_matching", "novel_score_matching"]
)
def test_the_optimum_of_training_is_that_of_half_the_tilt(loss):
    world = Shifted(Stationary(steps=8))
    sampler = build_sampler(parse(f"{loss}[paths=64,{HALF}]"))
    at = {}
    for tilt in (0.5, 1.0):
        model, slopes = Model(Exact(world.at(tilt))), []
        for seed in range(16):
            batch = sampler.batch(world.problem(), model, 0.0, rng(seed))
            value = sampler.loss.value(model, world.base, batch, rng(seed))
            slopes.append(torch.autograd.grad(value, model.network.theta)[0].double())
        at[tilt] = torch.stack(slopes)
    # the stationary base's own memory leaves a slope of its size
    assert abs(at[0.5].mean()) < 4 * at[0.5].std() / 4 + 0.04 * abs(at[1.0].mean())
    assert abs(z_score(at[1.0], 0.0)) > 6


def test_log_Z_of_draws_is_that_of_all_of_r():
    """Training at half the tilt leads to the control of half the tilt, weighed for all of it."""
    world = Shifted(Brownian(steps=6))
    sampler = build_sampler(
        parse(f"adjoint_matching[paths=64,lr=0.02,batches=100000,model=Mlp[width=16],{HALF}]")
    )
    problem, generator = world.problem(), rng(1)
    state = sampler.init(problem, MUCH, generator)
    for _ in range(150):
        state = sampler.step(problem, state, generator)
    draws = sampler.draw(problem, state, 2000, rng(2))
    assert abs(z_score((draws.log_w - world.log_Z).exp(), 1.0)) < 4
    whole = build_sampler(parse("adjoint_matching"))
    assert torch.equal(whole.draw(problem, state, 2000, rng(2)).log_w, draws.log_w)
    mean = world.at(0.5).slope * world.base.spread**2
    for i in range(2):
        assert abs(z_score(draws.x[:, i], float(mean[i]))) < 5
        assert abs(z_score(draws.x[:, i], 2 * float(mean[i]))) > 5


@pytest.mark.parametrize(
    "name",
    [
        "log_variance[model=Guided[width=8]]",
        "log_variance[model=Guided[width=8],recipe=Escorted]",
        "log_variance[recipe=Escorted[annealing=ThroughDenoiser]]",
    ],
)
def test_a_kept_batch_is_taken_to_the_present_tilt(name):
    """What it weighs is what the same points would have weighed, bought at that tilt."""
    problem = Mixture(Stationary(steps=4, scale=2.0)).problem()
    sampler = replace(build_sampler(parse(name)), paths=16, start_tilt=0.4, steepest=0.7)
    model = sampler.init(problem, MUCH, rng()).model
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02)
    batches, processes = {}, {}
    for tilt in (0.4, 0.9):
        posed = sampler.posed(problem, tilt)
        processes[tilt] = posed.base
        path = Points(batches[0.4]["x"]) if batches else None
        with torch.no_grad():
            points = path.of(posed, model) if path else None
            points = points or sampler.recipe.simulate(posed, model, 16, rng(3))
        label = sampler.loss.label(posed, model, points, 0.5, rng())
        batches[tilt] = marked(label, tilt)
    now = present(sampler.loss, processes[0.9], batches[0.4], 0.9)
    expected = log_weight(model, processes[0.9], batches[0.9])
    torch.testing.assert_close(
        log_weight(model, processes[0.9], now), expected, rtol=1e-4, atol=1e-3
    )
    before = log_weight(model, processes[0.9], batches[0.4])
    assert not torch.allclose(before, expected, atol=1e-2)
    for key in set(batches[0.9]) - {"tilt", "u"}:
        torch.testing.assert_close(now[key], batches[0.9][key], rtol=1e-4, atol=1e-4)


class Points:
    """Given points in the place of simulated ones."""

    def __init__(self, x):
        self.x = x

    def of(self, posed, model):
        if not hasattr(posed.base, "_walk"):
            from tiltbench.samplers.recipes.recipe import Base

            return Base().passing(posed, model, self.x)
        tilts = [posed.base._tilt(x, k) for k, x in enumerate(self.x)]
        us = [
            model.control(x, posed.base.grid(x)[k], tilt.pull if model.guided else None)
            for k, (x, tilt) in enumerate(zip(self.x, tilts, strict=True))
        ]
        flows = [posed.base.flow.carried(x, k, 0.0, 0.0)[1] for k, x in enumerate(self.x)]
        return posed.base._recorded(list(self.x), us, tilts, flows, model.guided)


@pytest.mark.parametrize("replay", ["NoReplay", "Unranked[updates=2,search=Langevin]"])
def test_every_step_of_the_optimiser_sees_the_tilt_of_its_time(replay):
    """Of the batches that are kept as well, and of paths traced back from a buffer."""
    world = Shifted(Brownian(steps=4))
    parts = f"paths=4,repeats=3,memory=3,batches=8,start_tilt=0.2,replay={replay}"
    sampler = build_sampler(parse(f"log_variance[{parts}]"))
    seen, value = [], sampler.loss.value

    def watched(model, process, batch, generator):
        r = (batch["x"][-1] * world.slope).sum(-1)
        ratio = batch["r"] / r.double()
        assert float(ratio.max() - ratio.min()) < 1e-3
        seen.append(float(ratio.mean()))
        return value(model, process, batch, generator)

    sampler = replace(sampler, loss=sampler.loss._replace(value=watched))
    problem, generator = world.problem(), rng(1)
    state = sampler.init(problem, MUCH, generator)
    for n in range(8):
        state = sampler.step(problem, state, generator)
        expected, each = min(0.2 + 0.8 * (n / 8) / 0.5, 1.0), 3 + sampler.replay.updates
        assert seen[n * each :] == pytest.approx([expected] * each, abs=1e-3)


def test_it_is_refused_beside_a_ladder_of_tilts():
    with pytest.raises(ValueError, match="tilt_matching climbs a ladder of tilts of its own"):
        replace(build_sampler(parse("tilt_matching")), start_tilt=0.5)
    for name in ("start_tilt", "full_tilt"):
        for wrong in (0.0, 1.5, math.nan):
            with pytest.raises(ValueError, match=f"{name} is .*; it must be from 1e-06 to 1"):
                replace(build_sampler(parse("log_variance")), **{name: wrong})
