"""What training computes, metered in floating-point operations beside the target's calls.

Seeing every operation costs as much as a small one, so only some steps are *audited*: run within
`Operations`, which sees all that they do.  The first two are, and step n with probability
max(1/256, 1/(8 + n)), by coins that no sampler sees.  A step between audits is charged what the
last audited one cost, in proportion to the calls of the target that both made; that is exact for
samplers whose steps are alike, and right on average for the others.  `init` is audited whole.
What is made once and kept, and what the harness itself checks in the first calls of a target only,
is in the count or not: it is the same on every machine to a few parts in a thousand, once a network
takes most of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from tiltbench.plan.budget import Budget
from tiltbench.run.clock import Clock
from tiltbench.run.meter import Meter
from tiltbench.run.operations import ComputeExceeded, Operations
from tiltbench.run.streams import STREAMS
from tiltbench.samplers.sampler import Sampler
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem, graded, pose
from tiltbench.targets.target import Target

RATE = 256  # steps to an audit, in the long run
ALWAYS = 2  # the first is often unlike the others: a pilot, a warm-up
EARLY = 8  # the first steps are audited more often
BLOCK = 1024  # coins thrown at once


class Metered(NamedTuple):
    """What a meter of operations knows, in numbers that a checkpoint holds."""

    spent: float = 0.0
    dearest: float = 0.0  # what a step has cost at most
    audited: float = 0.0  # what the last audited step cost; 0: none was
    calls: float = 0.0  # of the target, that it made


@dataclass
class Compute:
    """The operations of one run's training; `spent` never exceeds `budget`."""

    budget: float
    seed: int
    spent: float = 0.0
    dearest: float = 0.0
    last: tuple[float, float] | None = None  # operations and calls of the last audited step
    coins: tuple[int, np.ndarray] | None = None  # (block, its uniform numbers)

    @property
    def known(self) -> Metered:
        return Metered(self.spent, self.dearest, *(self.last or (0.0, 0.0)))

    def go_on_from(self, known: Metered) -> None:
        self.spent, self.dearest = known.spent, known.dearest
        self.last = (known.audited, known.calls) if known.audited else None

    @property
    def share(self) -> float:
        return self.spent / self.budget if self.budget < math.inf else 0.0

    @contextmanager
    def seen(self) -> Iterator[Operations]:
        """Charges what is run within, operation by operation; raises ComputeExceeded at the one
        that would overspend."""
        counter = Operations(self.budget - self.spent)
        try:
            with counter:
                yield counter
        finally:
            self.spent = min(self.spent + counter.flops, self.budget)

    @contextmanager
    def step(self, number: int, meter: Meter) -> Iterator[None]:
        """Charges one step of training.  Raises ComputeExceeded, before it begins, where one as
        dear as the dearest so far would overspend."""
        if self.spent + self.dearest > self.budget:
            raise ComputeExceeded(
                f"a step takes {self.dearest:.3g} floating-point operations, and "
                f"{self.budget - self.spent:.3g} of {self.budget:.3g} are left"
            )
        before = meter.spent
        if self.last is None or self.audited(number):
            with self.seen() as counter:
                yield
            flops = counter.flops
            self.last = flops, meter.spent.minus(before).calls
        else:
            yield
            flops, expected = self.last
            calls = meter.spent.minus(before).calls
            if expected and calls:
                flops *= calls / expected
            self.spent = min(self.spent + flops, self.budget)
        self.dearest = max(self.dearest, flops)

    def audited(self, number: int) -> bool:
        """Whether step `number` is; a coin of its own, so that a resumed run throws the same."""
        if number < ALWAYS:
            return True
        block, place = divmod(number, BLOCK)
        if self.coins is None or self.coins[0] != block:
            stream = np.random.SeedSequence(self.seed, spawn_key=(STREAMS["audit"], block))
            self.coins = block, np.random.default_rng(stream).random(BLOCK)
        return bool(self.coins[1][place] < max(1 / RATE, 1 / (EARLY + number)))


# for samplers that plan by calls, such as SMC, which fits its population to them

POINTS = 256  # at which one call is priced; on the harness's account


def planned(budget: Budget, target: Target, sampler: Sampler[Any], device: str) -> Cost:
    """The calls of training, lowered to what its operations and seconds would pay for if nothing
    but the target took any."""
    if budget.flops == math.inf and budget.seconds == math.inf:
        return budget.train
    flops, seconds = a_call(pose(target, sampler.reference), device)
    affordable = min(budget.flops / max(flops, 1.0), budget.seconds / seconds)
    most = int(min(affordable, budget.train.calls))
    return Cost(min(most, budget.train.values), min(most, budget.train.grads))


def a_call(problem: Problem, device: str) -> tuple[float, float]:
    """Operations and seconds of a value with its gradient at one point, of POINTS of them at once
    drawn from N(0, spread^2 I); the second time counts, when nothing is made for the first time."""
    source = torch.Generator(device).manual_seed(0)
    x = problem.base.spread * torch.randn(
        POINTS, problem.dim, generator=source, device=source.device
    )
    both = graded(problem.reward, problem.checks).value_and_grad
    both(x)
    with Operations() as counter:
        both(x)
    clock = Clock(device)
    both(x)
    clock.stop()
    return counter.flops / POINTS, clock.seconds / POINTS
