"""One cell in this process: pose, init, step until the budget is spent, draw, measure, write.

Nothing that is measured reaches the sampler: every phase has a meter, a problem and a generator of
its own, and the learning curve, reverse paths and probes work on copies of the state.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tiltbench.metric import NOISED, Outcome
from tiltbench.plan.cell import SAVED_EVERY, Cell, ode_cost
from tiltbench.plan.loggers import Logs
from tiltbench.plan.spec import build_sampler, build_target
from tiltbench.records.files import write_arrays, write_tensors
from tiltbench.records.located import hints
from tiltbench.records.provenance import code_identity, code_of, environment, forget_peak
from tiltbench.records.record import CHECKPOINT, Record, Status, forget, write_outcome, write_record
from tiltbench.records.validate import validated
from tiltbench.run.checkpoint import Checkpoints, identity
from tiltbench.run.clock import Clock
from tiltbench.run.control_gap import control_gap
from tiltbench.run.curve import Curve, curve_cost
from tiltbench.run.failures import explain
from tiltbench.run.ledger import Ledger
from tiltbench.run.meter import BudgetExceeded
from tiltbench.run.operations import Operations
from tiltbench.run.states import copied
from tiltbench.run.streams import generator
from tiltbench.run.training import Progress, Training
from tiltbench.samplers.flows.divergence import fitting
from tiltbench.samplers.flows.weighed import given, sample
from tiltbench.samplers.sampler import Draws, Sampler, Traced
from tiltbench.targets import precision
from tiltbench.targets.checks import Diverged
from tiltbench.targets.settings import standard
from tiltbench.targets.target import Target


def quiet(phase: str, share: float) -> None:
    """No progress shown."""


def run_cell(
    cell: Cell,
    folder: Path,
    progress: Progress = quiet,
    threads: int = 1,
    code: Mapping[str, Any] | None = None,
    checkpoint: float = SAVED_EVERY,
    loggers: Sequence[str] = (),
) -> Record:
    """Runs `cell` and writes its files into `folder`, the record last.

    Training is saved every `checkpoint` seconds; a cell without a record but with a checkpoint of
    this code goes on from there.  Loggers of these names follow the training.  Whatever a
    target or sampler raises becomes the record's status; only KeyboardInterrupt and the like pass.
    `code` is that of `code_of` before the run, worked out here where it is None.  The settings
    of the session (default dtype, threads, global generators, ...) neither reach the run nor are
    changed by it."""
    with standard(cell.seed):
        torch.set_num_threads(threads)
        if cell.tf32:
            precision.write(precision.TF32)
        return _run_cell(cell, folder, progress, code, checkpoint, loggers)


def _run_cell(
    cell: Cell,
    folder: Path,
    progress: Progress,
    code: Mapping[str, Any] | None,
    checkpoint: float,
    loggers: Sequence[str],
) -> Record:
    code = code if code is not None else code_of(cell, code_identity())
    forget(folder, cell.id)
    forget_peak(cell.device)
    saved = folder / f"{cell.id}{CHECKPOINT}"
    run = _Run(cell, progress, Checkpoints(saved, identity(cell, code), checkpoint), loggers)
    status, reason, trace = Status.FAILED, "", ""
    try:
        status = run.work()
    except (Exception, MemoryError) as error:
        status, reason = explain(error)
        if status is not Status.UNSUPPORTED:
            trace = "".join(traceback.format_exception(error)[-12:])
    cost, environs = run.ledger.cost(), environment(cell.device)
    names = (cell.target["name"], cell.sampler["name"])
    if files := hints(names, folder):
        code = {**code, "files": files}
    record = Record(cell.spec, cell.labels, status, reason, trace, cost, environs, code)
    if status.finished:
        assert run.outcome is not None
        write_outcome(folder, cell.id, run.outcome)
        if run.curve:
            write_arrays(folder / f"{cell.id}.curve.npz", run.curve)
        if run.tensors:
            write_tensors(folder / f"{cell.id}.state.safetensors", run.tensors)
    write_record(folder, record)
    return record


@dataclass
class _Run:
    """The phases of a run; what has been learnt so far survives an exception in a later phase."""

    cell: Cell
    progress: Progress
    checkpoints: Checkpoints
    loggers: Sequence[str] = ()
    outcome: Outcome | None = None
    curve: dict[str, Tensor] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    noised: bool = False  # whether reverse paths are not those of the chain that is weighed

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.cell)

    def work(self) -> Status:
        target, sampler = build_target(self.cell.target), build_sampler(self.cell.sampler)
        curve = Curve(self.ledger, target, sampler)
        home = self.checkpoints.path.parent
        logs = Logs.begun(self.loggers, self.cell, home, self.ledger.note)
        training = Training(self.ledger, curve, self.checkpoints, self.progress, logs)
        state, status = training.run(target, sampler)
        self.progress("drawing", 1.0)
        draws = self.draw(target, sampler, state)
        self.tensors = {k: v.detach().cpu().contiguous() for k, v in sampler.tensors(state).items()}
        self.progress("measuring", 1.0)
        self.curve = curve.draw()
        traced = self.measure(lambda: self.reverse(target, sampler, state), "reverse paths")
        probes = self.measure(lambda: self.probe(target, sampler, state), "probes") or {}
        laws = self.measure(lambda: self.flow(target, sampler, state), "law of the flow") or {}
        probes = {**probes, **laws}
        if traced is not None:
            gap = self.measure(lambda: control_gap(target, sampler, traced), "control_gap")
            probes = probes if gap is None else {**probes, "control_gap": gap}
            if self.noised:
                probes = {**probes, NOISED: torch.ones(1)}
        self.outcome = Outcome(draws, None if traced is None else traced.log_w, probes)
        return status

    def draw(self, target: Target, sampler: Sampler[Any], state: Any) -> Draws:
        cell = self.cell
        problem, meter = self.ledger.problem(target, sampler, "draw", self.cell.budget.draw)
        clock, counter = Clock(cell.device), Operations(cell.budget.flops)
        try:
            with counter:
                draws = sampler.draw(
                    problem, state, cell.draws, generator(cell.seed, "draw", cell.device)
                )
        except BudgetExceeded as error:
            raise BudgetExceeded(f"drawing costs more than its budget: {error}") from error
        finally:
            clock.stop()
            self.ledger.seconds["draw"] = clock.seconds
            self.ledger.flops["draw"] = counter.flops
            meter.close()
        if len(draws.x) < cell.draws:
            self.ledger.note(f"{len(draws.x)} draws where {cell.draws} were asked for")
        return validated(draws, cell.draws, target.dim)

    def reverse(self, target: Target, sampler: Sampler[Any], state: Any) -> Traced | None:
        truth = target.truth()
        if truth.sample is None:
            return None
        cell = self.cell
        n = int(min(cell.draws, truth.held))
        problem, meter = self.ledger.problem(target, sampler, "measure", self.cell.budget.draw)
        chosen = generator(cell.seed, "truth", cell.device)
        source = generator(cell.seed, "reverse", cell.device)
        exact = problem.base.reversed_exactly
        if truth.paths is None:
            x = truth.sample(n, chosen)
            traced = sampler.reverse(problem, copied(state), x, source)
        else:
            path = truth.paths(n, chosen)
            x = path[-1]
            traced = sampler.along(problem, copied(state), path, source)
            if traced is None:
                traced = sampler.reverse(problem, copied(state), x, source)
            else:
                exact = True
        meter.close()
        self.noised = not exact
        if traced is None:
            return None
        log_w = traced.log_w
        if log_w.shape != (len(x),) or bool(log_w.isnan().any()):
            raise Diverged(f"reverse weights of {len(x)} points have NaN or the wrong shape")
        return traced._replace(log_w=log_w.detach().double())

    def probe(self, target: Target, sampler: Sampler[Any], state: Any) -> dict[str, Tensor]:
        cell = self.cell
        budget = self.cell.budget.measure.minus(self.cell.budget.draw).minus(curve_cost(cell))
        budget = budget.minus(ode_cost(cell))
        problem, meter = self.ledger.problem(target, sampler, "measure", budget)
        source = generator(cell.seed, "probe", cell.device)
        probes = sampler.probe(problem, copied(state), source)
        meter.close()
        return probes

    def flow(self, target: Target, sampler: Sampler[Any], state: Any) -> dict[str, Tensor]:
        """The density of the method's flow at its own draws and at exact ones, with as many
        operations as training may take."""
        cell, truth = self.cell, target.truth()
        if not cell.ode:
            return {}
        problem, meter = self.ledger.problem(target, sampler, "measure", ode_cost(cell))
        flow = sampler.flow(problem, copied(state))
        if flow is None:
            return {}
        source, fit = generator(cell.seed, "flow", cell.device), fitting(target.dim)
        counter = Operations(cell.budget.flops)
        try:
            with counter:
                weighted = sample(flow, problem, cell.ode, fit, source)
                arrays = {
                    "ode_log_w": weighted.log_w,
                    "ode_noise": weighted.noise,
                    "ode_evaluations": torch.tensor(weighted.evaluations),
                }
                if truth.sample is not None:
                    x = truth.sample(int(min(cell.ode, truth.held)), source)
                    exact = given(flow, problem, x, fit, source)
                    arrays |= {"ode_log_q": exact.log_q, "ode_log_w_exact": exact.log_w}
        finally:
            self.ledger.flops["ode"] = counter.flops
            meter.close()
        return arrays

    def measure(self, take: Callable[[], Any], what: str) -> Any:
        """A measurement that cannot be made is a note, not a failure: the draws are good.

        None without a budget to measure: then nobody asks for the truth either."""
        if not self.cell.budget.measure.calls:
            return None
        try:
            return take()
        except Exception as error:
            self.ledger.note(f"no {what}: {explain(error)[1]}")
            return None
