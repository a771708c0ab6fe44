"""Do the intervals of log Z hold it?  Two hundred repetitions of the measurement, old and new."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from tiltbench.plan.spec import build_sampler, build_target, parse
from tiltbench.samplers.diffusion import Diffusion
from tiltbench.studies.common.trained import trained
from tiltbench.studies.coverage.claims import claims
from tiltbench.studies.coverage.figures import draw
from tiltbench.studies.coverage.measured import SIDES, MeasuredControl, Weights, covered
from tiltbench.study import Answer, Study
from tiltbench.targets.bases.process import Path as Steps
from tiltbench.targets.problem import Problem, pose
from tiltbench.targets.target import Target

REPEATED, PATHS = 200, 1_000  # the size of the quick suite, of each side
CHUNK = 2_000
FINE = "reference=Brownian[steps=50,ratio=8]"
LOSSES = ("log_variance", "adjoint_matching", "novel_score_matching")
TILTS = {"tilt_linear": 40_000, "tilt_quadratic[dim=10]": 40_000}  # calls of training
DIGITS, FEW_CALLS, POOL, OLD_POOL = "digits_even", 8_000, 40_000, 8_000
HELD = 25_000  # exact draws of the digits, at most
RIVALS = ("log_variance", "pis", "adjoint_sampling")
DENSITIES = ("gmm9", "many_well_mdelta", "funnel")
CALLS = 40_000
ARRIVED = {  # on gmm9, trained until few modes or none are lost; calls of training
    "untrained": ("log_variance", 0),
    "novel_score_matching, 150 batches": (
        f"novel_score_matching[paths=256,batches=150,repeats=8,memory=16,{FINE}]",
        4_000_000,
    ),
    "adjoint_sampling, 150 batches": (
        "adjoint_sampling[paths=256,batches=150,repeats=16,memory=64,lr=0.01,"
        "reference=Brownian[steps=50]]",
        4_000_000,
    ),
}
SHORT = 100  # repetitions on densities


def measured(device: str) -> Iterator[MeasuredControl]:
    for name, points in TILTS.items():
        for loss in LOSSES:
            yield on_mixture(name, loss, points, device)
    yield from on_digits(device)
    for name in DENSITIES:
        for rival in RIVALS:
            yield on_gaussian(name, rival, rival, CALLS, device)
    for label, (sampler, points) in ARRIVED.items():
        yield on_gaussian(DENSITIES[0], sampler, label, points, device)


class Control:
    """A trained control and the problem that it is measured on."""

    def __init__(self, target: Target, sampler: str, points: int, device: str) -> None:
        built = build_sampler(parse(sampler))
        assert isinstance(built, Diffusion)
        self.sampler: Diffusion = built
        self.state: Any = trained(target, built, points, device)
        self.problem: Problem = built.posed(pose(target, built.reference))

    def weights(self, path: Steps) -> tuple[Tensor, Tensor]:
        """log_w against the chain, and against the law of the base."""
        base = self.problem.base
        chain = self.problem.reward(path.x[-1]).double() - base.log_ratio(path)
        return chain.cpu(), (chain + base.log_law_over_chain(path)).cpu()

    @torch.no_grad()
    def forward(self, n: int, source: Generator) -> tuple[Tensor, Tensor]:
        return joined(
            self.weights(
                self.sampler.recipe.simulate(self.problem, self.state.model, CHUNK, source)
            )
            for _ in range(0, n, CHUNK)
        )

    @torch.no_grad()
    def reverse(self, x: Tensor, source: Generator) -> tuple[Tensor, Tensor]:
        return joined(self._reverse(part, source) for part in x.float().split(CHUNK))

    def _reverse(self, x: Tensor, source: Generator) -> tuple[Tensor, Tensor]:
        path = self.sampler.recipe.retrace(self.problem, self.state.model, x, source)
        assert path is not None  # the study's samplers are not resampled
        return self.weights(path)

    @torch.no_grad()
    def along(self, x: Tensor) -> Tensor:
        """x (K + 1, n, D) are paths of the base's own chain."""
        recipe = self.sampler.recipe
        parts = []
        for part in x.split(CHUNK, 1):
            path = recipe.passing(self.problem, self.state.model, part)
            assert path is not None
            parts.append(self.weights(path))
        return joined(parts)[1]


def joined(parts: Any) -> tuple[Tensor, Tensor]:
    chain, law = zip(*parts, strict=True)
    return torch.cat(chain), torch.cat(law)


def on_mixture(name: str, loss: str, points: int, device: str) -> MeasuredControl:
    """Before: weighed against the chain; now: against the law."""
    return _fresh(name, loss, loss, points, device, REPEATED, True)


def on_gaussian(name: str, sampler: str, label: str, points: int, device: str) -> MeasuredControl:
    """Where chain and law are one."""
    return _fresh(name, sampler, label, points, device, SHORT, False)


def _fresh(
    name: str, sampler: str, label: str, points: int, device: str, times: int, on_chain: bool
) -> MeasuredControl:
    target = build_target(parse(name))
    truth, control = target.truth(), Control(target, sampler, points, device)
    assert truth.sample is not None
    source, n = Generator(device).manual_seed(7), times * PATHS
    ahead = control.forward(n, source)
    back = control.reverse(truth.sample(n, source), source)
    before, after = (
        Weights(f.reshape(times, PATHS), b.reshape(times, PATHS))
        for f, b in zip(ahead, back, strict=True)
    )
    return MeasuredControl(name, label, on_chain, target, truth, before, after)


def on_digits(device: str) -> Iterator[MeasuredControl]:
    """Before: reverse paths by the noising; now: those of the chain that ended in the draws.

    As in a run, ends are drawn from the stored draws that the tilt accepts, and paths forward from
    POOL: repetitions share some."""
    target = build_target(parse(DIGITS))
    truth = target.truth()
    assert truth.paths is not None
    paths = truth.paths(int(min(truth.held, HELD)), Generator(device).manual_seed(8))
    for loss in LOSSES:
        control = Control(target, loss, FEW_CALLS, device)
        source = Generator(device).manual_seed(9)
        forward = control.forward(POOL, source)[1]
        along_chain = control.along(paths)
        noised = control.reverse(paths[-1, :OLD_POOL], source)[1]
        ahead = forward[chosen(len(forward), source)]
        before, after = (
            Weights(ahead, back[chosen(len(back), source)]) for back in (noised, along_chain)
        )
        yield MeasuredControl(DIGITS, loss, True, target, truth, before, after)


def chosen(n: int, source: Generator) -> Tensor:
    """(R, PATHS) of n, no row with one twice."""
    rows = [torch.randperm(n, generator=source, device=source.device) for _ in range(REPEATED)]
    return torch.stack(rows)[:, :PATHS].cpu()


def run(folder: Path, device: str) -> Answer:
    from pandas import DataFrame

    controls = list(measured(device))
    draw(folder / "coverage.png", controls)
    tilts, densities = ([m for m in controls if m.on_chain == chain] for chain in (True, False))
    words = (
        f"Each control was trained once and measured {REPEATED} times ({SHORT} on densities), "
        f"{PATHS:,} paths forward and as many in reverse. *Covers*: the share of intervals, value "
        "± 1.96 standard errors, that hold log Z. *Before*: every interval, weights against the "
        "base's chain, reverse paths by the noising kernels. *Now*: weights against the law of the "
        f"base, which a mixture has in closed form; on `{DIGITS}`, whose law is that of its chain "
        "of 50 steps, reverse paths are those by which the chain made the stored draws; and a "
        "one-sided interval is stated only where its weights tell it (k_hat, unseen). *Stated*: "
        "in how many repetitions there is one. *error*: mean of value - log Z. *se*: mean of the "
        f"standard errors. Tilts are trained for {CALLS:,} calls, digits for {FEW_CALLS:,}, the "
        f"densities for {CALLS:,} or as named. Repetitions on the digits draw from {POOL:,} paths "
        f"and from all exact draws that are held ({OLD_POOL:,} before), so that they share some."
    )
    rows = [_table_row(m, side) for m in controls for side in SIDES]
    return Answer(DataFrame(rows), words, claims(tilts, densities))


def _table_row(m: MeasuredControl, side: str) -> dict[str, object]:
    estimate = m.estimates[side]
    before, after, stated = covered(estimate.before), covered(estimate.after), estimate.stated
    at = estimate.after if stated.any() else estimate.after[:0]
    return {
        "target": m.target,
        "control": m.control,
        "estimate": side,
        "before: covers": f"{before.value:.3f}",
        "error before": f"{estimate.before[:, 0].mean():+.4f}",
        "se before": f"{_mean(estimate.before[:, 1]):.4f}",
        "now: covers": f"{after.value:.3f}" if after.n else "–",
        "stated": f"{int(stated.sum())} of {len(stated)}",
        "error": f"{estimate.after[:, 0].mean():+.4f}",
        "se": f"{_mean(at[:, 1]):.4f}" if stated.any() else "–",
        "k_hat": "–" if side == "Bennett" else f"{np.nanmedian(estimate.k):.2f}",
        "unseen": "–" if side == "Bennett" else f"{np.median(estimate.unseen):.3f}",
    }


def _mean(values: np.ndarray) -> float:
    return float(values[np.isfinite(values)].mean())


coverage = Study("coverage", "Intervals of log Z that hold it", run)
