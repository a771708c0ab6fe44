"""The base of a tilt, before anything is tilted: its chain, and how wide its ends are."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Generator

from tiltbench.findings import Finding, expect
from tiltbench.samplers.redraw import Uncontrolled
from tiltbench.targets.process import simulate
from tiltbench.targets.target import Target, Tilt

N = 400  # paths
OFF = 1.5  # times


def paths(target: Target) -> Iterator[Finding]:
    """Paths of the base end in finite points, as wide as its `spread` says."""
    if not isinstance(target, Tilt):
        return
    base = target.base
    with torch.no_grad():
        x = simulate(base, Uncontrolled(), (N, target.dim), Generator().manual_seed(19)).x[-1]
    lost = int((~x.isfinite().all(-1)).sum())
    yield expect(
        lost == 0,
        "the paths of the base are finite",
        f"{lost} of {N} paths of the base end in NaN or infinity",
        "let the network answer in finite numbers at every time of the grid",
    )
    rms = float((x.square().sum(-1).mean() / target.rank).sqrt())
    yield expect(
        rms / OFF <= base.spread <= rms * OFF,
        f"the rms coordinate of draws of the base is {rms:.3g}, its spread says {base.spread:.3g}",
        f"the spread of the base is {base.spread:.3g}, the rms coordinate of its draws {rms:.3g}",
        f"state {rms:.2g} (`rms` of a Pretrained), or more steps if the chain is what is off",
    )
