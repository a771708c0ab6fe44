"""Does the noise of the base matter on real images?  Digits with noise, other noise, and none."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from tiltbench.estimators import average, jarzynski
from tiltbench.metrics._pairs import two_sample, within
from tiltbench.plan.spec import build_sampler, build_target, parse
from tiltbench.report.pictures.style import bare, picture
from tiltbench.samplers.weights import Estimate
from tiltbench.score.floor import Floor
from tiltbench.studies.common.trained import trained
from tiltbench.studies.memoryless.noise import (
    Integrated,
    Rebased,
    Siblings,
    Silent,
    Tuned,
    optimum,
    siblings,
)
from tiltbench.studies.memoryless.study import ODE, SILENT_LIKE
from tiltbench.studies.memoryless_digits.claims import claims, pm
from tiltbench.studies.memoryless_digits.coupled import (
    FEW,
    coupling,
    memory,
    shares,
    starved,
    tilted,
)
from tiltbench.studies.memoryless_digits.measured import DigitsResult, Seen, minus
from tiltbench.study import Answer, Study
from tiltbench.targets.bases.interpolant import Ancestral, Constant, Regularised, Stepping
from tiltbench.targets.bases.process import Process
from tiltbench.targets.digits.digits import CLASSES, DIM, SIDE, digits, log_classes
from tiltbench.targets.digits.pool import PART
from tiltbench.targets.problem import pose
from tiltbench.targets.target import Tilt

TARGETS = ("digits_class[digit=3,strength=1]", "digits_even")
NOISES: dict[str, Stepping] = {
    "memoryless": Ancestral(),
    "regularised": Regularised(),
    "sigma = 1": Integrated(),
}
STEPS = 50
METHOD = "adjoint_matching[model=Adapter,paths=100,lr=0.0003]"
POINTS, DRAWS = 4_000, 1_000
SIBLINGS, ALONE = 128, 16  # paths from one X_0; times DRAWS paths without noise, one from each
REPEATED = 20  # pairs of sets of exact draws, for the floor
ROWS, COLUMNS = 5, 4  # of a panel of images


def energy(x: Tensor, y: Tensor) -> Estimate:
    return two_sample(lambda distance: distance, x.double().cpu(), y.double().cpu(), None)


def spread(x: Tensor) -> Estimate:
    """E |X - X'| in pixels, which no classifier has a say in."""
    rows = within(lambda distance: distance, x.double().cpu())
    return Estimate(float(rows.mean()), average(2 * rows).se, len(x))


class Base(NamedTuple):
    """What one noise makes of the flow, whatever the reward."""

    noise: str
    process: Process
    family: Siblings
    gaussian: float  # corr(X_0, X_1) of a Gaussian of the same rms
    ends: Estimate  # energy distance to the ends of the memoryless chain


def digits_results(device: str) -> Iterator[DigitsResult]:
    quiet: Tensor | None = None
    for noise, stepping in [*NOISES.items(), (ODE, SILENT_LIKE)]:
        flow = digits(stepping=stepping, steps=STEPS)
        process = Silent(flow) if noise == ODE else flow
        counts = (ALONE * DRAWS, 1) if noise == ODE else (DRAWS, SIBLINGS)
        family = siblings(process, DIM, *counts, device)
        if quiet is None:
            quiet = family.ends[0]
        gaussian = 1.0 if noise == ODE else flow.memory
        base = Base(noise, process, family, gaussian, energy(family.ends[-1, -DRAWS:], quiet))
        for name in TARGETS:
            yield _result(name, base, device)


def euler(device: str) -> Estimate:
    """Energy distance to the memoryless chain's ends of those with sigma = 1 by Euler's steps."""
    chains = [
        siblings(digits(stepping=stepping, steps=STEPS), DIM, DRAWS, each, device).ends[-1]
        for stepping, each in ((Constant(), 1), (Ancestral(), 2))  # other noise
    ]
    return energy(*chains)


def _result(name: str, base: Base, device: str) -> DigitsResult:
    family, noisy = base.family, base.noise != ODE
    target = Rebased(build_target(parse(name)), base.process)
    source = Generator(device).manual_seed(5)
    digit = by_parts(lambda x: log_classes(x).argmax(-1), family.ends)
    r = by_parts(target.reward, family.ends)
    exact = tilted(family, r, 2 * DRAWS, source)
    scores = [energy(tilted(family, r, DRAWS, source), exact).value for _ in range(REPEATED)]
    best = energy(optimum(family.ends, r, source), exact) if noisy else None
    each = shares(r, torch.nn.functional.one_hot(digit, CLASSES)) if noisy else None
    x, log_w = _learnt(target, noisy, device)
    start = torch.arange(r.shape[1], device=r.device).expand(r.shape)
    err = minus(jarzynski(log_w), jarzynski(r.flatten(), start.flatten())) if noisy else None
    return DigitsResult(
        name,
        base.noise,
        memory(family),
        base.gaussian,
        base.ends,
        coupling(r) if noisy else None,
        starved(r) if noisy else math.nan,
        best,
        each,
        Floor(float(torch.tensor(scores).mean()), float(torch.tensor(scores).std()), DRAWS),
        exact,
        seen(name, target, exact[:DRAWS]),
        x,
        seen(name, target, x),
        energy(x, exact),
        err,
    )


@torch.no_grad()
def by_parts(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """f of images (*b, 64), a few at a time."""
    flat = torch.cat([f(part) for part in x.flatten(0, -2).split(PART)])
    return flat.unflatten(0, x.shape[:-1])


def seen(name: str, target: Tilt, x: Tensor) -> Seen:
    digit = by_parts(log_classes, x).argmax(-1)
    asked = digit % 2 == 0 if name == "digits_even" else digit == 3
    return Seen(average(asked.double()), average(by_parts(target.reward, x)), spread(x))


def _learnt(target: Tilt, noisy: bool, device: str) -> tuple[Tensor, Tensor]:
    sampler = build_sampler(parse(METHOD))
    if not noisy:
        sampler = replace(sampler, model=Tuned())
    state = trained(target, sampler, POINTS, device)
    draws = sampler.draw(
        pose(target, sampler.reference), state, DRAWS, Generator(device).manual_seed(2)
    )
    assert draws.log_w is not None
    return draws.x, draws.log_w


def run(folder: Path, device: str) -> Answer:
    from pandas import DataFrame

    results, stiff = list(digits_results(device)), euler(device)
    _draw(folder / "memoryless_digits.png", results)
    words = (
        "The flow on 8 x 8 digits, with the noise of the base varied; K = "
        f"{STEPS}. *corr(X_0, X_1)*: by linear regression, and with any function of X_0, measured "
        f"on {SIBLINGS} base paths from each of {DRAWS:,} X_0, beside that of a Gaussian of the "
        "same rms. *Base*: energy distance of its ends to the memoryless chain's; all should share "
        f"a law. Euler's steps with sigma = 1 would be {pm(stiff)} from it, unstable where the law "
        "of images is thin, and so this noise takes steps that are exact for a known X_1. "
        "*Coupling*: Var Z(X_0) / Z^2, Z(x) = E[exp r(X_1) | X_0 = x], 0 where the "
        "optimum of the control problem ends in the tilt. *Optimum*: energy distance of its draws, "
        "one of the siblings by exp r for each X_0, no control trained, to draws of the same "
        "siblings by exp r over all X_0 at once, which is the tilt of this chain's own ends; only "
        "what ties them to X_0 differs. *Starved*: share of X_0 whose siblings' weights have an "
        f"ess below {FEW}, where such a draw is not the optimum's. *Floor*: that of draws of the "
        f"tilt. *Trained*: `{METHOD}`, {POINTS:,} calls, {DRAWS:,} draws, to the same tilt. "
        "Of the trained draws and, in brackets, as many of that tilt: *asked for*, the share of "
        "threes or of even digits; *E r*; *diversity*, the mean distance of two, in pixels. "
        "*No noise*: X' = v + u along the probability flow, "
        f"which has no weights and no optimum to draw; its tilt is that of {ALONE * DRAWS:,} ends."
    )
    return Answer(DataFrame([_shown(row) for row in results]), words, claims(results))


def _shown(row: DigitsResult) -> dict[str, object]:
    return {
        "target": row.target,
        "noise": row.noise,
        "corr, linear": f"{row.memory.linear:.3f}",
        "corr, any": row.memory.any,
        "Gaussian": f"{row.gaussian:.3f}",
        "base": pm(row.ends, 4),
        "coupling": pm(row.coupling),
        "starved": row.starved,
        "optimum": pm(row.best, 4),
        "floor": f"{row.floor.mean:.4f} ± {row.floor.sd:.4f}",
        "trained": pm(row.distance, 4),
        "asked for": beside(row.trained.hits, row.tilt.hits, 3),
        "E r": beside(row.trained.reward, row.tilt.reward, 3),
        "diversity": beside(row.trained.diversity, row.tilt.diversity, 2),
        "log Z error": pm(row.log_Z_err),
    }


def beside(trained: Estimate, tilt: Estimate, digits: int) -> str:
    return f"{pm(trained, digits)} ({pm(tilt, digits)})"


def _draw(path: Path, results: list[DigitsResult]) -> None:
    """Draws of the tilt, and trained draws for every noise."""
    noises = [*NOISES, ODE]
    with picture(path, len(TARGETS), len(noises) + 1, (1.5, 2.0)) as (_, grid):
        for line, target in zip(grid, TARGETS, strict=True):
            by = {row.noise: row for row in results if row.target == target}
            panels = {"the tilt": by["memoryless"].exact, **{n: by[n].x for n in noises}}
            for axes, (name, x) in zip(line, panels.items(), strict=True):
                axes.imshow(-_tiled(x), cmap="gray", vmin=-1, vmax=1)
                axes.set_title(name if name == "the tilt" else f"trained, {name}", fontsize=7)
                bare(axes)
            line[0].set_ylabel(target, fontsize=6)


def _tiled(x: Tensor) -> Tensor:
    """The first ROWS x COLUMNS images, side by side."""
    each = x[: ROWS * COLUMNS].detach().cpu().clamp(-1, 1).reshape(ROWS, COLUMNS, SIDE, SIDE)
    framed = torch.nn.functional.pad(each, (1, 1, 1, 1), value=-1.0)
    return framed.permute(0, 2, 1, 3).flatten(0, 1).flatten(1)


memoryless_digits = Study(
    "memoryless_digits", "Memoryless noise on digits, and what happens without it", run
)
