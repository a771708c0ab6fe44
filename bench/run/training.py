"""The training phase: steps until the budget is spent, saved on the way, and resumed.

The budget has up to three limits, calls of the target, floating-point operations and seconds;
the first that is spent ends training, and what schedules follow is the share of the most advanced.
The repeated `init` of a resumed run, and the steps that a killed one made after its last
checkpoint, are the same calls made again from the same generator: they count once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Generator

from tiltbench.plan.budget import Budget
from tiltbench.plan.loggers import Logs
from tiltbench.records.record import UNPAID, Status
from tiltbench.run.checkpoint import Checkpoints, Saved
from tiltbench.run.clock import Clock
from tiltbench.run.compute import Compute, planned
from tiltbench.run.curve import Curve, TrainingCost
from tiltbench.run.ledger import Ledger
from tiltbench.run.meter import BudgetExceeded, Meter
from tiltbench.run.operations import ComputeExceeded
from tiltbench.run.states import modules
from tiltbench.run.streams import generator
from tiltbench.samplers.networks.model import Model
from tiltbench.samplers.sampler import Sampler
from tiltbench.targets.target import Target

Progress = Callable[[str, float], None]  # (phase, share of the training budget spent)


@dataclass
class Meters:
    """What training is charged to: calls, operations, and the clock, which stands at first."""

    budget: Budget
    calls: Meter
    compute: Compute
    clock: Clock

    @property
    def share(self) -> float:
        """Of the budget, by the most advanced of its limits, in [0, 1]."""
        by_calls = self.calls.spent.share(self.budget.train)
        by_time = self.clock.seconds / self.budget.seconds
        return min(max(by_calls, self.compute.share, by_time), 1.0)

    @property
    def spent(self) -> TrainingCost:
        return TrainingCost(self.calls.spent.calls, self.compute.spent, self.clock.seconds)


@dataclass
class Training:
    """`run` once: the final state, and how it ended."""

    ledger: Ledger
    curve: Curve
    checkpoints: Checkpoints
    progress: Progress
    logs: Logs = field(default_factory=Logs)
    steps: int = 0
    meters: Meters = field(init=False)

    def run(self, target: Target, sampler: Sampler[Any]) -> tuple[Any, Status]:
        """Raises ValueError where the budget does not pay for `init`, and what `step` raises."""
        cell, ledger = self.ledger.cell, self.ledger
        problem, calls = ledger.problem(target, sampler, "train", cell.budget.train)
        compute = Compute(cell.budget.flops, cell.seed)
        plan = planned(cell.budget, target, sampler, cell.device)
        source = generator(cell.seed, "train", cell.device)
        clock = Clock(cell.device)
        self.meters = meters = Meters(cell.budget, calls, compute, clock)
        problem = replace(problem, share=lambda: meters.share)
        try:
            with compute.seen():
                state = sampler.init(problem, plan, source)
                over = sampler.done(state)
        except BudgetExceeded as error:
            raise ValueError(f"the budget does not pay for the start: {error}") from error
        ledger.parameters = sum(p.numel() for m in modules(state) for p in m.parameters())
        if resumed := self.resumed(state, source):
            state, source = resumed
            over = sampler.done(state)
            self.curve.due(self.share(sampler, state))  # these shares have their copies
        status, ended = Status.SPENT, "seconds"
        try:
            while clock.seconds < cell.budget.seconds:
                if over:
                    status, ended = Status.DONE, "steps"
                    break
                with compute.step(self.steps, calls):
                    state = sampler.step(problem, state, source)
                    over = sampler.done(state)
                self.steps += 1
                if calls.refused:  # the step has kept the refusal to itself
                    raise BudgetExceeded("the calls are spent")
                share = self.share(sampler, state)
                self.progress("training", share)
                self.look(state, source, share)
                if self.logs.due(self.steps):
                    self.log(sampler, state)
        except ComputeExceeded:
            ended = "flops"  # not begun or, where none was as dear before, stopped in its midst
        except BudgetExceeded:
            # the last step was not made, `state` is as it was before; an adapter reads the clock in
            # the midst of a step (`Problem.share`), and the meter has refused nothing then
            late = not calls.refused and clock.seconds >= cell.budget.seconds
            ended = "seconds" if late else "calls"
        finally:
            clock.stop()
            ledger.seconds["train"], ledger.flops["train"] = clock.seconds, compute.spent
            calls.close()  # a reward kept in the state is of no use in `draw`
            if self.logs.due(self.steps, 1):  # however many there were
                self.log(sampler, state)
            self.logs.close()
        models = [m for m in modules(state) if isinstance(m, Model)]
        ledger.network = {
            "network_forward": sum(m.forward_points for m in models),
            "network_backward": sum(m.backward_points for m in models),
        }
        ledger.ended_by = ended
        if cell.budget.seconds < math.inf:  # schedules follow the clock, whatever ended training
            ledger.note("a clock limits the training, so that it is not the same to the bit again")
        if self.steps == 0 and status is Status.SPENT:
            ledger.note(UNPAID)
        self.curve.keep(meters.spent, state)
        return state, status

    def resumed(self, init: Any, source: Generator) -> tuple[Any, Generator] | None:
        """The state and generator of the checkpoint, where there is one that fits what `init` has
        made."""
        self.say(self.checkpoints.expect(init))
        saved, why = self.checkpoints.load(init, source.device)
        self.say(why)
        if saved is None:
            return None
        self.meters.calls.spent, self.steps = saved.spent, saved.steps
        self.meters.compute.go_on_from(saved.metered)
        self.meters.clock.go_on_from(saved.seconds)
        self.ledger.earlier, self.curve.states = saved.attempts, saved.curve
        return saved.state, saved.source

    def share(self, sampler: Sampler[Any], state: Any) -> float:
        """The part of the training that is done: of the budget, or of the method's own plan."""
        return max(self.meters.share, sampler.completed(state))

    def look(self, state: Any, source: Generator, share: float) -> None:
        """What is done between two steps, off the training clock."""
        meters = self.meters
        curve, saving = self.curve.due(share), self.checkpoints.due()
        if not curve and not saving:
            return
        meters.clock.stop()
        if curve:
            self.curve.keep(meters.spent, state)
        if saving:
            saved = Saved(
                state,
                source,
                meters.calls.spent,
                meters.compute.known,
                self.steps,
                meters.clock.seconds,
                self.curve.states,
                self.ledger.so_far(),
            )
            self.say(self.checkpoints.save(saved, share))
        meters.clock.start()

    def log(self, sampler: Sampler[Any], state: Any) -> None:
        """A line, off the training clock; the only place where the host asks for a loss."""
        meters = self.meters
        running = meters.clock.since is not None
        meters.clock.stop()
        reported = {name: float(value) for name, value in sampler.diagnostics(state).items()}
        share = self.share(sampler, state)
        self.logs.line(self.steps, {"share": share, **meters.spent._asdict(), **reported})
        if running:
            meters.clock.start()

    def say(self, sentence: str) -> None:
        if sentence:
            self.ledger.note(sentence)
