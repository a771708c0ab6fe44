"""Energies of alanine dipeptide (`make perf`) beside OpenMM's, where that is installed.

One thread, CPU time, turn about in one process; nothing here asserts a time.  The last test prints
the table and writes it to results/published/molecules.md.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tools.perf_page import beside, high_water, publish
from tiltbench.targets.densities.aldp import Aldp

pytestmark = pytest.mark.perf

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "results" / "published" / "molecules.md"
BATCH, ONCE = 512, 24  # conformations here at a time; of OpenMM in one turn, one after the other
SPEED: list[str] = []
MEMORY: list[str] = []


def conformations(n, dtype=torch.float64):
    stored = np.load(ROOT / "tests" / "targets" / "aldp_openmm.npz")["ff96_obc1_x"]
    return torch.from_numpy(stored).flatten(1).to(dtype).repeat(-(-n // len(stored)), 1)[:n]


@pytest.mark.parametrize("solvent", ["vacuum", "obc1"])
@pytest.mark.parametrize("platform", ["Reference", "CPU"])
def test_speed(platform, solvent):
    """As many conformations of each in a turn as it takes at a time."""
    pytest.importorskip("openmm", reason="OpenMM is not installed (the extra `molecules`)")
    from tests.tools.peptide import context, system

    here = context(system(f"ff96, {solvent}"), platform)
    rows = conformations(ONCE).reshape(ONCE, 22, 3).numpy()

    def theirs():
        for row in rows:
            here.setPositions(row)
            state = here.getState(getEnergy=True, getForces=True)
            state.getPotentialEnergy()._value
            state.getForces(asNumpy=True)._value

    target, cells = Aldp(solvent=solvent), []
    for dtype in (torch.float64, torch.float32):
        x = conformations(BATCH, dtype)
        ours, other, ratio = beside(lambda x=x: target.log_rho_and_grad(x), theirs)
        rates = (BATCH / ours, ONCE / other, ratio * BATCH / ONCE)
        cells.append(rates)
    (double, openmm, gain), (single, _, most) = cells
    SPEED.append(
        f"| {solvent} | {platform} | {openmm:,.0f} | {double:,.0f} | {gain:.1f} | {single:,.0f} | "
        f"{most:.1f} |"
    )


@pytest.mark.parametrize("batch", [512, 2_048, 8_192, 32_768])
def test_memory(batch):
    command = [sys.executable, "-m", "tests.perf.test_molecules", str(batch)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True
    )
    MEMORY.append(f"| {batch:,} | {float(done.stdout):.0f} | {2 * batch * 66 * 4 / 2**20:.0f} |")


def measure_peak(batch):
    """MB by which values and gradients raise the peak resident memory of a fresh process."""
    torch.set_num_threads(1)
    target = Aldp()
    target.log_rho_and_grad(conformations(2, torch.float32))  # what loads once
    x = conformations(batch, torch.float32)
    before = high_water()
    target.log_rho_and_grad(x)
    print(high_water() - before)


def test_table(capsys):
    lines = [
        "## Molecules",
        "",
        f"Alanine dipeptide in ff96: values and gradients per CPU-second, batches of {BATCH}, one "
        "thread, beside OpenMM through its Python interface, one conformation after the other. "
        "Gains are ratios of CPU time, the median of turns.",
        "",
        "| solvent | OpenMM's platform | OpenMM | double | gain | single | gain |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
        *SPEED,
        "",
        "Peak memory added by values and gradients in obc1, single precision, MB:",
        "",
        "| conformations | here | points and gradients |",
        "| ---: | ---: | ---: |",
        *MEMORY,
    ]
    publish(PAGE, lines, capsys)


if __name__ == "__main__":
    measure_peak(int(sys.argv[1]))
