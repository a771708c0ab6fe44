"""Speed and memory of the particle energies (`make perf`) beside autograd of the printed formula.

One thread, CPU time, turn about in one process; nothing here asserts a time.  The last test prints
the table and writes it to results/published/throughput.md.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.tools.perf_page import beside, high_water, publish
from tiltbench.plan.spec import build_target

pytestmark = pytest.mark.perf

PAGE = Path(__file__).resolve().parents[2] / "results" / "published" / "throughput.md"
BATCH = 512
SPEED: list[str] = []
MEMORY: list[str] = []


def target_of(name):
    return build_target({"name": name, "params": {}})


def textbook(target, x):
    """As printed: all differences (B, n, n, d), norms off a masked diagonal, powers, i < j."""
    n, d = target.particles
    y = x.unflatten(-1, (n, d))
    diff = y[..., :, None, :] - y[..., None, :, :]
    same = torch.eye(n, dtype=torch.bool)
    r = diff.square().sum(-1).masked_fill(same, 1.0).sqrt()
    i, j = torch.triu_indices(n, n, 1)
    r = r[..., i, j]
    if target.name == "dw4":
        return -(0.9 * (r - 4).pow(4) - 4 * (r - 4).pow(2)).sum(-1)
    wells = 2 * (r.pow(-12) - 2 * r.pow(-6)).sum(-1)
    return -wells - (y - y.mean(-2, keepdim=True)).square().sum((-1, -2)) / 2


def with_gradient(f, x):
    y = x.detach().requires_grad_()
    value = f(y)
    return value.detach(), torch.autograd.grad(value.sum(), y)[0]


def product(f, x, v):
    """A Hessian-vector product."""
    y = x.detach().requires_grad_()
    (g,) = torch.autograd.grad(f(y).sum(), y, create_graph=True)
    return torch.autograd.grad(g, y, v)[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["single", "double"])
@pytest.mark.parametrize("name", ["dw4", "lj13", "lj55"])
def test_speed(name, dtype):
    target = target_of(name)
    generator = torch.Generator().manual_seed(0)
    x = 1.5 * target.scale * torch.randn(BATCH, target.dim, generator=generator, dtype=dtype)
    v = torch.randn(x.shape, generator=generator, dtype=dtype)
    ours, theirs = target.log_rho, lambda y: textbook(target, y)
    first, second, gain = beside(lambda: with_gradient(ours, x), lambda: with_gradient(theirs, x))
    *_, values = beside(lambda: ours(x), lambda: theirs(x))
    *_, bent = beside(lambda: product(ours, x, v), lambda: product(theirs, x, v), 3)
    bits = {torch.float32: "single", torch.float64: "double"}[dtype]
    SPEED.append(
        f"| {name} | {bits} | {BATCH / first:,.0f} | {BATCH / second:,.0f} | {gain:.1f} | "
        f"{values:.1f} | {bent:.1f} |"
    )


@pytest.mark.parametrize("batch", [512, 2048, 8192, 32768])
def test_memory(batch):
    ours = peak("lj55", "ours", batch)
    naive = f"{peak('lj55', 'textbook', batch):.0f}" if batch <= 2048 else "not run"
    MEMORY.append(f"| {batch:,} | {ours:.0f} | {naive} | {2 * batch * 165 * 4 / 2**20:.0f} |")


def peak(*case):
    """MB by which values and gradients raise the peak resident memory of a fresh process."""
    command = [sys.executable, "-m", "tests.perf.test_particles", *map(str, case)]
    done = subprocess.run(
        command, cwd=PAGE.parents[2], capture_output=True, text=True, timeout=300, check=True
    )
    return float(done.stdout)


def measure_peak(name, which, batch):
    torch.set_num_threads(1)
    target = target_of(name)
    f = target.log_rho if which == "ours" else lambda y: textbook(target, y)
    with_gradient(f, torch.randn(2, target.dim))  # what loads once
    x = torch.randn(int(batch), target.dim)
    before = high_water()
    with_gradient(f, x)
    print(high_water() - before)


def test_table(capsys):
    lines = [
        "## Particle energies",
        "",
        f"Points per CPU-second, values and gradients, batches of {BATCH}, one thread; *textbook* "
        "is autograd of the printed formula on all differences.  Gains are ratios of CPU time, the "
        "median of turns.",
        "",
        "| target | precision | points per CPU-s | textbook | gain | gain, values alone | gain, "
        "Hessian-vector product |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *SPEED,
        "",
        "Peak memory added by values and gradients of lj55, single precision, MB:",
        "",
        "| points | here | textbook | the gradient, kept and returned |",
        "| --- | --- | --- | --- |",
        *MEMORY,
    ]
    publish(PAGE, lines, capsys)


if __name__ == "__main__":
    measure_peak(*sys.argv[1:])
