"""The contract of a sampler or loss, on a small budget: cost, draws, weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor

from tiltbench.check.findings import (
    Finding,
    agrees,
    expect,
    format_estimate,
    is_frozen,
    until_broken,
)
from tiltbench.estimators import average, bar
from tiltbench.plan.spec import build_sampler, spec
from tiltbench.run.meter import BudgetExceeded, Meter
from tiltbench.samplers.diffusion import Diffusion
from tiltbench.samplers.networks.model import Network
from tiltbench.samplers.networks.perceptron import Guided
from tiltbench.samplers.networks.valued import Valued
from tiltbench.samplers.sampler import Draws, Sampler, Unsupported
from tiltbench.targets.cost import Cost
from tiltbench.targets.densities.gaussian import Gaussian
from tiltbench.targets.problem import Problem, pose

TARGET = Gaussian()
POINTS = Cost(5_000, 5_000)
FEW = Cost(2_000, 2_000)  # tried first: enough for most
N = 1000
IDLE = 1000  # steps in a row that spend nothing
# The weights are judged by so many independent groups, and to such an error of E[exp log_w] / Z
# (an error bar from fewer is itself too uncertain), or else by so many further runs.
GROUPS, PRECISE, MORE = 30, 0.05, 15


class Stuck(Exception):
    """The sampler goes on without spending or finishing."""


@dataclass
class Trial:
    """One short run on the Gaussian target."""

    problem: Problem  # metered by `meter`, for training
    budget: Cost
    meter: Meter
    state: Any
    ended: bool  # by its own `done`
    log_w: Tensor | None = None  # of its draws


def check(sampler: Sampler[Any]) -> list[Finding]:
    """In order: statement, price, training, draws, weights; nothing after the first broken."""
    trials: list[Trial] = []  # filled by the training step, read by the later ones
    return until_broken(
        [
            ("reading the fields", partial(_statement, sampler)),
            ("one step", partial(_prices, sampler)),
            ("training", partial(_training, sampler, trials)),
            ("draw", partial(_draws, sampler, trials)),
            ("reverse", partial(_reverse, sampler, trials)),
        ]
    )


def _statement(sampler: Sampler[Any]) -> Iterator[Finding]:
    yield expect(
        is_frozen(sampler),
        "is a frozen dataclass",
        f"{type(sampler).__name__} is not a frozen dataclass",
        "decorate the class with @dataclass(frozen=True)",
    )
    yield expect(
        build_sampler(spec(sampler)) == sampler,
        "its spec builds it back",
        "the sampler built from its own spec is another one",
        "let the fields be numbers, strings, tuples and parts that alone decide what it does",
    )


def _prices(sampler: Sampler[Any]) -> Iterator[Finding]:
    """A step of a loss costs what the loss declares, unguided and guided."""
    if not isinstance(sampler, Diffusion):
        return
    guided: Network = Guided(width=8, layers=2)
    if isinstance(sampler.model, Valued):  # beside the flow that the loss trains
        guided = replace(sampler.model, control=guided)
    networks = (sampler.model, guided)
    for network in networks:
        coarse = replace(sampler.reference, steps=3)  # type: ignore[type-var]
        small = replace(sampler, model=network, paths=5, reference=coarse)
        g = Generator().manual_seed(0)
        meter = Meter(POINTS)
        problem = pose(TARGET, small.reference, meter.watch)
        begun = meter.spent
        try:
            state = small.step(problem, small.init(problem, POINTS, g), g)
        except Unsupported:
            if network is sampler.model:
                raise
            continue  # it says itself that this network is not for it
        paid = meter.spent.minus(begun)
        declared = small.price(problem, state.model)
        kind = "guided" if state.model.guided else "unguided"
        yield expect(
            paid == declared,
            f"{kind}: 5 paths of 3 steps cost {tuple(paid)} (values, gradients), as declared",
            f"{kind}: 5 paths of 3 steps cost {tuple(paid)} (values, gradients), "
            f"price says {tuple(declared)}",
            "let price(paths, steps, guided) return what `label` and guided paths evaluate",
        )


def _run(sampler: Sampler[Any], budget: Cost, seed: int = 1) -> Trial:
    g = Generator().manual_seed(seed)
    meter = Meter(budget)
    problem = pose(TARGET, sampler.reference, meter.watch)
    state = sampler.init(problem, budget, g)
    idle = 0
    while not sampler.done(state):
        before = meter.spent
        try:
            state = sampler.step(problem, state, g)
        except BudgetExceeded:
            return Trial(problem, budget, meter, state, False)
        idle = idle + 1 if meter.spent == before else 0
        if idle == IDLE:
            raise Stuck(f"{IDLE} steps in a row spent nothing and `done` says False")
    return Trial(problem, budget, meter, state, True)


def _training(sampler: Sampler[Any], trials: list[Trial]) -> Iterator[Finding]:
    first = _run(sampler, FEW)
    if not first.ended and first.meter.spent.share(FEW) <= 0.5:  # one step of it takes more
        first = _run(sampler, POINTS)
    trials += [first, _run(sampler, first.budget)]
    budget = first.budget
    spent = [trial.meter.spent for trial in trials]
    how = "until it was done" if trials[0].ended else "until the budget was spent"
    yield expect(
        spent[0].share(budget) > 0.5 or trials[0].ended,
        f"ran {how}: {tuple(spent[0])} of {tuple(budget)} (values, gradients)",
        f"stopped at {tuple(spent[0])} of {tuple(budget)} (values, gradients)",
        "plan in `init` from the budget, in smaller steps",
    )
    yield expect(
        spent[0] == spent[1],
        "equal seeds spend the same",
        f"equal seeds spend {tuple(spent[0])} and {tuple(spent[1])}",
        "draw all randomness from the generator, keep no state outside `State`",
    )


def _draw(sampler: Sampler[Any], trial: Trial, seed: int = 2) -> tuple[Draws, Cost]:
    meter = Meter(Cost(200 * N, 200 * N))
    problem = pose(TARGET, sampler.reference, meter.watch)
    return sampler.draw(problem, trial.state, N, Generator().manual_seed(seed)), meter.spent


def _draws(sampler: Sampler[Any], trials: list[Trial]) -> Iterator[Finding]:
    trials[0].meter.close()
    (draws, cost), (again, _) = _draw(sampler, trials[0]), _draw(sampler, trials[1])
    x, log_w = draws.x, draws.log_w
    n = len(x)
    yield expect(
        x.dim() == 2 and 0 < n <= N and x.shape[1] == TARGET.dim,
        f"{n} draws of {N} asked for, at {cost.calls / max(n, 1):.3g} calls each",
        f"the draws are of shape {tuple(x.shape)}, not (n, {TARGET.dim}) with 0 < n <= {N}",
        "return Draws(x) with one row a draw, as many as asked for or fewer",
    )
    yield expect(
        bool(x.isfinite().all()),
        "the draws are finite",
        f"{int((~x.isfinite().all(-1)).sum())} of {n} draws are not finite",
        "raise Diverged where the method breaks, instead of handing it over",
    )
    yield expect(
        torch.equal(x, again.x),
        "equal seeds make equal draws",
        "equal seeds make other draws",
        "draw all randomness from the generator, keep no state outside `State`",
    )
    group = draws.group if draws.group is not None else torch.arange(n)
    yield expect(
        group.shape == (n,) and not group.dtype.is_floating_point,
        f"{len(group.unique())} independent groups",
        f"group is of shape {tuple(group.shape)}, {group.dtype}, not whole numbers of ({n},)",
        "number the chain or island of each draw, or leave group None",
    )
    if not sampler.consistent:
        yield Finding(True, "its draws are not compared with the target: it claims no such law")
        return
    if log_w is None:
        yield from _moments(x, group)
        return
    yield expect(
        log_w.shape == (n,) and log_w.dtype == torch.float64 and not log_w.isnan().any(),
        "log_w is one float64 number a draw",
        f"log_w is of shape {tuple(log_w.shape)}, {log_w.dtype}, "
        f"with {int(log_w.isnan().sum())} NaN",
        "accumulate log-weights in float64, (n,)",
    )
    yield from _weights(*_pooled(sampler, trials[0].budget, x, log_w, group))
    trials[0].log_w = log_w


def _pooled(
    sampler: Sampler[Any], budget: Cost, x: Tensor, log_w: Tensor, group: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The same draws with those of further runs, where those of one judge too little."""
    for seed in range(20, 20 + MORE):
        mean = average(torch.exp(log_w - _log_Z()), group)
        if mean.n >= GROUPS and mean.se < PRECISE:
            break
        draws, _ = _draw(sampler, _run(sampler, budget, seed), seed)
        other = draws.group if draws.group is not None else torch.arange(len(draws.x))
        assert draws.log_w is not None
        x, log_w = torch.cat([x, draws.x]), torch.cat([log_w, draws.log_w])
        group = torch.cat([group, other + 1 + group.max()])
    return x, log_w, group


def _weights(x: Tensor, log_w: Tensor, group: Tensor) -> Iterator[Finding]:
    """E[exp(log_w) f(x)] = Z E_p*[f] for f = 1, x_0 and |x|^2, the last two centred."""
    w = torch.exp(log_w - _log_Z())
    mean = average(w, group)
    yield expect(
        math.isnan(mean.se) or agrees(mean, 1.0),  # one group: no error to judge by
        f"E[exp log_w] / Z is {format_estimate(mean)} for 1",
        f"E[exp log_w] / Z is {format_estimate(mean)} on a Gaussian, not 1",
        "log_w must be r(x) - log of the path's density ratio to the base, constants included",
    )
    square = TARGET.dim * (TARGET.mean**2 + TARGET.std**2)
    functions = {
        "x_0": (x[:, 0].double() - TARGET.mean) / TARGET.std,
        "|x|^2": x.double().square().sum(-1) / square - 1,
    }
    for name, centred in functions.items():
        mean = average(w * centred, group)
        yield expect(
            math.isnan(mean.se) or agrees(mean, 0.0),
            f"the weighted mean of {name} is off by {format_estimate(mean)}, relative to its size",
            f"the weighted mean of {name} is off by {format_estimate(mean)} on a Gaussian, "
            "relative to its size",
            "each log_w must belong to the x beside it: no scaling, sorting or moving afterwards",
        )


def _moments(x: Tensor, group: Tensor) -> Iterator[Finding]:
    """Draws without weights must follow the target themselves."""
    for power, truth in ((1, TARGET.mean), (2, TARGET.mean**2 + TARGET.std**2)):
        mean = average(x[:, 0] ** power, group)
        yield expect(
            agrees(mean, truth),
            f"E x_0^{power} is {format_estimate(mean)} for {truth:.4g}",
            f"E x_0^{power} is {format_estimate(mean)} on a Gaussian, not {truth:.4g}",
            "draws without weights must follow the target: check acceptance and warm-up, and that "
            "`group` tells dependent draws",
        )


def _reverse(sampler: Sampler[Any], trials: list[Trial]) -> Iterator[Finding]:
    x = TARGET.truth().sample(N, Generator().manual_seed(4))  # type: ignore[misc]
    problem = pose(TARGET, sampler.reference, Meter(Cost(200 * N, 200 * N)).watch)
    traced = sampler.reverse(problem, trials[0].state, x, Generator().manual_seed(5))
    if traced is None:
        yield Finding(True, "has no reverse paths")
        return
    log_w = traced.log_w
    yield expect(
        log_w.shape == (N,),
        "reverse gives one number a point",
        f"reverse gives shape {tuple(log_w.shape)}, not ({N},)",
        "return log_w of one path that ends at each x",
    )
    if trials[0].log_w is None:
        return
    log_Z = bar(trials[0].log_w, log_w)  # E[exp -log_w] alone has too heavy a tail to judge by
    yield expect(
        agrees(log_Z, _log_Z()),
        f"log Z between draws and reverse paths is {format_estimate(log_Z)} for {_log_Z():.4g}",
        f"log Z between draws and reverse paths is {format_estimate(log_Z)} on a Gaussian, "
        f"not {_log_Z():.4g}",
        "reverse must weigh paths as draw does: E[exp(-log_w)] = 1/Z over paths that end at x ~ p*",
    )


def _log_Z() -> float:
    log_Z = TARGET.truth().log_Z
    assert log_Z is not None
    return log_Z
