"""Does the noise of the base matter on real images?  Digits with noise, other noise, and none."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
from torch import Generator, Tensor

from tiltbench.estimators import average, jarzynski
from tiltbench.floor import Floor
from tiltbench.metrics._pairs import two_sample, within
from tiltbench.report.style import bare, picture
from tiltbench.samplers.adapter import Adapter
from tiltbench.samplers.networks import Model
from tiltbench.samplers.weights import Estimate
from tiltbench.spec import build_sampler, build_target, parse
from tiltbench.studies._coupled import Memory, Shares, coupling, memory, shares, tilted
from tiltbench.studies._memoryless import Rebased, Siblings, Silent, optimum, siblings
from tiltbench.studies._trained import trained
from tiltbench.studies.memoryless import NOISES, ODE, SILENT_LIKE
from tiltbench.study import Answer, Claim, Study, verdict
from tiltbench.targets.digits import CLASSES, SIDE, log_classes
from tiltbench.targets.digits_pool import PART
from tiltbench.targets.problem import pose
from tiltbench.targets.process import Process
from tiltbench.targets.target import Tilt

TARGETS = ("digits_class[digit=3,strength=1]", "digits_even")
STEPS = 50
METHOD = "adjoint_matching[model=Adapter,paths=100,lr=0.0003]"
POINTS, DRAWS = 4_000, 1_000
SIBLINGS, ALONE = 128, 16  # paths from one X_0; times DRAWS paths without noise, one from each
REPEATED = 20  # pairs of sets of exact draws, for the floor
ROWS, COLUMNS = 5, 4  # of a panel of images


@dataclass(frozen=True)
class Tuned(Adapter):
    """The same without noise: u = v_theta - v_base."""

    name: ClassVar[str] = "Tuned"

    def build(self, dim: int, process: Process, generator: Generator) -> Model:
        assert isinstance(process, Silent)
        return super().build(dim, process.flow, generator)


class Row(NamedTuple):
    target: str
    noise: str
    memory: Memory
    gaussian: float  # corr(X_0, X_1) of a Gaussian base of the same rms
    coupling: Estimate | None  # Var Z(X_0) / Z^2; None without noise, as all of the optimum is
    best: Estimate | None  # energy distance of the optimum's draws to the tilt
    shares: Shares | None  # of the digits, at the optimum
    floor: Floor  # what draws of the tilt score
    exact: Tensor  # draws of the tilt of this chain's own ends
    spread: Estimate  # of them
    x: Tensor  # draws after training
    hits: Estimate  # share of them that are what is asked for
    reward: Estimate
    distance: Estimate  # to the tilt
    diversity: Estimate
    log_Z_err: Estimate | None  # by path weights, to the tilt of this chain's own ends

    @property
    def sds(self) -> float:
        """How far the optimum is above the floor, in its sd."""
        assert self.best is not None
        return (self.best.value - self.floor.mean) / self.floor.sd

    @property
    def above(self) -> Estimate:
        """How far the trained draws are above the floor."""
        far, floor = self.distance, self.floor
        return Estimate(far.value - floor.mean, math.hypot(far.se, floor.sd), far.n)


def energy(x: Tensor, y: Tensor) -> Estimate:
    return two_sample(lambda distance: distance, x.double().cpu(), y.double().cpu(), None)


def spread(x: Tensor) -> Estimate:
    """E |X - X'| in pixels, which no classifier has a say in."""
    rows = within(lambda distance: distance, x.double().cpu())
    return Estimate(float(rows.mean()), average(2 * rows).se, len(x))


def rows(device: str) -> Iterator[Row]:
    for noise, stepping in [*NOISES.items(), (ODE, SILENT_LIKE)]:
        targets = {
            name: replace(build_target(parse(name)), stepping=stepping, steps=STEPS)
            for name in TARGETS
        }
        base: Process = next(iter(targets.values())).base
        if noise == ODE:
            base = Silent(base)  # type: ignore[arg-type]
        counts = (ALONE * DRAWS, 1) if noise == ODE else (DRAWS, SIBLINGS)
        family = siblings(base, 64, *counts, device)
        remembered = memory(family)
        gaussian = 1.0 if noise == ODE else float(base.memory)  # type: ignore[attr-defined]
        for name, target in targets.items():
            yield _row(name, noise, Rebased(target, base), family, remembered, gaussian, device)


def _row(
    name: str,
    noise: str,
    target: Tilt,
    family: Siblings,
    remembered: Memory,
    gaussian: float,
    device: str,
) -> Row:
    source = Generator(device).manual_seed(5)
    digit = by_parts(lambda x: log_classes(x).argmax(-1), family.ends)
    r = by_parts(target.reward, family.ends)
    exact = tilted(family, r, 2 * DRAWS, source)
    scores = [energy(tilted(family, r, DRAWS, source), exact).value for _ in range(REPEATED)]
    noisy = noise != ODE
    best = energy(optimum(family.ends, r, source), exact) if noisy else None
    each = shares(r, torch.nn.functional.one_hot(digit, CLASSES)) if noisy else None
    x, log_w = _learnt(target, noisy, device)
    start = torch.arange(r.shape[1], device=r.device).expand(r.shape)
    err = _minus(jarzynski(log_w), jarzynski(r.flatten(), start.flatten())) if noisy else None
    return Row(
        name,
        noise,
        remembered,
        gaussian,
        coupling(r) if noisy else None,
        best,
        each,
        Floor(float(torch.tensor(scores).mean()), float(torch.tensor(scores).std()), DRAWS),
        exact,
        spread(exact[:DRAWS]),
        x,
        average(asked(name, by_parts(log_classes, x).argmax(-1)).double()),
        average(by_parts(target.reward, x)),
        energy(x, exact),
        spread(x),
        err,
    )


@torch.no_grad()
def by_parts(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """f of images (*b, 64), a few at a time."""
    flat = torch.cat([f(part) for part in x.flatten(0, -2).split(PART)])
    return flat.unflatten(0, x.shape[:-1])


def asked(name: str, digit: Tensor) -> Tensor:
    return digit % 2 == 0 if name == "digits_even" else digit == 3


def _minus(a: Estimate, b: Estimate) -> Estimate:
    return Estimate(a.value - b.value, math.hypot(a.se, b.se), a.n)


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

    found = list(rows(device))
    _draw(folder / "memoryless_digits.png", found)
    words = (
        "The flow on 8 x 8 digits, with the noise of the base varied; K = "
        f"{STEPS}. *corr(X_0, X_1)*: by linear regression, and with any function of X_0, measured "
        f"on {SIBLINGS} base paths from each of {DRAWS:,} X_0, beside that of a Gaussian of the "
        "same rms. *Coupling*: Var Z(X_0) / Z^2, Z(x) = E[exp r(X_1) | X_0 = x], 0 where the "
        "optimum of the control problem ends in the tilt. *Optimum*: energy distance of its draws, "
        "one of the siblings by exp r for each X_0, no control trained, to draws of the same "
        "siblings by exp r over all X_0 at once, which is the tilt of this chain's own ends; only "
        "what ties them to X_0 differs. *Floor*: that of draws of the latter. *Trained*: "
        f"`{METHOD}`, {POINTS:,} calls, {DRAWS:,} draws, to the same tilt. *Asked for*: share of "
        "threes, or of even digits, among the trained draws. *Diversity*: mean distance of two, in "
        "pixels; in brackets that of the tilt. *No noise*: X' = v + u along the probability flow, "
        f"which has no weights and no optimum to draw; its tilt is that of {ALONE * DRAWS:,} ends."
    )
    return Answer(DataFrame([_shown(row) for row in found]), words, claims(found))


def _shown(row: Row) -> dict[str, object]:
    return {
        "target": row.target,
        "noise": row.noise,
        "corr, linear": f"{row.memory.linear:.3f}",
        "corr, any": row.memory.any,
        "Gaussian": f"{row.gaussian:.3f}",
        "coupling": pm(row.coupling),
        "optimum": pm(row.best, 4),
        "floor": f"{row.floor.mean:.4f} ± {row.floor.sd:.4f}",
        "trained": pm(row.distance, 4),
        "asked for": pm(row.hits),
        "E r": pm(row.reward),
        "diversity": f"{pm(row.diversity, 2)} ({row.spread.value:.2f})",
        "log Z error": pm(row.log_Z_err),
    }


def pm(estimate: Estimate | None, digits: int = 3) -> str:
    if estimate is None:
        return "–"
    return f"{estimate.value:.{digits}f} ± {estimate.se:.{digits}f}"


def claims(found: list[Row]) -> tuple[Claim, ...]:
    def of(noise: str) -> list[Row]:
        return [row for row in found if row.noise == noise]

    quiet, loud, ode = of("memoryless") + of("regularised"), of("sigma = 1"), of(ODE)
    calm, told = quiet[0].memory.any, loud[0].memory.any
    worst = max(quiet, key=lambda row: abs(_z(row.coupling)))
    bound = min(loud, key=lambda row: _z(row.coupling))
    near, far = (choose(loud, key=lambda row: row.sds) for choose in (min, max))
    best = max(quiet, key=lambda row: row.sds)
    even = next(row for row in loud if row.target == "digits_even")
    wrong = _furthest(even)
    still = _furthest(next(row for row in quiet if row.target == "digits_even"))
    pairs = [(m, row) for m in of("memoryless") for row in loud + ode if row.target == m.target]
    gaps = [_z(_minus(row.distance, m.distance)) for m, row in pairs]
    weighed = [row for row in found if row.log_Z_err is not None]
    z = max((_z(row.log_Z_err) for row in weighed), key=abs)
    return (
        Claim(
            "With sigma = 1 the images remember X_0, with memoryless noise they do not",
            verdict(told > 0.3 and calm < 0.05, told < 0.1 or calm > 0.1),
            f"corr(X_0, X_1) with any function: sigma = 1 {told:.3f}, memoryless {calm:.3f}; "
            f"a Gaussian's: {loud[0].gaussian:.3f} and {quiet[0].gaussian:.3f}.",
        ),
        Claim(
            "On a memoryless base the optimum of the control problem ends in the tilt",
            verdict(best.sds < 4 and abs(_z(worst.coupling)) < 4, best.sds > 6),
            f"{len(quiet)} optima, memoryless and regularised: the farthest {best.sds:+.1f} sd of "
            f"the floor from it ({best.target}, {best.noise}); the coupling most off 0 is "
            f"{pm(worst.coupling)} ({worst.target}, {worst.noise}).",
        ),
        Claim(
            "With sigma = 1 how good an end X_0 can hope for depends on X_0, so that the optimum "
            "must end elsewhere",
            verdict(_z(bound.coupling) > 6, abs(_z(bound.coupling)) < 2),
            "coupling: " + ", ".join(f"{row.target} {pm(row.coupling)}" for row in loud) + ".",
        ),
        Claim(
            f"and {DRAWS:,} draws show it in the energy distance",
            verdict(near.sds > 6, far.sds < 2),
            "optimum above the floor, in its sd: "
            + ", ".join(f"{row.target} {row.sds:+.1f}" for row in loud)
            + ".",
        ),
        Claim(
            "and in the shares of the even digits, by all weights",
            verdict(abs(wrong[1]) > 6, abs(wrong[1]) < 3),
            f"of 5, the furthest is {wrong[0]} (z = {wrong[1]:+.1f}); memoryless: {still[0]} "
            f"(z = {still[1]:+.1f}).",
        ),
        Claim(
            "Trained with sigma = 1 or without noise, draws end further from the tilt than with "
            "memoryless noise",
            verdict(min(gaps) > 3, max(gaps) < -3),
            "trained, above the floor: "
            + ", ".join(
                f"{row.target}, {row.noise} {pm(row.above, 4)}"
                for row in of("memoryless") + loud + ode
            )
            + f"; the differences to memoryless are {min(gaps):+.1f} to {max(gaps):+.1f} standard "
            "errors.",
        ),
        Claim(
            "Path weights find log Z whatever the noise",
            verdict(abs(z) < 3, abs(z) > 5),
            f"{len(weighed)} trained controls with noise: the worst error is {z:+.1f} standard "
            "errors.",
        ),
    )


def _z(estimate: Estimate | None) -> float:
    assert estimate is not None
    return estimate.value / estimate.se


def _furthest(row: Row) -> tuple[str, float]:
    """The even digit whose share at the optimum is most errors off, in words, and its z."""
    assert row.shares is not None
    even = row.shares.z[::2].abs().nan_to_num(0.0)
    digit = 2 * int(even.argmax())
    said = f"{digit}, {row.shares.optimum[digit]:.4f} for {row.shares.tilt[digit]:.4f}"
    return said, float(row.shares.z[digit])


def _draw(path: Path, found: list[Row]) -> None:
    """Draws of the tilt, and trained draws for every noise."""
    noises = [*NOISES, ODE]
    with picture(path, len(TARGETS), len(noises) + 1, (1.5, 2.0)) as (_, grid):
        for line, target in zip(grid, TARGETS, strict=True):
            by = {row.noise: row for row in found if row.target == target}
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
