"""Compute is metered by audits: exact for samplers whose steps are alike, never overspent."""

import functools
import itertools
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from tests.tools.small import small
from tiltbench.api import cell
from tiltbench.plan.budget import Budget
from tiltbench.plan.spec import build_sampler, build_target
from tiltbench.plan.text import parse
from tiltbench.run.compute import ALWAYS, EARLY, RATE, Compute, Metered, planned
from tiltbench.run.meter import Meter
from tiltbench.run.operations import ComputeExceeded, Operations
from tiltbench.run.phases import run_cell
from tiltbench.samplers.diffusion import Diffusion
from tiltbench.samplers.registry import SAMPLERS
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import pose

W = torch.randn(16, 16)
PLENTY = Cost(10**6, 10**6)


def product():
    return W @ W


COST = 2 * 16**3


def steps(compute, works, meter=None):
    """Makes the steps one after the other; how many there were before the limit."""
    meter = meter or Meter(PLENTY)
    for number, work in enumerate(works):
        try:
            with compute.step(number, meter):
                work()
        except ComputeExceeded:
            return number
    return len(works)


def test_steps_that_are_alike_are_charged_exactly():
    compute = Compute(math.inf, 0)
    assert steps(compute, [product] * 1000) == 1000
    assert compute.spent == 1000 * COST and compute.dearest == COST


def test_a_step_is_not_begun_where_the_dearest_would_not_fit():
    for left in range(3):
        compute = Compute(10 * COST + left, 0)
        assert steps(compute, [product] * 20) == 10
        assert compute.spent == 10 * COST
    dear = [product, lambda: (product(), product(), product()), product, product]
    compute = Compute(7.5 * COST, 0)
    compute.audited = lambda number: True
    assert steps(compute, dear) == 3  # 1 + 3 + 1; another of 3 would not fit
    assert compute.spent == 5 * COST


def test_the_first_step_stops_in_its_midst():
    compute, made = Compute(2.5 * COST, 0), []

    def long():
        for _ in range(10):
            product()
            made.append(1)

    assert steps(compute, [long]) == 0
    assert len(made) == 2 and compute.spent == compute.budget


def test_between_audits_a_step_costs_in_proportion_to_its_calls():
    compute, meter = Compute(math.inf, 0), Meter(PLENTY)
    compute.audited = lambda number: False

    def work(points):
        return lambda: (meter.charge(Cost(points, points)), [product() for _ in range(points)])

    steps(compute, [work(2), work(4), work(3)], meter)
    assert compute.spent == 9 * COST and compute.last == (2 * COST, 2)
    steps(compute, [lambda: None], meter)  # no calls to go by: as the last audited one
    assert compute.spent == 11 * COST


def test_coins_are_those_of_the_seed_and_of_the_number_alone():
    one, two, other = Compute(1.0, 3), Compute(1.0, 3), Compute(1.0, 4)
    numbers = [*range(3000)]
    heads = [n for n in numbers if one.audited(n)]
    assert heads == [n for n in reversed(numbers) if two.audited(n)][::-1]
    assert heads != [n for n in numbers if other.audited(n)]
    expected = ALWAYS + sum(max(1 / RATE, 1 / (EARLY + n)) for n in numbers[ALWAYS:])
    many = [sum(map(Compute(1.0, seed).audited, numbers)) for seed in range(20)]
    assert abs(sum(many) / 20 - expected) < 4 * math.sqrt(expected / 20)


def test_a_resumed_meter_knows_what_it_knew():
    first, again = Compute(1e9, 0), Compute(1e9, 0)
    steps(first, [product] * 5)
    again.go_on_from(Metered(*map(float, first.known)))
    assert again == replace(first, coins=None)
    fresh = Compute(1.0, 0)
    fresh.go_on_from(Compute(1.0, 0).known)
    assert fresh.last is None


@pytest.mark.parametrize("name", sorted(SAMPLERS.entries))
def test_what_every_sampler_is_charged_is_what_it_computes(name):
    """All steps seen whole against the audits alone, over the registry."""
    sampler, seen = build_sampler(parse(small(name))), []
    target = build_target(parse("gmm9"))
    if isinstance(sampler, Diffusion):
        sampler = replace(sampler, batches=0)
    if name == "guidance":
        target = build_target(parse("tilt_linear[steps=3]"))
    for every in (True, False):
        meter = Meter(Cost(8_000, 8_000))
        problem = pose(target, sampler.reference, meter.watch)
        source = torch.Generator().manual_seed(0)
        compute = Compute(math.inf, 0)
        if every:
            compute.audited = lambda number: True
        with compute.seen():
            state = sampler.init(problem, meter.budget, source)
        for number in range(12):
            if sampler.done(state) or meter.left.calls < 500:
                break
            with compute.step(number, meter):
                state = sampler.step(problem, state, source)
        seen.append(compute.spent)
    assert seen[0] > 0 or sampler.done(state)  # those that train nothing
    assert seen[1] == pytest.approx(seen[0], rel=0.25)


def test_a_cell_ends_with_the_limit_that_is_spent_first(tmp_path):
    ends = {}
    for name, given in {
        "calls": {"budget": 300},
        "flops": {"flops": 5e7},
        "seconds": {"seconds": 1e-9},
        "steps": {"budget": 100_000},
    }.items():
        text = "pis[paths=32,batches=2]" if name == "steps" else "pis[paths=32]"
        asked = cell("gaussian", text, given.pop("budget", 10**6), draws=20, curve=8, **given)
        record = run_cell(asked, tmp_path, code={})
        ends[name] = record.cost["ended_by"]
        assert record.status.finished and record.cost["draw_flops"] > 0, record.reason
        assert record.cost["train_flops"] <= asked.budget.flops
        clocked = [note for note in record.cost["notes"] if "not the same to the bit" in note]
        assert bool(clocked) == (name == "seconds")
        assert record.spec["budget"].get("flops") == given.get("flops")
    assert ends == {name: name for name in ends}


def test_schedules_follow_the_most_advanced_share(tmp_path, monkeypatch):
    shares, share = [], Diffusion.share

    def noted(self, problem, state):
        shares[-1].append(share(self, problem, state))
        return shares[-1][-1]

    monkeypatch.setattr(Diffusion, "share", noted)
    ticks = SimpleNamespace(perf_counter=functools.partial(next, itertools.count(0.0, 0.001)))
    monkeypatch.setattr("tiltbench.run.clock.time", ticks)
    for given in ({"budget": 32 * 40}, {"flops": 1.2e8}, {"seconds": 0.3}):
        shares.append([])
        asked = cell("gaussian", "pis[paths=32,model=Mlp[width=8]]", draws=20, **given)
        assert run_cell(asked, tmp_path, code={}).status.finished
    for row in shares:
        assert row == sorted(row) and row[0] < 0.2 and row[-1] > 0.8


def test_planning_by_calls_where_operations_limit():
    target, sampler = build_target(parse("gmm9")), build_sampler(parse("smc"))
    problem = pose(target, sampler.reference)
    x = torch.randn(256, 2)
    with Operations() as counter:
        problem.reward.value_and_grad(x)
    budget = replace(Budget.of(10**9, 10), flops=1e6)
    calls = planned(budget, target, sampler, "cpu")
    assert calls.values == calls.grads == int(1e6 / (counter.flops / 256))
    assert planned(Budget.of(700, 10), target, sampler, "cpu") == Cost(700, 700)
    assert planned(replace(budget, train=Cost(9, 9)), target, sampler, "cpu") == Cost(9, 9)
    assert planned(replace(budget, flops=math.inf, seconds=1e-3), target, sampler, "cpu").calls > 9
