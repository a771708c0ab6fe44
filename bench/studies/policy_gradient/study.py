"""How noisy are policy gradients and forward-process losses beside adjoint matching, and where do
they end?  Gradients at equal calls on exact tilts; fixed points on a Gaussian base (math.md
3.1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Generator

from tiltbench.plan.spec import build_sampler, build_target, parse
from tiltbench.report.pictures.style import COLOURS, GREY, picture
from tiltbench.samplers.diffusion import Diffusion
from tiltbench.studies.gradient_variance import cases as sources
from tiltbench.studies.gradient_variance.cases import Case
from tiltbench.studies.gradient_variance.gradients import (
    Split,
    against,
    gradients,
    relative,
    split,
)
from tiltbench.studies.gradient_variance.measurements import FINISHED, HALFWAY, RANDOM, shown
from tiltbench.studies.policy_gradient.closed_forms import (
    forward_ratio,
    free_gradients,
    ratio,
    reinforce_ratio,
)
from tiltbench.studies.policy_gradient.fixed_points import (
    Affine,
    Law,
    Reward,
    end,
    fixed_states,
    in_reward,
    standardised,
    tilt,
)
from tiltbench.study import Answer, Claim, Study, verdict
from tiltbench.targets.bases.references import Brownian
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem, pose

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TARGETS = {
    "tilt_linear, D = 2": "tilt_linear[steps=16]",
    "tilt_linear, D = 50": "tilt_linear[dim=50,steps=16]",
    "tilt_quadratic, D = 2": "tilt_quadratic[steps=16]",
    "tilt_shapes[shape=cross]": "tilt_shapes[steps=16]",
}
FAMILIES = {
    "pathwise": ("adjoint_matching", "relative_entropy"),
    "policy gradients": ("log_variance", "reinforce", "ddpo", "flow_grpo", "dpok"),
    "forward process": (
        "advantage_weighted_matching",
        "diffusion_nft",
        "conditional_score_matching_plain",
        "reward_weighted_regression",
    ),
    "preferences": ("diffusion_dpo",),
}
STAGES = (RANDOM, HALFWAY, FINISHED)
SHARES = {RANDOM: 1e-9, HALFWAY: 0.75, FINISHED: 1.0}
STEPS, CALLS, BATCHES = 16, 512, 48
UPDATES, LONG = 25, 400
# the Gaussian base of the closed forms
LINE, SLOPE, SHARE = Brownian(steps=8, ratio=1.0), (0.9, -0.6), 0.3
FREE_PATHS, FREE_BATCHES = 64, 1_500
PEAK, DIM, TRAINING, DRAWS = Reward(linear=1.5, curvature=4.0), 2, 600, 20_000
CLOSE = 0.1  # of a ratio of variances: what a measurement of it may be off by


class GradientNoise(NamedTuple):
    target: str
    loss: str
    family: str
    stage: str
    paths: int
    split: Split


def run(folder: Path, device: str) -> Answer:
    from pandas import DataFrame

    measured = list(_measured(device))
    rows = [_table_row(measured, target, loss) for target in TARGETS for loss in _losses()]
    _draw(folder / "policy_gradient.png", measured)
    ends = list(_ends(device))
    words = f"{_summary()}\n\n{_table_of_ends(ends)}"
    return Answer(DataFrame(rows), words, (*_claims(measured), *_forms(), *_closing(ends)))


def _losses() -> Iterator[str]:
    for losses in FAMILIES.values():
        yield from losses


def _family(loss: str) -> str:
    return next(name for name, losses in FAMILIES.items() if loss in losses)


def _measured(device: str) -> Iterator[GradientNoise]:
    every = {case.name: case for case in sources.cases(STEPS)}
    for label, spec in TARGETS.items():
        target = build_target(parse(spec))
        for stage in STAGES:
            taught: dict[str, Any] = {}
            for loss in _losses():
                case = every[loss]
                teacher = sources.teacher(case)
                if teacher not in taught:
                    taught[teacher] = _state(every[teacher], target, stage, device)
                state = taught[teacher]
                if teacher != loss:
                    state = sources.lent(case, target, state, device)
                paths = sources.paths_for(case, CALLS)
                variance = _split(case, target, state, stage, paths)
                yield GradientNoise(label, loss, _family(loss), stage, paths, variance)


def _state(case: Case, target: Any, stage: str, device: str) -> Any:
    if stage == RANDOM:
        return sources.begun(case, target, device)
    if stage == HALFWAY:
        return sources.halfway(case, target, UPDATES, device)
    return sources.finished(case, target, LONG, device)


def _split(case: Case, target: Any, state: Any, stage: str, paths: int) -> Split:
    sampler = replace(case.sampler, paths=paths)
    problem = pose(target, sampler.reference)
    g = gradients(sampler, problem, state.model, SHARES[stage], BATCHES, seed=1_000)
    return split(g @ g.T)


def _get(measured: list[GradientNoise], target: str, loss: str, stage: str) -> GradientNoise:
    return next(c for c in measured if (c.target, c.loss, c.stage) == (target, loss, stage))


def _table_row(measured: list[GradientNoise], target: str, loss: str) -> dict[str, Any]:
    first = _get(measured, target, loss, RANDOM)
    row: dict[str, Any] = {
        "target": target,
        "family": first.family,
        "loss": loss,
        "paths a batch": first.paths,
    }
    for stage in (RANDOM, HALFWAY):
        row[f"ratio, {stage}"] = shown(relative(_get(measured, target, loss, stage).split))
    trained = _get(measured, target, loss, FINISHED).split
    row["tr Cov trained / |E g|² random"] = trained.noise / first.split.signal
    return row


def _claims(measured: list[GradientNoise]) -> Iterator[Claim]:
    pairs = [
        (target, loss, stage)
        for target in TARGETS
        for loss in FAMILIES["policy gradients"]
        for stage in (RANDOM, HALFWAY)
    ]
    noisier, quieter, most = 0, 0, 0.0
    for target, loss, stage in pairs:
        one, am = (_get(measured, target, name, stage).split for name in (loss, "adjoint_matching"))
        quotient = against(am, one)
        noisier += quotient.high < 1
        quieter += quotient.low > 1
        most = max(most, relative(one).value / relative(am).value if relative(one).resolved else 0)
    yield Claim(
        "Adjoint matching has a smaller relative gradient variance than policy gradients at equal "
        "calls.",
        verdict(noisier > len(pairs) / 2 and quieter == 0, quieter > 0),
        f"of {len(pairs)} comparisons (losses, targets, random and mid) it is less noisy in "
        f"{noisier} and noisier in {quieter}; the largest quotient that is resolved is {most:.0f}.",
    )
    worst = max(
        abs(
            relative(_get(measured, target, "reinforce", stage).split).value
            / relative(_get(measured, target, "log_variance", stage).split).value
            - 1
        )
        for target in TARGETS
        for stage in (RANDOM, HALFWAY)
    )
    yield Claim(
        "REINFORCE with a leave-one-out baseline and the path KL is half of log-variance, gradient "
        "by gradient (arXiv 2010.10436).",
        verdict(worst < 1e-3, worst > 0.01),
        f"their ratios tr Cov / |E g|² differ by {worst:.1g} at most.",
    )


def _forms() -> Iterator[Claim]:
    """Closed forms of the noise, where the control is free at every step."""
    slope, dim = torch.tensor(SLOPE), len(SLOPE)

    def measured(name: str, share: float) -> Any:
        loss = build_sampler(parse(name)).loss
        sampler = Diffusion(loss, reference=LINE, paths=FREE_PATHS)
        return free_gradients(sampler, LINE, slope, share, FREE_BATCHES, seed=5)

    wanted = reinforce_ratio(LINE, dim)
    seen = [FREE_PATHS * ratio(measured("reinforce", s).flatten(1)) for s in (0.0, SHARE)]
    off = max(abs(value / wanted - 1) for value in seen)
    yield Claim(
        "REINFORCE has tr Cov / |E g|² = 1 + D K of a path, whatever the linear reward and however "
        "far the control has come (Gaussian base, a control free at every step).",
        verdict(off < CLOSE, off > 3 * CLOSE),
        f"predicted {wanted:.4g} at D = {dim}, K = {LINE.steps}; measured "
        f"{seen[0]:.4g} at u = 0 and {seen[1]:.4g} at {SHARE} u*.",
    )
    rows = measured("adjoint_matching", 0.0)
    yield Claim(
        "Adjoint matching has none there: the lean adjoint is u* itself.",
        verdict(float(rows.var(0).sum()) < 1e-9, float(rows.var(0).sum()) > 1e-6),
        f"tr Cov is {float(rows.var(0).sum()):.1g} beside |E g|² of "
        f"{float(rows.mean(0).square().sum()):.2g}.",
    )


class End(NamedTuple):
    """Where a method ends on the Gaussian base with a peak for its reward."""

    method: str
    predicted: Law
    trained: Law


def _ends(device: str) -> Iterator[End]:
    temperature = standardised(LINE, PEAK, 2.0, fixed_states, DIM)
    controls: dict[str, Affine] = {
        "reinforce": in_reward(LINE, PEAK, 1.0),
        "ddpo": in_reward(LINE, PEAK, 1.0),
        "diffusion_dpo": in_reward(LINE, PEAK, 1.0),
        "dpok": fixed_states(LINE, PEAK, 1.0),
        "dpok[kl=0.5]": fixed_states(LINE, PEAK, 0.5),
        "flow_grpo_published[kl=2,group=128]": fixed_states(LINE, PEAK, temperature),
    }
    for method, control in controls.items():
        yield End(method, end(LINE, control), _trained(method, device))


def _trained(method: str, device: str) -> Law:
    """Mean and variance of a coordinate after a training on fresh paths."""

    def peak(x: Any) -> Any:
        return (PEAK.linear * x - PEAK.curvature / 2 * x * x).sum(-1)

    problem = Problem(DIM, LINE, peak)
    built = build_sampler(parse(method))
    sampler = replace(built, reference=LINE, paths=128, batches=TRAINING, model=sources.NET)
    source = Generator(device).manual_seed(3)
    state = sampler.init(problem, Cost(10**9, 10**9), source)
    while not sampler.done(state):
        state = sampler.step(problem, state, source)
    x = sampler.draw(problem, state, DRAWS, source).x.double()
    return Law(float(x.mean()), float(x.var(0).mean()))


def _table_of_ends(ends: list[End]) -> str:
    wanted = tilt(LINE, PEAK, 1.0)
    lines = [
        f"Where they end, on {DIM} coordinates, {LINE.steps} steps from a point to N(0, 1), with "
        f"r = {PEAK.linear} x - {PEAK.curvature} x²/2, whose tilt is N({wanted.mean:.3f}, "
        f"{wanted.variance:.3f}): mean and variance as predicted for the chain's own steps, and "
        f"after {TRAINING} batches of 128 paths.",
        "",
        "| method | predicted | trained |",
        "|---|---|---|",
    ]
    for one in ends:
        laws = " | ".join(f"{law.mean:.3f}, {law.variance:.3f}" for law in one[1:])
        lines.append(f"| `{one.method}` | {laws} |")
    return "\n".join(lines)


def _closing(ends: list[End]) -> Iterator[Claim]:
    def apart(a: Law, b: Law) -> float:
        return max(abs(a.mean - b.mean), abs(a.variance - b.variance))

    goal = end(LINE, in_reward(LINE, PEAK, 1.0))
    published = [one for one in ends if one.predicted != goal]
    share = max(apart(one.trained, one.predicted) / apart(one.predicted, goal) for one in published)
    yield Claim(
        "With the KL at fixed states, and with standardised rewards, training ends at the law that "
        "math.md 3.1 predicts, not at the tilt.",
        verdict(share < 1 / 3, share > 2 / 3),
        f"of the way from the tilt's control to the prediction {share:.2f} is left at most.",
    )
    off = max(apart(one.trained, goal) for one in ends if one.predicted == goal)
    yield Claim(
        "With the path KL in the reward it ends at the control of the tilt.",
        verdict(off < 0.05, off > 0.1),
        f"mean and variance are off by {off:.3f} at most.",
    )


def _draw(path: Path, measured: list[GradientNoise]) -> None:
    tints = dict(zip(FAMILIES, COLOURS, strict=False))
    with picture(path, 1, len(TARGETS), (3.4, 3.6)) as (_, grid):
        for axes, target in zip(grid[0], TARGETS, strict=True):
            for i, loss in enumerate(_losses()):
                _bar(axes, i, _get(measured, target, loss, HALFWAY), tints)
            axes.set_xscale("log")
            axes.set_title(target)
            axes.set_xlabel("tr Cov(g) / |E g|², mid-training")
            axes.invert_yaxis()
        names = list(_losses())
        for axes in grid[0]:
            axes.set_yticks(range(len(names)), names if axes is grid[0][0] else [""] * len(names))


def _bar(axes: Axes, i: int, measured: GradientNoise, tints: dict[str, str]) -> None:
    relative_variance, tint = relative(measured.split), tints[measured.family]
    if relative_variance.resolved:
        axes.plot([relative_variance.low, relative_variance.high], [i, i], color=tint, lw=1)
        axes.plot([relative_variance.value], [i], "o", color=tint, ms=3)
    else:
        axes.plot([max(relative_variance.low, 1e-3)], [i], ">", color=GREY, ms=4)


def _summary() -> str:
    k = [0, LINE.steps // 2, LINE.steps - 1]
    forward = ", ".join(f"{forward_ratio(LINE, i, len(SLOPE)):.3g}" for i in k)
    return (
        f"Gradients over {BATCHES} mini-batches at one theta for all, taught by "
        f"{sources.TEACHER}, each of as many paths as {CALLS} calls pay for; reward-weighted "
        "regression has a frozen stage and stands at a theta of its own. tr Cov(g) and |E g|² are "
        "unbiased, brackets 95 % bootstrap intervals; > where no upper end is told. In closed form "
        "(Gaussian base, linear reward, a control free at every step) tr Cov / |E g|² is "
        f"{reinforce_ratio(LINE, len(SLOPE)):.3g} a path for REINFORCE at D = {len(SLOPE)}, K = "
        f"{LINE.steps}, nothing for adjoint matching, and for a forward-process loss {forward} a "
        "point at the first step, the middle one and the last. Where several have equal figures "
        "they have one gradient but for a factor, before the first step on a batch: REINFORCE and "
        "log-variance, and advantage-weighted matching and DiffusionNFT."
    )


policy_gradient = Study(
    "policy_gradient",
    "Policy gradients, forward-process losses and preferences: their noise, and where they end",
    run,
)
