"""Which reverse paths a run measures: those of the base's own chain, where the truth has them."""

import torch

from tests.tools.worlds import rng
from tiltbench.plan.budget import Budget
from tiltbench.plan.cell import Cell
from tiltbench.plan.spec import build_sampler, build_target, parse, spec
from tiltbench.run.checkpoint import Checkpoints
from tiltbench.run.phases import _Run, quiet
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import pose


def reversed_by(target, sampler, tmp_path, known):
    """What `_Run.reverse` traces of an untrained sampler, on a target whose truth is `known`."""
    made = build_sampler(parse(sampler))
    cell = Cell(spec(target), 1, spec(made), Budget.of(10, 20), 0, "cpu", 20, 0, {})
    run = _Run(cell, quiet, Checkpoints(tmp_path / "none", "", 1e9))
    problem = pose(target, made.reference)
    state = made.init(problem, Cost(100, 100), rng(0))
    facing = type("Known", (type(target),), {"truth": lambda self: known})(**vars_of(target))
    return run.reverse(facing, made, state), problem, made, state, run.noised


def vars_of(target):
    return {name: getattr(target, name) for name in target.__dataclass_fields__}


def test_paths_of_the_truth_are_weighed_where_the_method_moves_along_them(tmp_path):
    target = build_target(parse("tilt_linear[steps=5]"))
    truth = target.truth()
    points = torch.randn(6, 20, 2, generator=rng(1))
    known = truth._replace(paths=lambda n, g: points[:, :n])
    traced, problem, made, state, noised = reversed_by(target, "log_variance", tmp_path, known)
    assert not noised
    torch.testing.assert_close(traced.x, points)
    again = made.along(problem, state, points, rng(2)).log_w
    torch.testing.assert_close(traced.log_w, again)


def test_a_method_with_a_chain_of_its_own_traces_back_from_their_ends(tmp_path):
    target = build_target(parse("tilt_linear[steps=5]"))
    points = torch.randn(6, 20, 2, generator=rng(1))
    known = target.truth()._replace(paths=lambda n, g: points[:, :n])
    traced, *_ = reversed_by(target, "cmcd_lv", tmp_path, known)
    torch.testing.assert_close(traced.x[-1], points[-1])
    assert not torch.allclose(traced.x[0], points[0])


def test_reverse_paths_of_a_pretrained_base_without_its_own_are_told_apart(tmp_path, monkeypatch):
    target = build_target(parse("tilt_linear[steps=5]"))
    monkeypatch.setattr(type(target.base), "reversed_exactly", False)
    points = torch.randn(6, 20, 2, generator=rng(1))
    bare = target.truth()
    known = bare._replace(paths=lambda n, g: points[:, :n])
    told = [
        reversed_by(target, sampler, tmp_path, truth)[-1]
        for sampler, truth in (("log_variance", bare), ("log_variance", known), ("cmcd_lv", known))
    ]
    assert told == [True, False, True]
