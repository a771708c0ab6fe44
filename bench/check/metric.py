"""The contract of a metric: what it declares, and its value for perfect and for wrong draws."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor

from tiltbench.check.findings import Finding, Snapshot, agrees, expect, until_broken
from tiltbench.metric import KINDS, Metric, Outcome
from tiltbench.plan.spec import build_target, parse
from tiltbench.samplers.sampler import Draws
from tiltbench.samplers.weights import Estimate
from tiltbench.score.floor import COMPARED, REPETITIONS, known, measure
from tiltbench.targets.target import Target

NEEDS = {*COMPARED, *KINDS, "log_Z", "log_w", "reverse", "own_log_Z", "chains"}
PERFECT = ("0", "1", "floor", "")
TARGETS = (
    "gmm9",
    "gaussian",
    "dw4",
    "ising_hs[side=4]",
    "tilt_linear",
)  # the first that has what it needs
N = 400
CLOSE = 0.03  # of a number that knows no draws, for weights whose log has sd .01


def check(metric: Metric) -> list[Finding]:
    """In order: statement, one value, perfect draws, wrong draws; nothing after the first broken.

    On a target of the suite that has what the metric needs."""
    target = _target(metric)
    return until_broken(
        [
            ("reading the fields", partial(_statement, metric)),
            ("fn", partial(_value, metric, target)),
            ("fn of exact draws", partial(_perfect, metric, target)),
            ("fn of wrong draws", partial(_wrong, metric, target)),
        ]
    )


def _target(metric: Metric) -> Target | None:
    """None where no target has it, or where only a run could measure what it needs."""
    targets = [build_target(parse(name)) for name in TARGETS]
    ours = metric._replace(needs=frozenset(metric.needs) & {*COMPARED, *KINDS})
    fit = [t for t in targets if known(ours, t, t.truth())]
    probes = {need for need in metric.needs if need.startswith("probe.")}
    return fit[0] if fit and not probes else None


def _statement(metric: Metric) -> Iterator[Finding]:
    strange = sorted(n for n in metric.needs if n not in NEEDS and not n.startswith("probe."))
    yield expect(
        isinstance(metric.needs, frozenset) and not strange,
        f"needs {', '.join(sorted(metric.needs)) or 'nothing but draws'}",
        f"needs {', '.join(strange) or repr(metric.needs)}, which nothing provides",
        f"needs is a frozenset of {', '.join(sorted(NEEDS))}, or probe.NAME",
    )
    yield expect(
        metric.better in ("lower", "higher"),
        f"{metric.better} is better",
        f"better is {metric.better!r}",
        'write "lower" or "higher"',
    )
    yield expect(
        metric.perfect in PERFECT,
        f"an exact sampler scores {metric.perfect or 'whatever it does: it is not ranked'}",
        f"perfect is {metric.perfect!r}",
        'write "0", "1", "floor" (what two exact sets score), or "" where it is not ranked',
    )
    yield expect(
        bool(isinstance(metric.unit, str) and metric.unit),
        f"its unit is {metric.unit}",
        f"unit is {metric.unit!r}",
        'write "nats", "length", "length^2", "rad", or "1" for a pure number',
    )


def _draws(target: Target, seed: int) -> Tensor:
    truth, g = target.truth(), Generator().manual_seed(seed)
    if truth.sample is None:
        return target.scale * torch.randn(N, target.dim, generator=g, dtype=torch.float64)
    return truth.sample(int(min(N, truth.held)), g)


def _outcome(target: Target, x: Tensor, sd: float, shift: float = 0.0) -> Outcome:
    """Draws with Gaussian log-weights about log Z + shift that obey Crooks' relation."""
    log_Z, g = target.truth().log_Z or 0.0, Generator().manual_seed(29)
    xi = torch.randn(2, len(x), generator=g, dtype=torch.float64)
    middle = log_Z + shift
    forward, back = middle - sd**2 / 2 + sd * xi[0], middle + sd**2 / 2 + sd * xi[1]
    return Outcome(Draws(x, forward, None, Estimate(middle, sd, len(x))), back, {})


def _of(metric: Metric, target: Target, outcome: Outcome, seed: int = 31) -> Estimate:
    return metric.fn(target, target.truth(), outcome, Generator().manual_seed(seed))


def _value(metric: Metric, target: Target | None) -> Iterator[Finding]:
    if target is None:
        yield Finding(True, "its values were not tried: only a run provides what it needs")
        return
    outcome = _outcome(target, _draws(target, 1), 0.01)
    lent = (outcome.draws.x, outcome.draws.log_w, outcome.log_w_reverse)
    snapshot = Snapshot(*(tensor for tensor in lent if tensor is not None))
    score: Any = _of(metric, target, outcome)
    right = isinstance(score, tuple) and len(score) == 3
    yield expect(
        right and all(isinstance(v, int | float) for v in score) and math.isfinite(score[0]),
        f"on {target.name} exact draws score {score[0]:.3g}" if right else "",
        f"fn returns {score!r} for exact draws of {target.name}",
        "return Estimate(value, error, n), plain numbers; raise Unknown where there is none",
    )
    yield expect(
        score[2] > 0 and not score[1] < 0,
        f"from {score[2]} points, with error {score[1]:.2g}",
        f"it says error {score[1]} from {score[2]} points",
        "state the standard error (nan where it has none) and the number of points",
    )
    yield expect(
        not snapshot.changed,
        "it leaves the draws as they are",
        "it changes the draws in place, for every metric after it",
        "make new tensors: no += and no functions that end in _",
    )
    torch.manual_seed(1)
    first = _of(metric, target, outcome)
    torch.manual_seed(2)
    yield expect(
        first[0] == _of(metric, target, outcome)[0],
        "equal seeds give equal values",
        "equal seeds give other values",
        "draw all randomness from the generator",
    )


def _perfect(metric: Metric, target: Target | None) -> Iterator[Finding]:
    if target is None or not metric.perfect:
        return
    if metric.needs & COMPARED and metric.needs <= {*COMPARED, *KINDS}:
        floor = measure(target, {metric.name: metric}, N)[metric.name]
        if floor is None:
            yield Finding(False, f"it has no value between two exact sets of {N}", "see `fn`")
            return
        error = floor.sd / math.sqrt(REPETITIONS)
        stated = floor.mean if metric.perfect == "floor" else float(metric.perfect)
        yield expect(
            agrees(Estimate(floor.mean, error, REPETITIONS), stated),
            f"exact draws score {floor.mean:.3g} +- {error:.1g}, as it says",
            f"exact draws score {floor.mean:.3g} +- {error:.1g}, and it says {metric.perfect}",
            'correct the bias (leave out pairs of a point with itself), or state perfect="floor"',
        )
        return
    if metric.perfect == "floor":
        yield Finding(
            False,
            "it has no floor: it needs more than draws, of which there are no exact ones",
            'state perfect as "0", "1" or ""',
        )
        return
    score = _of(metric, target, _outcome(target, _draws(target, 1), 0.01))
    yield expect(
        abs(score.value - float(metric.perfect)) < CLOSE,
        f"weights that all agree score {score.value:.3g}",
        f"weights that all agree score {score.value:.3g}, and it says {metric.perfect}",
        "compare with truth.log_Z, or state the perfect value",
    )


def _wrong(metric: Metric, target: Target | None) -> Iterator[Finding]:
    """One of a few wrong laws must score worse: a metric may be blind to the others."""
    if target is None or not metric.perfect:
        return
    x = _draws(target, 1)
    right = _distance(metric, _of(metric, target, _outcome(target, x, 0.01)).value)
    laws = {"moved": x + 2 * target.scale, "wider": 3 * x, "at one point": x[:1] + 0 * x}
    distances = {}
    for name, y in laws.items():
        score = _of(metric, target, _outcome(target, y, 2.0, 1.0))
        distances[name] = _distance(metric, score.value)
    name, worst = max(distances.items(), key=lambda item: item[1])
    yield expect(
        worst > right + 1e-6,
        f"wrong draws ({name}) score worse than exact ones",
        "no wrong draws (moved, wider, at one point) score worse than exact ones, with "
        f"{metric.better} the better",
        'state the direction in `better`, and compare with the truth; perfect="" is not ranked',
    )


def _distance(metric: Metric, value: float) -> float:
    """How bad a value is: signed errors by their size."""
    if metric.perfect == "0":
        return abs(value)
    return value if metric.better == "lower" else -value
