"""What a cell costs before and after its own work, and what saving it costs (`make perf`).

Writes results/published/start.md, which docs/performance.md shows.
"""

import statistics
import time
from pathlib import Path

import pytest
import torch

from tests.tools.perf_page import publish
from tiltbench.engine.local import Local
from tiltbench.plan.spec import build_sampler, build_target
from tiltbench.plan.toml import Choice, Limits, Suite
from tiltbench.run.checkpoint import Checkpoints, Saved, identity
from tiltbench.run.compute import Metered
from tiltbench.run.curve import CurveState, TrainingCost
from tiltbench.run.ledger import Attempts
from tiltbench.run.meter import Meter
from tiltbench.run.states import copied
from tiltbench.targets.problem import pose

pytestmark = pytest.mark.perf

PAGE = Path(__file__).resolve().parents[2] / "results" / "published" / "start.md"
LINES: list[str] = []


def cells(target, sampler, budget, seeds=(0,)):
    choices = (Choice.of(target),), (Choice.of(sampler),)
    return Suite("start", "", budget, 100, seeds, *choices, curve=10).cells("cpu")


def test_start_of_cells(tmp_path):
    """Wall seconds from one record to the next, less those that the cell counts as its own.  This
    process has torch already: the first cell pays for the forkserver's."""
    before, beside = time.monotonic(), []
    for _, record in Local(("",), Limits()).run(cells("gmm9", "ais", 400, range(12)), tmp_path, {}):
        now = time.monotonic()
        beside.append(now - before - record.cost["seconds"])
        before = now
    rest = beside[1:]
    LINES.append(
        f"| the first cell of a run, beside its own work | {beside[0]:.2f} s of wall time |\n"
        f"| every other (median of {len(rest)}, least) | {statistics.median(rest):.3f} s, "
        f"{min(rest):.3f} s |"
    )


@pytest.mark.parametrize(
    "target, sampler, budget, steps",
    [
        ("dw4", "log_variance[model=Equivariant]", 10**7, 1),
        ("dw4", "log_variance", 10**7, 1),
        ("lj13", "smc", 200_000, 3),
    ],
)
def test_saving(target, sampler, budget, steps, tmp_path):
    """With the seven states that a learning curve keeps by the end."""
    (chosen,) = cells(target, sampler, budget)
    made = build_sampler(chosen.sampler)
    meter = Meter(chosen.budget.train)
    problem = pose(build_target(chosen.target), made.reference, meter.watch)
    source = torch.Generator().manual_seed(0)
    state = made.init(problem, chosen.budget.train, source)
    init = copied(state)
    checkpoints = Checkpoints(tmp_path / "x", identity(chosen, {}), 0.0)
    assert checkpoints.expect(state) == ""
    for _ in range(steps):
        state = made.step(problem, state, source)
    kept = [CurveState(TrainingCost(1, 1.0, 1.0), copied(state)) for _ in range(7)]
    saved = Saved(state, source, meter.spent, Metered(), steps, 1.0, kept, Attempts())
    write = cpu_ms(lambda: checkpoints.save(saved, 0.5))
    read = cpu_ms(lambda: checkpoints.load(init, source.device))
    size = (tmp_path / "x").stat().st_size / 1e6
    LINES.append(
        f"| checkpoint of {target}, {sampler} | {size:.1f} MB, "
        f"{write:.0f} ms to write, {read:.0f} ms to read (CPU time) |"
    )


def cpu_ms(f):
    times = []
    for _ in range(7):
        start = time.process_time()
        f()
        times.append(1e3 * (time.process_time() - start))
    return statistics.median(times)


def test_table(capsys):
    publish(
        PAGE, ["## Start and checkpoints", "", "| what | cost |", "| --- | --- |", *LINES], capsys
    )
