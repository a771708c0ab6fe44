"""The base of a tilt, before anything is tilted: its chain, and how wide its ends are."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Generator

from tiltbench.check.findings import Finding, Snapshot, expect
from tiltbench.targets.bases.process import Uncontrolled, simulate
from tiltbench.targets.target import Target, Tilt

N = 400  # paths
OFF = 1.5  # times


def paths(target: Target) -> Iterator[Finding]:
    """Paths of the base end in finite points, as wide as its `spread` says, by steps that are a
    function of a point alone."""
    if not isinstance(target, Tilt):
        return
    base = target.base
    with torch.no_grad():
        path = simulate(base, Uncontrolled(), (N, target.dim), Generator().manual_seed(19)).x
        k = base.steps // 2
        few = path[k, :6]
        snapshot = Snapshot(few)
        once, again = (base.base(few, k).mean for _ in range(2))
        alone = torch.cat([base.base(row[None], k).mean for row in few])
    lost = int((~path[-1].isfinite().all(-1)).sum())
    yield expect(
        lost == 0,
        "the paths of the base are finite",
        f"{lost} of {N} paths of the base end in NaN or infinity",
        "let the network answer in finite numbers at every time of the grid",
    )
    yield expect(
        not snapshot.changed,
        "the base leaves its points as they are",
        "the base changes its points in place, which corrupts the paths",
        "make new tensors in the network: no += and no functions that end in _",
    )
    yield expect(
        torch.equal(once, again),
        "the base is the same twice",
        "a step of the base from the same points has another mean the second time",
        "leave randomness and state out of it: a network in evaluation mode, without dropout",
    )
    yield expect(
        torch.allclose(once, alone, rtol=1e-4, atol=1e-4 * base.spread),
        "the base moves every point by itself",
        "a step of the base of a batch differs from that of its points one by one",
        "let no point see the others: no statistics over the batch",
    )
    rms = float((path[-1].square().sum(-1).mean() / target.rank).sqrt())
    yield expect(
        rms / OFF <= base.spread <= rms * OFF,
        f"the rms coordinate of draws of the base is {rms:.3g}, its spread says {base.spread:.3g}",
        f"the spread of the base is {base.spread:.3g}, the rms coordinate of its draws {rms:.3g}",
        "state the rms coordinate of what was trained on; if it is right, the network, its reading "
        "or the number of steps is what is off",
    )
