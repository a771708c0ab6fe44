"""Speed of the symmetric networks (`make perf`): one thread, CPU time; nothing here asserts a time.

A regression step is one forward and backward pass and one step of Adam on 512 points (x, t), as
adjoint sampling takes them; drawing is the control alone at 512 paths of 200 steps.  The last test
prints the table and writes it to results/published/networks.md.
"""

import time
from pathlib import Path

import pytest
import torch

from tests.tools.perf_page import publish
from tests.tools.worlds import Cloud, Field
from tiltbench.samplers.networks.convolutional import Convolutional
from tiltbench.samplers.networks.equivariant import Equivariant
from tiltbench.samplers.networks.perceptron import Mlp
from tiltbench.targets.bases.confined import Confined
from tiltbench.targets.bases.references import Brownian

pytestmark = pytest.mark.perf

PAGE = Path(__file__).resolve().parents[2] / "results" / "published" / "networks.md"
POINTS, STEPS = 512, 200
TABLE: dict[str, tuple[int, float, float]] = {}


def cloud(n, d):
    return Confined(Brownian(steps=STEPS), Cloud(n, d))


def torus(*sides):
    return Confined(Brownian(steps=STEPS), Field(sides))


CASES = {
    "dw4, Equivariant": (Equivariant(), cloud(4, 2), 8),
    "dw4, Mlp": (Mlp(), cloud(4, 2), 8),
    "lj13, Equivariant": (Equivariant(), cloud(13, 3), 39),
    "lj13, Equivariant[width=32]": (Equivariant(width=32), cloud(13, 3), 39),
    "lj55, Equivariant[width=32,rounds=1]": (Equivariant(width=32, rounds=1), cloud(55, 3), 165),
    "L = 8, Convolutional": (Convolutional(), torus(8, 8), 64),
    "L = 16, Convolutional": (Convolutional(), torus(16, 16), 256),
    "chain of 32, Convolutional": (Convolutional(), torus(32), 32),
}


def cpu_seconds(f, rounds):
    """The median; the first call is not counted."""
    f()
    times = []
    for _ in range(rounds):
        start = time.process_time()
        f()
        times.append(time.process_time() - start)
    return sorted(times)[rounds // 2]


@pytest.mark.parametrize("case", CASES)
def test_regression_step_and_drawing(case):
    network, base, dim = CASES[case]
    generator = torch.Generator().manual_seed(0)
    model = network.build(dim, base, generator)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    x = base.normal((POINTS, dim), generator, torch.float32) * base.spread
    y = base.normal((POINTS, dim), generator, torch.float32)
    k = torch.randint(STEPS, (POINTS,), generator=generator)
    grid = base.grid(x)[:-1]

    def regress():
        loss = (model.on_grid(grid)(x, k, None) - y).square().sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    rounds = 11 if dim < 100 else 3
    step = cpu_seconds(regress, rounds)
    with torch.no_grad():
        control = model.on_grid(grid)
        drawing = STEPS * cpu_seconds(lambda: control(x, STEPS // 2, None), rounds)
    TABLE[case] = sum(p.numel() for p in model.parameters()), step, drawing


def test_table(capsys):
    lines = [
        "## Networks that respect symmetry",
        "",
        f"CPU time of one thread: a regression step on {POINTS} points (x, t), forward, backward "
        f"and Adam; the control of {POINTS} paths of {STEPS} steps.",
        "",
        "| network | parameters | regression step, s | drawing, s |",
        "| --- | ---: | ---: | ---: |",
        *(
            f"| {name} | {n:,} | {step:.4f} | {draw:.2f} |"
            for name, (n, step, draw) in TABLE.items()
        ),
    ]
    publish(PAGE, lines, capsys)
