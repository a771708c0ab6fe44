"""A foreign sampler run as the harness runs it, without files: its draws, or what it says."""

from dataclasses import replace

import torch

from tiltbench.records.validate import validated
from tiltbench.run.failures import explain
from tiltbench.run.meter import BudgetExceeded, Meter
from tiltbench.targets.cost import Cost
from tiltbench.targets.densities.gaussian import Gaussian
from tiltbench.targets.problem import pose


def outcome(kind, points, n=10_000, seed=1, target=None, share=None):
    """(the meter, the draws), or (the status, the sentence) where it fails.

    `share(values spent)` is what the run says of its budget."""
    target, sampler = target or Gaussian(), kind()
    g, meter = torch.Generator().manual_seed(seed), Meter(Cost(points, points))
    problem = pose(target, sampler.reference, meter.watch)
    if share is not None:
        problem = replace(problem, share=lambda: share(meter.spent.values))
    try:
        state = sampler.init(problem, meter.budget, g)
        try:
            while not sampler.done(state):
                state = sampler.step(problem, state, g)
                if meter.refused:
                    break
        except BudgetExceeded:
            pass
        draws = sampler.draw(problem, state, n, g)
        return meter, validated(draws, n, target.dim)
    except Exception as error:
        return explain(error)
