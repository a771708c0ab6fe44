"""One cell in this process: pose, init, step until the allowance is spent, draw, measure, write.

Nothing that is measured reaches the sampler: every phase has a meter, a problem and a generator of
its own, and the learning curve, reverse paths and probes work on copies of the state.
"""

from __future__ import annotations

import copy
import dataclasses
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn

from tiltbench.budget import Budget, BudgetExceeded, Meter
from tiltbench.cell import CURVE_POINTS, Cell
from tiltbench.control_gap import control_gap
from tiltbench.provenance import code_identity, code_of, environment, peak_memory
from tiltbench.record import (
    Outcome,
    Record,
    Status,
    write_arrays,
    write_bytes,
    write_outcome,
    write_record,
)
from tiltbench.samplers.networks import Model
from tiltbench.samplers.sampler import Draws, Sampler, Traced, Unsupported
from tiltbench.spec import build_sampler, build_target
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Diverged, Problem, pose
from tiltbench.targets.target import Target

Progress = Callable[[str, float], None]  # (phase, share of the training allowance spent)

# Streams of randomness, one for each purpose, all derived from the cell's seed (protocol.md 2).
# Keys from 8 on belong to scoring.
STREAMS = {"train": 0, "draw": 1, "truth": 2, "reverse": 3, "probe": 4, "curve": 5}

FILES = (".json", ".npz", ".curve.npz", ".state.safetensors", ".scores.json")


def generator(seed: int, purpose: str, device: str) -> Generator:
    """The stream of `purpose` (see STREAMS): independent of the others, equal on every machine."""
    key = np.random.SeedSequence(seed, spawn_key=(STREAMS[purpose],)).generate_state(1, np.uint64)
    return Generator(device).manual_seed(int(key[0]) >> 1)


def quiet(phase: str, share: float) -> None:
    """No progress shown."""


def run_cell(
    cell: Cell,
    folder: Path,
    progress: Progress = quiet,
    threads: int = 1,
    code: Mapping[str, Any] | None = None,
) -> Record:
    """Runs `cell` and writes its files into `folder`, the record last.

    Whatever a target or sampler raises becomes the record's status; only KeyboardInterrupt and the
    like pass.  `code` is what `code_of` said before the run, worked out here where it is None."""
    torch.set_num_threads(threads)
    code = code if code is not None else code_of(cell, code_identity())
    forget(folder, cell.id)
    run = _Run(cell, progress)
    status, reason, trace = Status.FAILED, "", ""
    try:
        status = run.work()
    except (Exception, MemoryError) as error:
        status, reason = explain(error)
        if status is not Status.UNSUPPORTED:
            trace = "".join(traceback.format_exception(error)[-12:])
    record = Record(
        cell.spec, cell.labels, status, reason, trace, run.cost(), environment(cell.device), code
    )
    if status.finished:
        assert run.outcome is not None
        write_outcome(folder, cell.id, run.outcome)
        if run.curve:
            write_arrays(folder / f"{cell.id}.curve.npz", run.curve)
        if run.tensors:
            write_bytes(folder / f"{cell.id}.state.safetensors", _safetensors(run.tensors))
    write_record(folder, record)
    return record


def forget(folder: Path, run: str) -> None:
    """Removes a run's files, the record first, lest a new try stand beside an old half."""
    for suffix in FILES:
        (folder / f"{run}{suffix}").unlink(missing_ok=True)


def explain(error: BaseException) -> tuple[Status, str]:
    """The status and the one sentence that an exception stands for."""
    said = " ".join(str(error).split()) or type(error).__name__
    match error:
        case Unsupported():
            return Status.UNSUPPORTED, said
        case Diverged():
            return Status.DIVERGED, said
        case BudgetExceeded():
            return Status.FAILED, said
        case MemoryError() | torch.OutOfMemoryError():
            return Status.OUT_OF_MEMORY, f"out of memory: {said}"
        case RuntimeError() if "allocate memory" in said or "not enough memory" in said:
            return Status.OUT_OF_MEMORY, f"out of memory: {said}"
        case RuntimeError() if "can't start new thread" in said:
            return Status.OUT_OF_MEMORY, f"out of memory: {said}"
    return Status.FAILED, f"{type(error).__name__}: {said}"


@dataclass
class _Run:
    """The phases of a run; what has been learnt so far survives an exception in a later phase."""

    cell: Cell
    progress: Progress
    outcome: Outcome | None = None
    curve: dict[str, Tensor] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    meters: dict[str, list[Meter]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    parameters: int = 0
    network: dict[str, int] = field(default_factory=dict)
    began: tuple[float, float] = field(default_factory=lambda: (time.monotonic(), _cpu()))

    @property
    def budget(self) -> Budget:
        return self.cell.budget

    def work(self) -> Status:
        target, sampler = build_target(self.cell.target), build_sampler(self.cell.sampler)
        state, status, curve = self.train(target, sampler)
        self.progress("drawing", 1.0)
        draws = self.draw(target, sampler, state)
        self.tensors = {k: v.detach().cpu().contiguous() for k, v in sampler.tensors(state).items()}
        self.progress("measuring", 1.0)
        self.curve = curve.draw()
        traced = self.measure(lambda: self.reverse(target, sampler, state), "reverse paths")
        probes = self.measure(lambda: self.probe(target, sampler, state), "probes") or {}
        if traced is not None:
            gap = self.measure(lambda: control_gap(target, sampler, traced), "control_gap")
            probes = probes if gap is None else {**probes, "control_gap": gap}
        self.outcome = Outcome(draws, None if traced is None else traced.log_w, probes)
        return status

    def problem(
        self, target: Target, sampler: Sampler[Any], phase: str, allowance: Cost
    ) -> tuple[Problem, Meter]:
        """A freshly posed problem whose reward is charged to a meter of its own."""
        meter = Meter(allowance)
        self.meters.setdefault(phase, []).append(meter)
        return pose(target, sampler.reference, meter.watch), meter

    def train(self, target: Target, sampler: Sampler[Any]) -> tuple[Any, Status, _Curve]:
        problem, meter = self.problem(target, sampler, "train", self.budget.train)
        source = generator(self.cell.seed, "train", self.cell.device)
        curve = _Curve(self, target, sampler)
        clock = _Clock(self.cell.device)
        try:
            state = sampler.init(problem, self.budget.train, source)
        except BudgetExceeded as error:
            raise ValueError(f"the allowance does not pay for the start: {error}") from error
        self.parameters = sum(p.numel() for m in modules(state) for p in m.parameters())
        status, steps = Status.SPENT, 0
        try:
            while clock.seconds < self.budget.seconds:
                if sampler.done(state):
                    status = Status.DONE
                    break
                state = sampler.step(problem, state, source)
                steps += 1
                self.progress("training", meter.spent.share(self.budget.train))
                if curve.due(meter.spent):
                    clock.stop()
                    curve.keep(meter.spent, clock.seconds, state)
                    clock.start()
        except BudgetExceeded:
            pass  # the ordinary end: the last step was not made, `state` is as it was before
        finally:
            clock.stop()
            self.seconds["train"] = clock.seconds
            meter.close()  # a reward kept in the state is of no use in `draw`
        models = [m for m in modules(state) if isinstance(m, Model)]
        self.network = {
            "network_forward": sum(m.forward_points for m in models),
            "network_backward": sum(m.backward_points for m in models),
        }
        if steps == 0 and status is Status.SPENT:
            self.notes.append("the allowance did not pay for a single step")
        curve.keep(meter.spent, clock.seconds, state)
        return state, status, curve

    def draw(self, target: Target, sampler: Sampler[Any], state: Any) -> Draws:
        cell = self.cell
        problem, meter = self.problem(target, sampler, "draw", self.budget.draw)
        clock = _Clock(cell.device)
        try:
            made = sampler.draw(
                problem, state, cell.draws, generator(cell.seed, "draw", cell.device)
            )
        except BudgetExceeded as error:
            raise BudgetExceeded(f"drawing costs more than its allowance: {error}") from error
        finally:
            clock.stop()
            self.seconds["draw"] = clock.seconds
            meter.close()
        if len(made.x) < cell.draws:
            self.notes.append(f"{len(made.x)} draws where {cell.draws} were asked for")
        return sound(made, cell.draws, target.dim)

    def reverse(self, target: Target, sampler: Sampler[Any], state: Any) -> Traced | None:
        truth = target.truth()
        if truth.sample is None:
            return None
        cell = self.cell
        x = truth.sample(cell.draws, generator(cell.seed, "truth", cell.device))
        problem, meter = self.problem(target, sampler, "measure", self.budget.draw)
        source = generator(cell.seed, "reverse", cell.device)
        traced = sampler.reverse(problem, _copy(state), x, source)
        meter.close()
        if traced is None:
            return None
        log_w = traced.log_w
        if log_w.shape != (len(x),) or bool(log_w.isnan().any()):
            raise Diverged(f"reverse weights of {len(x)} points have NaN or the wrong shape")
        return traced._replace(log_w=log_w.detach().double())

    def probe(self, target: Target, sampler: Sampler[Any], state: Any) -> dict[str, Tensor]:
        cell = self.cell
        allowance = self.budget.measure.minus(self.budget.draw).minus(curve_cost(cell))
        problem, meter = self.problem(target, sampler, "measure", allowance)
        source = generator(cell.seed, "probe", cell.device)
        found = sampler.probe(problem, _copy(state), source)
        meter.close()
        return found

    def measure(self, take: Callable[[], Any], what: str) -> Any:
        """A measurement that cannot be made is a note, not a failure: the draws are good.

        None without an allowance to measure: then nobody asks for the truth either."""
        if not self.budget.measure.calls:
            return None
        try:
            return take()
        except Exception as error:
            self.notes.append(f"no {what}: {explain(error)[1]}")
            return None

    def cost(self) -> dict[str, Any]:
        """The record's `cost`: points by allowance, seconds, CPU seconds, memory, parameters."""
        spent = {phase: Cost() for phase in ("train", "draw", "measure")}
        for phase, meters in self.meters.items():
            for meter in meters:
                spent[phase] = spent[phase].plus(meter.spent)
        return {
            **{phase: list(cost) for phase, cost in spent.items()},
            "seconds": time.monotonic() - self.began[0],
            "cpu_seconds": _cpu() - self.began[1],
            **{f"{phase}_seconds": value for phase, value in self.seconds.items()},
            "peak_memory_mb": peak_memory(self.cell.device),
            "parameters": self.parameters,
            **self.network,
            "notes": self.notes,
        }


def curve_cost(cell: Cell) -> Cost:
    """The learning curve's part of the measuring allowance: 200 points a draw, as for any draw."""
    each = 200 * cell.curve * CURVE_POINTS
    return Cost(each, each)


class _Curve:
    """Draws at 8 log-spaced spends, from 1 % of the allowance to what was spent in the end.

    While training only copies of the state are kept; they are drawn from once the run's own draws
    are made, with meters and a generator of their own, so that nothing measured can reach them."""

    def __init__(self, run: _Run, target: Target, sampler: Sampler[Any]) -> None:
        self.run, self.target, self.sampler = run, target, sampler
        shares = np.geomspace(0.01, 1.0, CURVE_POINTS)[:-1].tolist()
        self.shares = shares if run.cell.curve else []
        self.kept: list[tuple[int, float, Any]] = []  # calls, seconds of training, state
        self.source = generator(run.cell.seed, "curve", run.cell.device)

    def due(self, spent: Cost) -> bool:
        share = spent.share(self.run.budget.train)
        passed = [s for s in self.shares if s <= share]
        self.shares = self.shares[len(passed) :]
        return bool(passed)

    def keep(self, spent: Cost, seconds: float, state: Any) -> None:
        if self.run.cell.curve:
            self.kept.append((spent.calls, seconds, _copy(state)))

    def draw(self) -> dict[str, Tensor]:
        """spend and seconds (P,), x (P, n, D) and log_w (P, n), NaN where there is none."""
        made = [(spend, seconds, self.draws(state)) for spend, seconds, state in self.kept]
        rows = [(spend, seconds, draws) for spend, seconds, draws in made if draws is not None]
        if not rows:
            return {}
        n, dim = self.run.cell.curve, self.target.dim
        x = torch.full((len(rows), n, dim), torch.nan)
        log_w = torch.full((len(rows), n), torch.nan, dtype=torch.float64)
        for row, (_, _, draws) in enumerate(rows):
            x[row, : len(draws.x)] = draws.x.float().cpu()
            if draws.log_w is not None:
                log_w[row, : len(draws.log_w)] = draws.log_w.double().cpu()
        spend = torch.tensor([spend for spend, _, _ in rows])
        seconds = torch.tensor([seconds for _, seconds, _ in rows], dtype=torch.float64)
        return {"spend": spend, "seconds": seconds, "x": x, "log_w": log_w}

    def draws(self, state: Any) -> Draws | None:
        n = self.run.cell.curve
        problem, meter = self.run.problem(
            self.target, self.sampler, "measure", Cost(200 * n, 200 * n)
        )
        try:
            return sound(self.sampler.draw(problem, state, n, self.source), n, self.target.dim)
        except Exception as error:  # no draws so early, or not yet finite: a gap in the curve
            note = f"a gap in the learning curve: {explain(error)[1]}"
            if note not in self.run.notes:
                self.run.notes.append(note)
            return None
        finally:
            meter.close()


def sound(draws: Draws, most: int, dim: int) -> Draws:
    """The draws, detached.  Raises ValueError for wrong shapes, Diverged for what is not finite."""
    x, log_w, group = draws.x.detach(), draws.log_w, draws.group
    if x.dim() != 2 or x.shape[1] != dim or not 0 < len(x) <= most:
        raise ValueError(
            f"draw returned x of shape {tuple(x.shape)}; it must be (n, {dim}), n from 1 to {most}"
        )
    for name, values in {"log_w": log_w, "group": group}.items():
        if values is not None and values.shape != (len(x),):
            raise ValueError(
                f"draw returned {name} of shape {tuple(values.shape)}; it must be ({len(x)},)"
            )
    bad = ~x.isfinite().all(-1)
    if bad.any():
        raise Diverged(f"{int(bad.sum())} of {len(x)} draws are not finite")
    if log_w is not None:
        log_w = log_w.detach()
        bad = ~(log_w < torch.inf)
        if bad.any():
            raise Diverged(f"{int(bad.sum())} of {len(x)} log-weights are NaN or +inf")
    return draws._replace(x=x, log_w=log_w)


def _copy(state: Any) -> Any:
    """A deep copy; tensors inside a graph, which deepcopy refuses, are copied without it."""
    memo: dict[int, Any] = {}
    for tensor in _leaves(state, Tensor):
        if not tensor.is_leaf:
            memo[id(tensor)] = tensor.detach().clone()
    return copy.deepcopy(state, memo)


def modules(state: Any) -> list[nn.Module]:
    return list(_leaves(state, nn.Module))


def _leaves(tree: Any, kind: type) -> Iterator[Any]:
    """Instances of `kind` in a tree of dataclasses, mappings and sequences."""
    if isinstance(tree, kind):
        yield tree
    elif dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        for item in dataclasses.fields(tree):
            yield from _leaves(getattr(tree, item.name), kind)
    elif isinstance(tree, Mapping):
        for value in tree.values():
            yield from _leaves(value, kind)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from _leaves(value, kind)


class _Clock:
    """Wall seconds with the device synchronised at both ends; it can be stopped and started."""

    def __init__(self, device: str) -> None:
        self.device, self.total = device, 0.0
        self.start()

    def start(self) -> None:
        self._synchronise()
        self.since: float | None = time.perf_counter()

    def stop(self) -> None:
        self._synchronise()
        if self.since is not None:
            self.total += time.perf_counter() - self.since
            self.since = None

    @property
    def seconds(self) -> float:
        return self.total + (time.perf_counter() - self.since if self.since is not None else 0.0)

    def _synchronise(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def _cpu() -> float:
    return time.process_time()


def _safetensors(tensors: Mapping[str, Tensor]) -> bytes:
    from safetensors.torch import save

    # clones: tensors that share memory are refused
    return save({key: value.clone() for key, value in tensors.items()})
