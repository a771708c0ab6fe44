"""What long chains say of a target: draws, statistics, basins, the virial and both log Z.

Parallel tempering from starts of eight widths gives the draws and one log Z, SMC from another seed
a second.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.reference.resume import NOTHING, Keeper
from tiltbench.reference.smc import islands
from tiltbench.reference.tests import estimate
from tiltbench.run.streams import generator
from tiltbench.samplers.classical._leapfrog import unknown
from tiltbench.samplers.classical._replicas import Replicas, log_ratio
from tiltbench.samplers.classical.parallel_tempering import ParallelTempering
from tiltbench.samplers.loss import reward_and_grad
from tiltbench.samplers.sampler import Unsupported
from tiltbench.samplers.weights import Estimate
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem, pose
from tiltbench.targets.reference import Basins, Referenced, needs_reference, stated
from tiltbench.targets.target import Density

GROUPS = 8  # widths of the starts
NARROW, WIDE = 0.5, 2.0  # the first and the last, in spreads of the base
LADDERS = 4  # at least: two of narrow and two of wide starts, so that both halves have an error
TEMPERING = ParallelTempering(leaps=8, warm_up=0.15)
CHAINED = 5_000_000  # numbers of the chains' states that are kept in memory


class Effort(NamedTuple):
    """What one reference costs; with target and seed it decides the arrays."""

    points: int  # of tempering, and again of SMC
    ladders: int = 32  # LADDERS or more


class Evidence(NamedTuple):
    """What the chains of one target say; arrays are (chains, states), by statistic."""

    x: Float[Tensor, "chains states d"]
    statistics: Mapping[str, Tensor]  # energy and radius among them
    basins: tuple[Tensor, ...]  # indicators
    virial: Tensor  # x . grad log rho
    tempering: Estimate  # log Z
    smc: Estimate
    notes: Mapping[str, Any]  # how they were run, for the provenance

    @property
    def watched(self) -> dict[str, Tensor]:
        return {**self.statistics, **{f"basin_{k}": b for k, b in enumerate(self.basins)}}


def gather(target: Density, effort: Effort, seed: int, keeper: Keeper = NOTHING) -> Evidence:
    """The chains and both log Z; what is `keeper` of them goes on.

    Raises Unsupported where the points do not pay for them."""
    problem = pose(target, TEMPERING.reference)
    state = tempered(problem, effort, target.rank, generator_of(seed, "tempering"), keeper)
    x = torch.stack(state.cold, 1)
    flat = x.flatten(0, 1)
    with torch.no_grad():
        named = {name: f(flat) for name, f in statistics(target).items()}
    statistic = {name: y.double().unflatten(0, x.shape[:2]) for name, y in named.items()}
    again = generator_of(seed, "smc")
    second = islands(problem, state.schedule, effort.points, TEMPERING.leaps, again, keeper)
    rewards = torch.stack(state.rewards)
    rise = state.betas.diff() * (rewards[..., :-1] - rewards[..., 1:])
    return Evidence(
        x,
        statistic,
        basins(target, x),
        _virial(target, flat).unflatten(0, x.shape[:2]),
        log_ratio(rewards, state.betas),
        second,
        {
            "method": "parallel tempering from starts of 8 widths; SMC for the second log Z",
            "gauge": _gauge(target),
            "ladders": state.ladders,
            "rounds": state.rounds,
            "states_a_ladder": x.shape[1],
            "rounds_a_state": state.every,
            "betas": state.betas.tolist(),
            "step_sizes": state.schedule.log_sizes.exp().tolist(),
            "swap_acceptance": rise.clamp(max=0).exp().nan_to_num(0.0).mean((0, 1)).tolist(),
            "rms_coordinate": math.sqrt(float(flat.square().sum(-1).mean()) / target.rank),
            "effective_draws": {
                name: (float(y.std()) / se) ** 2
                for name, y in statistic.items()
                if (se := estimate(y).se) > 0
            },
        },
    )


def tempered(
    problem: Problem,
    effort: Effort,
    rank: int,
    generator: Generator,
    keeper: Keeper,
) -> Replicas:
    """Ladders of parallel tempering whose starts are wider from each eighth of them to the next.

    Raises Unsupported where the points pay for fewer than LADDERS."""
    sampler = replace(TEMPERING, ladders=effort.ladders, keep=CHAINED // rank)
    state = sampler.init(problem, Cost(effort.points, effort.points), generator)
    state = sampler.step(problem, state, generator)
    if state.ladders < LADDERS:
        raise Unsupported(
            f"{effort.points} points pay for {state.ladders} ladders of {state.levels} levels, and "
            f"the tests need {LADDERS}: ask for more points"
        )
    ladder = torch.arange(state.ladders).repeat_interleave(state.levels)
    group = ladder * GROUPS // state.ladders
    width = NARROW * (WIDE / NARROW) ** (group.double() / (GROUPS - 1))
    state = state._replace(at=unknown(width[:, None] * state.at.x))
    state = keeper.begun("tempering", state, generator)
    while state.spent < effort.points:
        state = sampler.step(problem, state, generator)
        keeper.watch("tempering", state, generator)
    keeper.save("tempering", state, generator)  # SMC may be stopped, too
    return state


def statistics(target: Density) -> dict[str, Callable[[Tensor], Tensor]]:
    """Energy and radius, and what the target names."""
    always = {"energy": lambda x: -target.log_rho(x), "radius": lambda x: x.square().sum(-1).sqrt()}
    if needs_reference(target):
        return {**always, **target.statistics()}
    known = target.truth().observables
    return {**always, **{name: observable.f for name, observable in known.items()}}


def basins(target: Density, x: Float[Tensor, "c n d"]) -> tuple[Tensor, ...]:
    """Indicators (chains, states) of the target's basins, or of its modes."""
    if isinstance(target, Referenced):
        cells = target.basins()
    else:
        modes = stated(target).modes
        cells = Basins(len(modes.weight), modes.assign) if modes is not None else None
    if cells is None:
        return ()
    index = cells.assign(x.flatten(0, 1)).unflatten(0, x.shape[:2])
    return tuple((index == k).double() for k in range(cells.number))


def _virial(target: Density, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """x . grad log rho or what stands for it, the gradient being the one that samplers see."""
    plain = Problem(target.dim, None, target.log_rho)  # type: ignore[arg-type]
    parts = [target.virial(y, reward_and_grad(plain, y)[1])[0] for y in x.split(4096)]
    return torch.cat(parts)


def minus_virial(target: Density) -> int:
    """Minus the mean of what stands in `Evidence.virial`."""
    nothing = torch.zeros((1, target.dim), dtype=torch.float64)
    return target.virial(nothing, nothing)[1]


def _gauge(target: Density) -> str:
    if target.particles is None:
        return f"Z is the integral of rho over R^{target.dim}"
    n, d = target.particles
    return (
        f"Z is the integral of rho over the {target.rank}-dimensional subspace sum_i x_i = 0 of "
        f"R^{target.dim} with its own Lebesgue measure; over R^{target.dim} with the centre of "
        f"mass in a box of volume V it is larger by the factor V {n}^({d}/2)"
    )


PARTS = {"tempering": 0, "smc": 1, "rows": 2}


def generator_of(seed: int, part: str) -> Generator:
    return generator(seed, "certify", part=PARTS[part])
