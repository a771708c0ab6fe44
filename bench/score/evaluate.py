"""One run's scores, from its files alone: no network is built, and truth meets draws here only."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from tiltbench.metric import KINDS, Metric, Outcome, Unknown, of_kind
from tiltbench.plan.plugins import truth_hash
from tiltbench.plan.spec import METRICS, build_target
from tiltbench.records.located import located
from tiltbench.records.record import Record, read_outcome, read_record
from tiltbench.run.streams import generator
from tiltbench.samplers.sampler import Draws
from tiltbench.samplers.weights import Unbounded, ess, resample
from tiltbench.score.curve import curve_scores
from tiltbench.score.floor import (
    COMPARED,
    Floor,
    Floors,
    compared,
    draw_metrics,
    sample_metrics,
    short,
)
from tiltbench.score.result import Evaluation, Score
from tiltbench.targets.target import Target, Truth


def evaluate(runs: Path, run: str, floors: Floors) -> Evaluation:
    """Every registered metric of run `run`, and its learning curve.

    Sample metrics of weighted draws come twice: as drawn and, as `<name>_weighted`, after
    resampling by the weights.  What is raised becomes a reason: no run stops the others."""
    clock = time.perf_counter()
    record = read_record(runs / f"{run}.json")
    evaluation = Evaluation(run, {}, 0.0)
    try:
        outcome = _outcome(runs, run)
        evaluation = replace(
            evaluation, draws=len(outcome.draws.x), zero_weights=_zero(outcome.draws.log_w)
        )
        evaluation = _scored(evaluation, runs, record, outcome, floors)
    except Exception as error:
        unbuilt = str(error) if isinstance(error, Unbuilt) else ""
        message = unbuilt or f"{type(error).__name__}: {error}"
        unknown = dict.fromkeys(METRICS.entries, Score.unknown(message))
        evaluation = replace(evaluation, scores=unknown, error=message, unbuilt=unbuilt)
    return replace(evaluation, seconds=time.perf_counter() - clock)


def _zero(log_w: Tensor | None) -> float | None:
    return None if log_w is None else float((log_w == -torch.inf).double().mean())


def _scored(
    evaluation: Evaluation, runs: Path, record: Record, outcome: Outcome, floors: Floors
) -> Evaluation:
    source = _source(record, runs)
    target, bare = _rebuilt(record, source, outcome)
    truth = _with_reference(bare, source, record.spec["seed"])
    scores = dict(_scores(target, truth, outcome, record, floors))
    if lacking := short(bare, compared(len(outcome.draws.x))):
        for name in scores:
            if name.removesuffix("_weighted") in sample_metrics():
                scores[name] = scores[name].without_floor(lacking)
    try:
        curve = curve_scores(runs, evaluation.run, target, truth, floors)
    except Exception as error:  # the scores of the run are good all the same
        wrong = f"{evaluation.run}.curve.npz cannot be scored ({error})"
        again = "the same `tiltbench run` makes it anew"
        return replace(evaluation, scores=scores, curve_error=f"{wrong}; {again}")
    return replace(evaluation, scores=scores, curve=curve)


def _outcome(runs: Path, run: str) -> Outcome:
    try:
        return read_outcome(runs, run)
    except Exception as error:
        raise ValueError(
            f"{run}.npz cannot be read ({error}); the same `tiltbench run` makes it anew"
        ) from error


def _scores(
    target: Target,
    truth: Truth,
    outcome: Outcome,
    record: Record,
    floors: Floors,
) -> Iterator[tuple[str, Score]]:
    comparing = draw_metrics()
    n = compared(len(outcome.draws.x))
    few, weighted = _thinned(outcome, n), _weighted(outcome, record, n)
    here = floors.get(n, {})
    for name in METRICS.entries:
        metric: Metric = METRICS.load(name)
        missing = _missing(metric, target, truth, outcome)
        sample = few if name in comparing else outcome
        yield name, _one(metric, missing, target, truth, sample, record, here.get(name))
        if name in comparing and outcome.draws.log_w is not None:
            lack = missing or (weighted if isinstance(weighted, str) else "")
            resampled = few if isinstance(weighted, str) else weighted
            result = _one(metric, lack, target, truth, resampled, record, here.get(name))
            yield f"{name}_weighted", replace(result, ess=ess(outcome.draws.log_w))


def _one(
    metric: Metric,
    missing: str,
    target: Target,
    truth: Truth,
    outcome: Outcome,
    record: Record,
    floor: Floor | None,
) -> Score:
    if missing:
        return Score.unknown(missing)
    try:
        source = generator(record.spec["seed"], "score")
        estimate = metric.fn(target, truth, outcome.copy(), source)
    except Unknown as error:
        return Score.unknown(str(error))
    except Exception as error:
        return Score(None, reason=f"{type(error).__name__}: {error}", raised=True)
    value, se, n = estimate
    if not math.isfinite(value):
        return Score.unknown(f"the value is {value}")
    if isinstance(estimate, Unbounded):
        return Score(value, None, n, no_error=estimate.why).beside(floor, metric)
    return Score(value, se, n).beside(floor, metric)


def _missing(metric: Metric, target: Target, truth: Truth, outcome: Outcome) -> str:
    """Why a metric cannot be computed; empty where it can."""
    draws = outcome.draws
    x, log_w = draws.x, draws.log_w
    back = outcome.log_w_reverse
    reasons = {
        "sample": "" if truth.sample else "no exact draws of the target are known",
        "log_Z": "" if truth.log_Z is not None else "log Z of the target is not known",
        "modes": "" if truth.modes else "the target has no named modes",
        "observables": "" if truth.observables else "no observables of the target are known",
        "log_w": _bad_weights(log_w, "the method gives no weights"),
        "reverse": _bad_weights(
            back,
            "no exact draws of the target are known, where reverse paths would start"
            if truth.sample is None
            else "the method has no reverse paths",
        ),
        "own_log_Z": "" if draws.log_Z else "the method makes no estimate of its own",
        "chains": "" if chained(draws) else "the draws are no chains",
    }
    for need in sorted(metric.needs, key=lambda need: (need not in KINDS, need)):
        if need in KINDS:
            if not of_kind(need, target, truth):
                return KINDS[need]
        elif need.startswith("probe."):
            if need.removeprefix("probe.") not in outcome.probes:
                return f"the run measured no {need.removeprefix('probe.')}"
        elif reasons[need]:
            return reasons[need]
    if metric.needs & {*COMPARED, "unknown_law"}:
        bad = int((~x.isfinite().all(-1)).sum())
        if bad:
            return f"{bad} of {len(x)} draws are not finite"
    return ""


def chained(draws: Draws) -> bool:
    """Whether the groups of the draws are chains: states in the order of time, of equal weight."""
    return draws.group is not None and draws.log_w is None


def _bad_weights(log_w: Tensor | None, absent: str) -> str:
    if log_w is None:
        return absent
    bad = int((~(log_w < torch.inf)).sum())  # NaN or +inf
    return f"{bad} of {len(log_w)} log-weights are NaN or +inf" if bad else ""


def _thinned(outcome: Outcome, n: int) -> Outcome:
    """n of the draws, evenly spread, for the metrics whose cost grows with their square."""
    x, group = outcome.draws.x, outcome.draws.group
    if n == len(x):
        return outcome
    kept = torch.linspace(0, len(x) - 1, n).round().long()
    draws = Draws(x[kept], group=None if group is None else group[kept])
    return outcome._replace(draws=draws)


def _weighted(outcome: Outcome, record: Record, n: int) -> Outcome | str:
    """n draws resampled by their weights, or why they cannot be.

    Copies of one draw form a group (with its own group, where it has one), so that errors count
    the draws that carry the weight."""
    draws = outcome.draws
    if draws.log_w is None:
        return "the method gives no weights"
    bad = _bad_weights(draws.log_w, "")
    if bad:
        return bad
    if not bool((draws.log_w > -torch.inf).any()):
        return "every weight is zero"
    chosen = resample(draws.log_w, n, generator(record.spec["seed"], "score"))
    group = chosen if draws.group is None else draws.group[chosen]
    return Outcome(draws._replace(x=draws.x[chosen], log_w=None, group=group), None, {})


class Unbuilt(ValueError):
    """A target that cannot be built here as the run had it; the message says why."""


Source = tuple[str, str]  # a target's spec, located, and the hash of its file where it is a plug-in


def _source(record: Record, runs: Path) -> Source:
    target = located(record, runs)
    return json.dumps(target, sort_keys=True), truth_hash(target["name"])


def _rebuilt(record: Record, source: Source, outcome: Outcome) -> tuple[Target, Truth]:
    """The target of a run and its truth.  Raises Unbuilt."""
    try:
        target, truth = _target(*source)
    except Exception as error:
        raise Unbuilt(f"{type(error).__name__}: {error}") from error
    name, dim = record.spec["target"]["name"], outcome.draws.x.shape[1]
    version = record.spec["target_version"]
    if target.dim != dim:
        raise Unbuilt(f"{name} has {target.dim} dimensions here, and the draws of the run {dim}")
    if target.version != version:
        raise Unbuilt(f"{name} is version {target.version} here, and was {version} in the run")
    return target, truth


@lru_cache(maxsize=16)
def _target(spec: str, file: str) -> tuple[Target, Truth]:
    target = build_target(json.loads(spec))
    return target, target.truth()


def _with_reference(truth: Truth, source: Source, seed: int) -> Truth:
    """The truth with one reference set per (target, seed, n): every metric and every sampler of a
    seed meets the same exact draws, which pairs their scores."""
    if truth.sample is None:
        return truth
    return truth._replace(sample=lambda n, _: _reference(*source, seed, n).clone())


@lru_cache(maxsize=8)
def _reference(spec: str, file: str, seed: int, n: int) -> Tensor:
    _, truth = _target(spec, file)
    assert truth.sample is not None
    if n > truth.held:
        raise Unknown(
            f"the truth holds {truth.held:.0f} exact draws, not {n}: score as many with --draws"
        )
    return truth.sample(n, generator(seed, "reference"))
