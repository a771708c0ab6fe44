"""The average of the weights: its closed form, and that it is what draws."""

import math
from dataclasses import replace

import pytest
import torch

from tests.tools.worlds import Shifted, rng
from tiltbench.plan.spec import build_sampler, parse
from tiltbench.run.pack import Packer, Unpacker
from tiltbench.run.states import copied
from tiltbench.samplers.average import Average
from tiltbench.targets.bases.references import Brownian, Stationary
from tiltbench.targets.cost import Cost

MUCH = Cost(10**6, 10**6)
DECAY = 0.8


def trained(name, steps=3, world=None):
    sampler = build_sampler(parse(name))
    problem = (world or Shifted(Stationary(steps=4))).problem()
    generator = rng(1)
    state = sampler.init(problem, MUCH, generator)
    for _ in range(steps):
        state = sampler.step(problem, state, generator)
    return sampler, problem, state


def small(loss, average, **more):
    parts = {"paths": 8, "repeats": 2, "memory": 2, "lr": 0.05, "model": "Mlp[width=8]", **more}
    return f"{loss}[{','.join(f'{k}={v}' for k, v in parts.items())},average={average}]"


def test_the_average_of_a_known_sequence():
    """theta_i = i: sum_i (1 - d) d^(n-i) i / (1 - d^n)."""
    _, _, state = trained(small("log_variance", 0.0), 0)
    model, average = state.model, Average(state.model)
    for n in range(1, 8):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(n)
        average.add(model, DECAY, n)
        weights = [(1 - DECAY) * DECAY ** (n - i) for i in range(1, n + 1)]
        expected = sum(w * i for i, w in enumerate(weights, 1)) / sum(weights)
        for parameter in average.of(model).parameters():
            torch.testing.assert_close(parameter, torch.full_like(parameter, expected))


@pytest.mark.parametrize("loss", ["trajectory_balance", "tilt_matching", "cmcd_lv"])
def test_it_follows_training_and_changes_nothing_of_it(loss):
    """Paths of training come from the weights themselves, whatever is averaged; the average is that
    of what they were after every step of the optimiser."""
    name = small(loss, DECAY, repeats=1, memory=1)
    plain, problem, before = trained(name.replace("0.8", "0"), 0)
    seen = []
    for n in range(4):
        _, _, before = trained(name.replace("0.8", "0"), n + 1)
        seen.append(torch.cat([p.detach().flatten().double() for p in before.model.parameters()]))
    sampler, problem, state = trained(name, 4)
    now = torch.cat([p.detach().flatten().double() for p in state.model.parameters()])
    assert torch.equal(now, seen[-1])
    weights = torch.tensor([DECAY ** (3 - i) for i in range(4)], dtype=torch.float64)
    expected = (weights[:, None] * torch.stack(seen)).sum(0) / weights.sum()
    shown = state.shown()
    average = torch.cat([p.detach().flatten().double() for p in shown.parameters()])
    torch.testing.assert_close(average, expected, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(average, now, atol=1e-4)
    if state.model.earlier is not None:
        assert shown.earlier.model is state.model.earlier.model


def test_draws_paths_probes_and_files_are_of_the_average():
    sampler, problem, state = trained(small("trajectory_balance", DECAY), 4)
    mean = replace(state, model=state.average.of(state.model), average=None)
    raw, off = replace(state, average=None), replace(sampler, average=0.0)
    ends = torch.randn(5, 2, generator=rng(3))
    paths = torch.randn(5, 6, 2, generator=rng(4)).cumsum(0)

    def all_of(sampler, state):
        state = copied(state)
        draws = sampler.draw(problem, state, 6, rng(2))
        assert draws.log_Z is not None
        along = sampler.along(problem, state, paths, rng(2))
        results = {
            "x": draws.x,
            "log_Z": torch.tensor(draws.log_Z.value),
            "reverse": sampler.reverse(problem, state, ends, rng(2)).log_w,
            "along": along.log_w,
            **sampler.probe(problem, state, rng(2)),
        }
        return results | sampler.tensors(state)

    averaged, expected, other = all_of(sampler, state), all_of(off, mean), all_of(off, raw)
    assert set(averaged) == set(expected)
    for key, value in averaged.items():
        assert torch.equal(value, expected[key]), key
    for key in ("x", "log_Z", "reverse", "along", "gradient_gram", "out.weight"):
        assert not torch.equal(averaged[key], other[key]), key


def test_it_is_saved_and_goes_on():
    name = small("log_variance", DECAY)
    sampler, problem, state = trained(name, 3)
    packer = Packer()
    node = packer.node(state)
    fresh = sampler.init(problem, MUCH, rng(9))
    again = Unpacker(packer.tensors, torch.device("cpu")).fill(fresh, node)
    for each in (state, again):
        each = sampler.step(problem, each, rng(5))
    for a, b in zip(state.average.buffers(), again.average.buffers(), strict=True):
        assert torch.equal(a, b)


def test_less_noise_at_a_high_learning_rate():
    """Why it is there: at the end of a noisy descent the averaged control is nearer the optimum."""
    world = Shifted(Brownian(steps=4), (1.2, -0.5))
    parts = "paths=8,lr=0.02,batches=100000,model=Mlp[width=8],average=0.95"
    sampler, problem, state = trained(f"conditional_score_matching[{parts}]", 100, world)
    gaps = []
    for each in (state, replace(state, average=None)):
        log_w = sampler.draw(problem, each, 500, rng(2)).log_w
        gaps.append(world.log_Z - float(log_w.mean()))
    assert gaps[0] < 0.5 * gaps[1]


@pytest.mark.parametrize("decay", [1.0, -0.1, math.nan])
def test_what_is_no_decay_is_refused(decay):
    with pytest.raises(ValueError, match="it is a decay, such as 0.99"):
        replace(build_sampler(parse("log_variance")), average=decay)
