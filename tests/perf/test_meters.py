"""What both meters cost, of calls and of operations, as a share of a training step (`make perf`).

The difference of two loops would drown in the noise of a shared machine: each part is measured by
itself, in turns, and the shares are put together.  One thread, CPU time, medians.
"""

import statistics
from pathlib import Path

import pytest
import torch

from tests.tools.iterations import times
from tests.tools.perf_page import publish
from tiltbench.plan.spec import build_sampler, build_target
from tiltbench.plan.text import parse
from tiltbench.run.compute import Compute
from tiltbench.run.meter import Meter
from tiltbench.run.operations import Operations
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import pose

PAGE = Path(__file__).resolve().parents[2] / "results" / "published" / "meters.md"
HUGE = Cost(10**12, 10**12)
STEPS = 1000  # of a training; its audits are those of the first so many coins
TURNS, SECONDS = 9, 0.05
CASES = {
    "log_variance, 128 x 32, gmm9": ("gmm9", "log_variance"),
    "adjoint_sampling, 6 repeats, gmm9": ("gmm9", "adjoint_sampling[repeats=6,memory=20]"),
    "log_variance, guided, 128 x 32, funnel": ("funnel", "log_variance[model=Guided]"),
    "cmcd_lv, 128 paths, gmm9": ("gmm9", "cmcd_lv[paths=128]"),
    "nets_pinn, 128 paths, gmm9": ("gmm9", "nets_pinn[paths=128]"),
    "adjoint_matching, 128 x 50, tilt_shapes": ("tilt_shapes", "adjoint_matching"),
    "adjoint_sampling, equivariant, dw4": ("dw4", "adjoint_sampling[model=Equivariant]"),
    "hmc, gmm9": ("gmm9", "hmc"),
}
TABLE = []


def median(f):
    return statistics.median(times(f, SECONDS))


def trained(target, sampler, watch):
    law, made = build_target(parse(target)), build_sampler(parse(sampler))
    problem = pose(law, made.reference, *watch)
    source = torch.Generator().manual_seed(0)
    state = [made.init(problem, HUGE, source)]

    def step():
        state[0] = made.step(problem, state[0], source)

    for _ in range(3):
        step()
    return step


def seen(step):
    def audited():
        with Operations():
            step()

    return audited


@pytest.mark.perf
@pytest.mark.parametrize("case", CASES)
def test_both_meters(case):
    meter, compute = Meter(HUGE), Compute(1e30, 0)
    bare, watched = (trained(*CASES[case], watch) for watch in ((), (meter.watch,)))
    audited = seen(bare)

    def nothing():
        with compute.step(STEPS, meter):
            pass

    compute.last = 1.0, 0  # or it would be audited for the want of an audit
    compute.audited = lambda number: False
    turns = [[median(f) for f in (bare, watched, audited)] for _ in range(TURNS)]
    step, _, whole = (statistics.median(each) for each in zip(*turns, strict=True))
    per_step = median(nothing)
    audits = sum(map(Compute(1.0, 0).audited, range(STEPS)))
    calls = statistics.median(b / a for a, b, _ in turns) - 1
    operations = (audits * max(whole - step, 0) / STEPS + per_step) / step
    TABLE.append(
        f"| {case} | {1e3 * step:.1f} | {100 * calls:+.1f} % | {whole / step:.1f} x | "
        f"{audits} of {STEPS:,} | {100 * operations:.1f} % |"
    )


@pytest.mark.perf
def test_table(capsys):
    lines = [
        "## What the meters cost",
        "",
        "CPU time of one thread. *Calls*: a step with the counted reward beside the bare one, in "
        "turns (the noise of this machine is about 1 %). *Audited*: a step whose every operation "
        f"is seen. *Operations*: the audits of {STEPS:,} steps and the bookkeeping of all, as a "
        "share of training.",
        "",
        "| a step of training | ms | calls | audited | audits | operations |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        *TABLE,
    ]
    publish(PAGE, lines, capsys)


def test_the_cases_can_be_built():
    for target, sampler in CASES.values():
        build_target(parse(target)), build_sampler(parse(sampler))
