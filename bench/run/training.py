"""The training phase: steps until the allowance is spent, saved on the way, and resumed.

The repeated `init` of a resumed run, and the steps that a killed one made after its last
checkpoint, are the same calls made again from the same generator: they count once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Generator

from tiltbench.records.record import Status
from tiltbench.run.checkpoint import Checkpoints, Saved
from tiltbench.run.clock import Clock
from tiltbench.run.curve import Curve
from tiltbench.run.ledger import Ledger
from tiltbench.run.meter import BudgetExceeded, Meter
from tiltbench.run.states import modules
from tiltbench.run.streams import generator
from tiltbench.samplers.networks.model import Model
from tiltbench.samplers.sampler import Sampler
from tiltbench.targets.target import Target

Progress = Callable[[str, float], None]  # (phase, share of the training allowance spent)


@dataclass
class Training:
    """`run` once: the final state, and how it ended."""

    ledger: Ledger
    curve: Curve
    checkpoints: Checkpoints
    progress: Progress
    steps: int = 0

    def run(self, target: Target, sampler: Sampler[Any]) -> tuple[Any, Status]:
        """Raises ValueError where the allowance does not pay for `init`, and what `step` raises."""
        cell, ledger = self.ledger.cell, self.ledger
        problem, meter = ledger.problem(target, sampler, "train", cell.budget.train)
        source = generator(cell.seed, "train", cell.device)
        clock = Clock(cell.device)
        try:
            state = sampler.init(problem, cell.budget.train, source)
        except BudgetExceeded as error:
            raise ValueError(f"the allowance does not pay for the start: {error}") from error
        ledger.parameters = sum(p.numel() for m in modules(state) for p in m.parameters())
        state, source = self.resumed(state, source, meter, clock)
        status = Status.SPENT
        try:
            while clock.seconds < cell.budget.seconds:
                if sampler.done(state):
                    status = Status.DONE
                    break
                state = sampler.step(problem, state, source)
                self.steps += 1
                self.progress("training", meter.spent.share(cell.budget.train))
                self.look(state, source, meter, clock)
        except BudgetExceeded:
            pass  # the ordinary end: the last step was not made, `state` is as it was before
        finally:
            clock.stop()
            ledger.seconds["train"] = clock.seconds
            meter.close()  # a reward kept in the state is of no use in `draw`
        models = [m for m in modules(state) if isinstance(m, Model)]
        ledger.network = {
            "network_forward": sum(m.forward_points for m in models),
            "network_backward": sum(m.backward_points for m in models),
        }
        if self.steps == 0 and status is Status.SPENT:
            ledger.note("the allowance did not pay for a single step")
        self.curve.keep(meter.spent, clock.seconds, state)
        return state, status

    def resumed(
        self, init: Any, source: Generator, meter: Meter, clock: Clock
    ) -> tuple[Any, Generator]:
        """The state and generator of the checkpoint, where there is one that fits; else the given
        ones, which `init` has left."""
        self.say(self.checkpoints.expect(init))
        saved, why = self.checkpoints.load(init, source.device)
        self.say(why)
        if saved is None:
            return init, source
        meter.spent, self.steps, self.ledger.earlier = saved.spent, saved.steps, saved.attempts
        self.curve.kept = saved.kept
        self.curve.due(saved.spent)  # these shares have their copies
        clock.go_on_from(saved.seconds)
        return saved.state, saved.source

    def look(self, state: Any, source: Generator, meter: Meter, clock: Clock) -> None:
        """What is done between two steps, off the training clock."""
        curve, saving = self.curve.due(meter.spent), self.checkpoints.due()
        if not curve and not saving:
            return
        clock.stop()
        if curve:
            self.curve.keep(meter.spent, clock.seconds, state)
        if saving:
            attempts, kept = self.ledger.so_far(), self.curve.kept
            saved = Saved(state, source, meter.spent, self.steps, clock.seconds, kept, attempts)
            self.say(self.checkpoints.save(saved, meter.spent.share(meter.budget)))
        clock.start()

    def say(self, sentence: str) -> None:
        if sentence:
            self.ledger.note(sentence)
