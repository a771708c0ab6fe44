"""Does the noise of the base matter?  Memoryless, sigma = 1, and fine-tuning without noise."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from torch import Generator, Tensor

from tiltbench.estimators import jarzynski
from tiltbench.metric import Outcome
from tiltbench.plan.spec import METRICS, build_sampler, build_target, parse
from tiltbench.report.pictures.style import INK, picture
from tiltbench.samplers.sampler import Draws
from tiltbench.samplers.weights import Estimate
from tiltbench.score.floor import Floor, measure
from tiltbench.studies.common.trained import trained
from tiltbench.studies.memoryless.noise import (
    Bell,
    Rebased,
    Silent,
    TerminalLaw,
    optimum,
    remembered,
    siblings,
    steered,
)
from tiltbench.study import Answer, Claim, Study, verdict
from tiltbench.targets.bases.interpolant import Ancestral, Constant, Regularised, Stepping
from tiltbench.targets.problem import pose
from tiltbench.targets.target import Tilt
from tiltbench.targets.tilts.tilt_shapes import SHAPES

NOISES: dict[str, Stepping] = {
    "memoryless": Ancestral(),
    "regularised": Regularised(),
    "sigma = 1": Constant(),
}
ODE = "no noise"
SILENT_LIKE = NOISES["memoryless"]  # any: of its process only the flow is used
STEPS = 50
METHOD = "adjoint_matching[paths=256,lr=0.01]"
POINTS, DRAWS = 30_000, 1_000
SIBLINGS = 256
WORLDS = ("gaussian", "tilt_linear", *SHAPES)
LEARNT = ("gaussian", "tilt_linear", "cross", "ring")  # where a control is trained as well
PICTURED = ("cross", "ring")


class NoiseResult(NamedTuple):
    world: str
    noise: str
    memory: float  # corr(X_0, X_1)
    floor: Floor
    best: Tensor | None  # draws of the optimum, no control trained
    best_distance: float
    trained: Tensor | None  # draws after training
    trained_distance: float
    log_Z_err: Estimate | None  # by the weights of the trained control
    predicted: TerminalLaw | None  # the optimum's law in closed form

    @property
    def sds(self) -> float:
        """How far the optimum is above the floor, in its sd."""
        return (self.best_distance - self.floor.mean) / self.floor.sd


def tilt(world: str, stepping: Stepping) -> Tilt:
    if world == "gaussian":
        return Bell(stepping, STEPS)
    plain = build_target(parse(f"tilt_shapes[shape={world}]" if world in SHAPES else world))
    return replace(plain, stepping=stepping, steps=STEPS)


def noise_results(world: str, device: str) -> list[NoiseResult]:
    metric = METRICS.load("energy_distance")
    plain = tilt(world, Ancestral())
    truth = plain.truth()
    floor = measure(plain, {metric.name: metric}, DRAWS)[metric.name]
    assert floor is not None and truth.log_Z is not None

    def distance(x: Tensor | None) -> float:
        if x is None:
            return math.nan
        outcome = Outcome(Draws(x.double().cpu()), None, {})
        return float(metric.fn(plain, truth, outcome, Generator().manual_seed(3)).value)

    results = []
    for noise, stepping in [*NOISES.items(), (ODE, SILENT_LIKE)]:
        target = tilt(world, stepping)
        if noise == ODE:
            target = Rebased(target, Silent(target.base))  # type: ignore[arg-type]
        best = None
        if noise != ODE:
            ends = siblings(target.base, target.dim, DRAWS, SIBLINGS, device).ends
            best = optimum(ends, target.reward(ends), Generator(device).manual_seed(5))
        x, log_w = _learnt(target, device) if world in LEARNT else (None, None)
        weighed = None
        if log_w is not None and noise != ODE:
            value, se, n = jarzynski(log_w.cpu())
            weighed = Estimate(value - truth.log_Z, se, n)
        memory = 1.0 if noise == ODE else float(target.base.memory)  # type: ignore[attr-defined]
        predicted = None
        if world == "gaussian":
            predicted = steered() if noise == ODE else remembered(memory)
        results.append(
            NoiseResult(world, noise, memory, floor, best, distance(best), x, distance(x), weighed,
                predicted)
        )  # fmt: skip
    return results


def _learnt(target: Tilt, device: str) -> tuple[Tensor, Tensor]:
    sampler = build_sampler(parse(METHOD))
    state = trained(target, sampler, POINTS, device)
    free = pose(target, sampler.reference)
    draws = sampler.draw(free, state, DRAWS, Generator(device).manual_seed(2))
    assert draws.log_w is not None
    return draws.x, draws.log_w


def run(folder: Path, device: str) -> Answer:
    from pandas import DataFrame

    results = [row for world in WORLDS for row in noise_results(world, device)]
    _draw(folder / "memoryless.png", results)
    words = (
        "Energy distance to exact draws of the tilt, with the noise of the base varied; all of "
        "them share the marginals of the base. *Optimum*: draws of the control problem's own "
        f"optimum, no control trained: of {SIBLINGS} base paths from one X_0 one is drawn by "
        f"exp r, for {DRAWS:,} X_0. *Trained*: adjoint matching, {POINTS:,} calls, "
        f"{DRAWS:,} draws. *No noise*: X' = v + u along the probability flow at the same cost "
        "of u, as in fine-tuning through an ODE sampler; its chain has no weights. On `gaussian`, "
        "N(0, I) tilted to N(1.2, .3 I), the optimum is closed form: *predicted* is its mean and "
        "variance in each coordinate, in continuous time."
    )
    return Answer(DataFrame([_shown(row) for row in results]), words, _claims(results))


def _shown(row: NoiseResult) -> dict[str, object]:
    x, weighed = row.trained, row.log_Z_err
    return {
        "target": row.world,
        "noise": row.noise,
        "corr(X_0, X_1)": row.memory,
        "optimum": row.best_distance,
        "trained": row.trained_distance,
        "exact draws": f"{row.floor.mean:.4f} ± {row.floor.sd:.4f}",
        "log Z error": f"{weighed.value:+.3f} ± {weighed.se:.3f}" if weighed else "–",
        "predicted": f"{row.predicted[0]:.3f}, {row.predicted[1]:.3f}" if row.predicted else "–",
        "trained mean, variance": (
            f"{float(x.mean()):.3f}, {float(x.var(0).mean()):.3f}"
            if row.predicted and x is not None
            else "–"
        ),
    }


def _claims(results: list[NoiseResult]) -> tuple[Claim, ...]:
    def of(noise: str) -> list[NoiseResult]:
        return [row for row in results if row.noise == noise]

    quiet = of("memoryless") + of("regularised")
    loud, ode = of("sigma = 1"), [row for row in of(ODE) if row.trained is not None]
    worst = max(quiet, key=lambda row: row.sds)
    least, most = (choose(loud, key=lambda row: row.sds) for choose in (min, max))
    bell = [row for row in results if row.predicted is not None]
    shares = {row.noise: _share(row) for row in bell if row.noise in ("sigma = 1", ODE)}
    off = [row for row in loud if row.log_Z_err is not None]
    z = max((_z(row.log_Z_err) for row in off), key=abs)
    pairs = [
        (o.trained_distance, m.trained_distance, o.world)
        for o in ode for m in of("memoryless") if m.world == o.world
    ]  # fmt: skip
    return (
        Claim(
            "On a memoryless base the optimum of the control problem ends in the tilt (math.md 2)",
            verdict(worst.sds < 4, worst.sds > 6),
            f"{len(quiet)} optima, the farthest {worst.sds:+.1f} sd from what exact draws score "
            f"({worst.world}, {worst.noise}).",
        ),
        Claim(
            "With sigma = 1 an optimum may end elsewhere: it is no fault of training",
            verdict(most.sds > 6, most.sds < 2),
            f"of {len(loud)} optima the farthest is {most.sds:+.1f} sd above exact draws "
            f"({most.world}).",
        ),
        Claim(
            "With sigma = 1 the optimum ends elsewhere on every target",
            verdict(least.sds > 6, least.sds < 2),
            f"the nearest is {least.sds:+.1f} sd from exact draws ({least.world}); energy "
            "distances " + ", ".join(f"{row.world} {row.best_distance:.3f}" for row in loud) + ".",
        ),
        Claim(
            "Training ends at the biased optimum that theory predicts, not at the tilt",
            verdict(max(shares.values()) < 0.2, max(shares.values()) > 0.5),
            "distance of (mean, variance) from the prediction, as a share of the prediction's own "
            "distance from the tilt: "
            + ", ".join(f"{noise} {share:.2f}" for noise, share in shares.items())
            + ".",
        ),
        Claim(
            "Path weights find log Z all the same",
            verdict(abs(z) < 3, abs(z) > 5),
            f"sigma = 1, {len(off)} targets: the worst error is {z:+.1f} standard errors.",
        ),
        Claim(
            "Fine-tuning without noise ends further from the tilt than with memoryless noise",
            verdict(all(o > m for o, m, _ in pairs), all(o < m for o, m, _ in pairs)),
            "trained, energy distance without and with noise: "
            + ", ".join(f"{world} {o:.3f} and {m:.3f}" for o, m, world in pairs)
            + ".",
        ),
    )


def _share(row: NoiseResult) -> float:
    assert row.predicted is not None and row.trained is not None
    mean, variance = float(row.trained.mean()), float(row.trained.var(0).mean())
    away = math.hypot(mean - row.predicted.mean, variance - row.predicted.variance)
    tilted = remembered(0.0)
    return away / math.hypot(
        tilted.mean - row.predicted.mean, tilted.variance - row.predicted.variance
    )


def _z(estimate: Estimate | None) -> float:
    assert estimate is not None
    return estimate.value / estimate.se


def _draw(path: Path, results: list[NoiseResult]) -> None:
    """Exact draws, the two optima, and draws trained with sigma = 1 and without noise."""
    with picture(path, len(PICTURED), 5, (2.0, 2.1)) as (_, grid):
        for line, world in zip(grid, PICTURED, strict=True):
            by = {row.noise: row for row in results if row.world == world}
            exact = tilt(world, Ancestral()).truth().sample
            assert exact is not None
            panels = {
                "exact": exact(DRAWS, Generator().manual_seed(9)),
                "memoryless, optimum": by["memoryless"].best,
                "sigma = 1, optimum": by["sigma = 1"].best,
                "sigma = 1, trained": by["sigma = 1"].trained,
                "no noise, trained": by[ODE].trained,
            }
            for axes, (name, x) in zip(line, panels.items(), strict=True):
                assert x is not None
                axes.scatter(*x.cpu().T.numpy(), s=1.2, color=INK, alpha=0.4, linewidths=0)
                axes.set(xlim=(-6, 6), ylim=(-6, 6), xticks=[], yticks=[], aspect="equal")
                axes.set_title(name, fontsize=8)
            line[0].set_ylabel(world)


memoryless = Study("memoryless", "Memoryless noise, and what happens without it", run)
