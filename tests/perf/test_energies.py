"""Value and gradient of targets in one call (`make perf`): stated, by autograd, and compiled.

One thread, CPU time, in turns; nothing here asserts a time.  The last test prints the table and
writes results/published/energies.md.
"""

import os
import shutil
from pathlib import Path

import pytest
import torch

from tests.tools.perf_page import beside, publish
from tests.tools.registered import by_default
from tiltbench.targets.gradient import value_and_grad
from tiltbench.targets.registry import TARGETS
from tiltbench.targets.target import Density, Tilt

pytestmark = pytest.mark.perf

PAGE = Path(__file__).resolve().parents[2] / "results" / "published" / "energies.md"
POINTS = (128, 2048)
COMPILED = ("funnel", "gmm9", "many_well")  # seconds each: short formulas of many operations
TABLE: dict[str, list[str]] = {}


def calls(target):
    """(what is differentiated, value and gradient in one call, whether the target states it)."""
    if isinstance(target, Density):
        stated = type(target).log_rho_and_grad is not Density.log_rho_and_grad
        return target.log_rho, target.log_rho_and_grad, stated
    return (
        target.reward,
        target.reward_and_grad,
        type(target).reward_and_grad is not Tilt.reward_and_grad,
    )


STATED = {name: target for name in by_default() if calls(target := TARGETS.load(name)())[2]}


def batch(target, points):
    generator = torch.Generator().manual_seed(0)
    return target.scale * torch.randn(points, target.dim, generator=generator)


@pytest.mark.parametrize("name", STATED)
def test_stated_beside_autograd(name):
    f, both, _ = calls(STATED[name])
    row = TABLE.setdefault(name, [])
    for points in POINTS:
        x = batch(STATED[name], points)
        own, _, gain = beside(lambda: both(x), lambda: value_and_grad(f, x), 5)
        row += [f"{1e6 * own:,.0f}", f"{gain:.1f}"]


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_beside_stated(name):
    """The same call through torch.compile, shapes left open; compiling is not timed."""
    if not shutil.which(os.environ.get("CXX", "g++")):
        pytest.skip("torch.compile needs a C++ compiler on a CPU, and none is at hand")
    _, both, _ = calls(STATED[name])
    compiled = torch.compile(both, dynamic=True)
    compiled(batch(STATED[name], 7))
    for points in POINTS:
        x = batch(STATED[name], points)
        *_, gain = beside(lambda: compiled(x), lambda: both(x), 5)
        TABLE[name].append(f"{gain:.1f}")


def test_table(capsys):
    lines = [
        "## Energies",
        "",
        "Value and gradient in one call, as the target states them: microseconds of CPU time, one "
        "thread, single precision, and how many times as fast as autograd of the value. "
        "*Compiled*: how many times as fast again `torch.compile` makes that call, once compiled.",
        "",
        "| target | "
        + " | ".join(f"{n:,} points, us | beside autograd" for n in POINTS)
        + " | "
        + " | ".join(f"compiled, {n:,}" for n in POINTS)
        + " |",
        "| --- |" + " ---: |" * 6,
        *(f"| {name} | {' | '.join([*row, '', ''][:6])} |" for name, row in TABLE.items()),
    ]
    publish(PAGE, lines, capsys)
