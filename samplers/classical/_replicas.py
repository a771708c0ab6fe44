"""Replica exchange: ladders of temperatures from the base to p*, and what they say of Z."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.samplers.classical._anneal import Schedule, pilot, refined
from tiltbench.samplers.classical._leapfrog import (
    DTYPE,
    Points,
    adapted,
    evaluate,
    known_base,
    move_each,
    spread_out,
    unknown,
)
from tiltbench.samplers.sampler import Draws, Unsupported
from tiltbench.samplers.weights import Estimate
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem

LEAST = 500  # points: the smallest budget for a pilot and one ladder
FEWEST = 80  # rounds of every ladder, below which it is worth nothing: take fewer ladders
PILOT = 0.3  # of the warm-up is the pilot's
PLACED = (0.3, 0.5, 0.75)  # of the warm-up: when the temperatures are placed anew
RESCUED = 0.75  # of the warm-up: when replicas without density are given one; the rest is burn-in


class Replicas(NamedTuple):
    """Ladders of levels 0 = beta_0 < ... < beta_T = 1; level 0 is drawn anew in every round."""

    points: int  # the budget
    schedule: Schedule  # of levels 1 to T; empty before the pilot
    at: Points  # where the replicas are, (ladders * (1 + T), D), ladder by ladder
    refused: Float[Tensor, "2 t"]  # of the swaps with the level below: sum of refusals, and count
    cold: tuple[Tensor, ...]  # thinned states of level T after the warm-up, (ladders, D) each
    rewards: tuple[Tensor, ...]  # r of every replica at the same times, (ladders, 1 + T) each
    rounds: int  # made so far
    spent: int  # points so far
    warm: int  # points of the warm-up
    every: int  # rounds from one stored state to the next

    @property
    def levels(self) -> int:
        return 1 + len(self.schedule.betas)

    @property
    def ladders(self) -> int:
        return len(self.at.r) // self.levels

    @property
    def betas(self) -> Float[Tensor, " levels"]:
        return torch.cat([torch.zeros(1, dtype=DTYPE), self.schedule.betas])


def begin(problem: Problem, budget: Cost, leaps: int, warm_up: float) -> Replicas:
    """Nothing yet; free of charge.  Raises Unsupported where the budget does not plan a ladder
    and where the base has no density."""
    known_base(problem)
    points, least = min(budget), LEAST * max(1, leaps // 5)
    if points < least:
        raise Unsupported(
            f"a budget of {points} calls is too small: for tempering the least is {least}"
        )
    empty = torch.empty(0, dtype=DTYPE)
    nowhere = unknown(torch.empty((0, problem.dim), dtype=DTYPE))
    warm = math.ceil(warm_up * points)
    return Replicas(points, Schedule(empty, empty), nowhere, empty, (), (), 0, 0, warm, 1)


def plan(
    problem: Problem,
    state: Replicas,
    least: float,
    ladders: int,
    leaps: int,
    keep: int,
    generator: Generator,
) -> Replicas:
    """A pilot's temperatures, and as many ladders of draws from the base as the budget moves for
    80 rounds.  The pilot alone is paid for."""
    base = known_base(problem)
    points = max(20, int(PILOT * state.warm))
    particles = max(2, math.isqrt(2 * points))
    schedule = pilot(problem, particles, max(1, points // particles - 1), least, generator)
    spent = particles * (1 + len(schedule.betas))
    left = (state.points - spent) // FEWEST
    most = max(1, (left - 1) // leaps)
    if len(schedule.betas) > most:
        schedule = refined(schedule, most)
    levels = 1 + len(schedule.betas)
    price = leaps * (levels - 1) + 1
    ladders = min(ladders, max(1, left // price))
    states = max(0, state.points - state.warm) // price
    x = base.end((ladders * levels, problem.dim), generator, DTYPE)
    return state._replace(
        schedule=schedule,
        at=unknown(x),
        refused=torch.zeros((2, levels - 1), dtype=DTYPE),
        spent=spent,
        every=max(1, round(states / keep)),
    )


def advance(
    problem: Problem, state: Replicas, leaps: int, acceptance: float, generator: Generator
) -> Replicas:
    """One round: every replica moves, level 0 is drawn anew, and neighbours swap, the even pairs in
    one round and the odd ones in the next (Okabe et al. 2001; Syed et al., arXiv 1905.02939: the
    order that carries states from end to end fastest).

    Costs ladders * (T leaps + 1) points, and a point for every replica in the first round.  In the
    warm-up, the first round at least, the step sizes follow the acceptance of their level, the
    temperatures are placed anew at equal shares of refused swaps, and lost replicas are rescued."""
    if state.rounds == 0:
        start = evaluate(problem, state.at.x)
        state = state._replace(at=start, spent=state.spent + len(start.r))
    at, chance = _moved(problem, state, leaps, generator)
    at, lost = swapped(at, state.betas.to(at.r.device), state.rounds % 2, generator)
    rounds, ladders = state.rounds + 1, state.ladders
    spent = state.spent + ladders * (leaps * (state.levels - 1) + 1)
    state, before = state._replace(at=at, rounds=rounds, spent=spent), state.spent
    if before < state.warm or rounds == 1:
        sizes = adapted(state.schedule.log_sizes, chance.cpu(), acceptance, rounds)
        state = state._replace(
            schedule=state.schedule._replace(log_sizes=sizes), refused=state.refused + lost.cpu()
        )
        if any(before < share * state.warm <= spent for share in PLACED):
            state = replaced(state)
        if (before < RESCUED * state.warm or rounds == 1) and spent >= RESCUED * state.warm:
            state = state._replace(at=rescued(state, generator))
        return state
    if rounds % state.every:
        return state
    x, r = at.x.unflatten(0, (ladders, -1)), at.r.unflatten(0, (ladders, -1))
    return state._replace(cold=(*state.cold, x[:, -1]), rewards=(*state.rewards, r))


def _moved(
    problem: Problem, state: Replicas, leaps: int, generator: Generator
) -> tuple[Points, Float[Tensor, " t"]]:
    """The replicas after their moves, with the mean acceptance of every level above 0; NaN where
    no replica of a level has density."""
    ladders, levels = state.ladders, state.levels
    index = torch.arange(ladders * levels, device=state.at.r.device).unflatten(0, (-1, levels))
    bottom, above = index[:, 0], index[:, 1:].flatten()
    betas, sizes = (y.to(state.at.x).repeat(ladders) for y in state.schedule)
    old = state.at.at(above)
    new, chance = move_each(problem, old, betas, sizes.exp()[:, None], leaps, generator)
    fresh = known_base(problem).end((ladders, problem.dim), generator, DTYPE)
    joined = [torch.cat(pair) for pair in zip(evaluate(problem, fresh), new, strict=True)]
    back = torch.cat([bottom, above]).argsort()
    chance = chance.where(old.r > -torch.inf, torch.nan).unflatten(0, (ladders, -1))
    return Points(*joined).at(back), chance.nanmean(0)


def swapped(
    at: Points, betas: Float[Tensor, " levels"], parity: int, generator: Generator
) -> tuple[Points, Float[Tensor, "2 t"]]:
    """Levels k and k + 1 exchange their replicas with probability
    min(1, exp((beta_{k+1} - beta_k) (r_k - r_{k+1}))), k = parity, parity + 2, ...

    Also the mean probability of a refusal and 1 for the pairs that were tried, 0 elsewhere."""
    levels = len(betas)
    r = at.r.unflatten(0, (-1, levels))
    low = torch.arange(parity, levels - 1, 2, device=r.device)
    gain = betas.diff()[low] * (r[:, low] - r[:, low + 1])
    chance = gain.clamp(max=0).exp().nan_to_num(0.0)  # NaN: both have no density
    coin = torch.rand(chance.shape, generator=generator, device=r.device, dtype=DTYPE)
    order = torch.arange(levels, device=r.device).repeat(len(r), 1)
    order[:, low] += (coin < chance).long()
    order[:, low + 1] -= (coin < chance).long()
    offset = levels * torch.arange(len(r), device=r.device)
    refused = torch.zeros((2, levels - 1), dtype=DTYPE, device=r.device)
    refused[0, low], refused[1, low] = 1 - chance.mean(0), 1.0
    return at.at((order + offset[:, None]).flatten()), refused


def replaced(state: Replicas) -> Replicas:
    """The temperatures moved to equal shares of refused swaps: their sum along the ladder depends
    on the path, not on the rungs, and equal ones let states through fastest (Syed et al., 2022)."""
    total, count = state.refused
    share = (total / count.clamp(min=1)).clamp(min=0.02).cumsum(0)
    place = torch.cat([torch.zeros(1, dtype=DTYPE), share / share[-1]])
    wanted = torch.arange(1, state.levels, dtype=DTYPE) / (state.levels - 1)
    low = (torch.searchsorted(place, wanted) - 1).clamp(0, state.levels - 2)
    schedule = between(state.schedule, low + (wanted - place[low]) / place.diff()[low])
    return state._replace(schedule=schedule, refused=torch.zeros_like(state.refused))


def between(schedule: Schedule, place: Float[Tensor, " k"]) -> Schedule:
    """The ladder at places from 0, which is beta = 0, to T, the last of which is T.

    Linear between the rungs in beta^(1/4), in which ladders to r^-12 cores are even: the volume
    that a core excludes grows like beta^(3/12)."""
    roots = torch.cat([torch.zeros(1, dtype=DTYPE), schedule.betas**0.25])
    sizes = torch.cat([schedule.log_sizes[:1], schedule.log_sizes])
    low = place.long().clamp(max=len(schedule.betas) - 1)
    betas = torch.lerp(roots[low], roots[low + 1], place - low) ** 4
    betas[-1] = 1.0  # whatever the rounding
    return Schedule(betas, torch.lerp(sizes[low], sizes[low + 1], place - low))


def rescued(state: Replicas, generator: Generator) -> Points:
    """Replicas that found no density so far go on from where another ladder is.

    Two ladders then share a point and nothing that moves them: given it they are independent, and
    the rest of the warm-up, of which no state is kept, is there for both to forget it.  So errors
    and R-hat over ladders keep their meaning for what the ladders reach from there; the spread of
    the starts is lost with the replica, and a basin that no ladder found stays unseen."""
    at, levels = state.at, state.levels
    index = torch.arange(len(at.r), device=at.r.device)
    for level in range(1, levels):
        here = index % levels == level
        inside = (here & (at.r > -torch.inf)).nonzero()[:, 0]
        if len(inside) == 0:
            raise Unsupported(
                f"none of {state.ladders} ladders met a point of positive density at beta = "
                f"{float(state.betas[level]):.3g} in the warm-up: "
                "raise the budget, or state the target's scale"
            )
        pick = torch.randint(len(inside), at.r.shape, generator=generator, device=at.r.device)
        lost = here & (at.r == -torch.inf)
        at = at.at(torch.where(lost, inside[pick], index))
    return at


def draws(problem: Problem, state: Replicas, n: int, generator: Generator) -> Draws:
    """n stored states of level T (fewer where fewer are stored), spread evenly over ladders and
    time; the ladder is the group.  Before any is stored, the replicas of level T where they are;
    before there are any, draws of the base."""
    if state.levels == 1:
        return Draws(known_base(problem).end((n, problem.dim), generator, DTYPE))
    here = state.at.x.unflatten(0, (-1, state.levels))[:, -1]
    x = torch.stack(state.cold or (here,), 1)  # (ladders, time, D)
    ladders, times, dim = x.shape
    index = spread_out(ladders, times, n, generator)
    log_Z = log_ratio(torch.stack(state.rewards), state.betas) if state.rewards else None
    return Draws(x.reshape(-1, dim)[index], group=index // times, log_Z=log_Z)


def log_ratio(rewards: Float[Tensor, "n ladders levels"], betas: Tensor) -> Estimate:
    """log Z_{beta_T} / Z_{beta_0} of p_base exp(beta r): the sum over neighbours of Bennett's
    estimate, c with  sum_low s(w - c) = sum_high s(c - w),  w = (beta_{k+1} - beta_k) r, s the
    logistic function, states at k on the left and at k + 1 on the right (J. Comput. Phys. 22, 245).

    The error is that of independent ladders: the root moves by sum_ladder psi / |slope|, with psi
    the difference of the two sides, and these are added over the neighbours before they are
    squared, because one ladder's levels exchange their states.  inf for one ladder."""
    rise = betas.to(rewards.device).diff()
    low, high = rise * rewards[..., :-1], rise * rewards[..., 1:]
    low, high = (y.transpose(0, 1).flatten(0, 1) for y in (low, high))  # (ladders * n, T)
    both = torch.cat([low, high])
    reach = math.log(2 * len(both))  # states of zero density put the root below all others
    left = both.where(both > -torch.inf, torch.inf).min(0).values - reach
    right = both.max(0).values
    for _ in range(200):
        c = (left + right) / 2
        positive = torch.sigmoid(low - c).sum(0) > torch.sigmoid(c - high).sum(0)
        left, right = torch.where(positive, c, left), torch.where(positive, right, c)
    c = (left + right) / 2
    up, down = torch.sigmoid(low - c), torch.sigmoid(c - high)
    slope = (up * (1 - up) + down * (1 - down)).sum(0)
    ladders = rewards.shape[1]
    moved = ((up - down) / slope).unflatten(0, (ladders, -1)).sum((1, 2))
    if ladders == 1:
        return Estimate(float(c.sum()), math.inf, 1)
    se = math.sqrt(ladders / (ladders - 1) * float(moved.square().sum()))
    return Estimate(float(c.sum()), se, ladders)


def tensors(state: Replicas) -> dict[str, Tensor]:
    schedule = dict(state.schedule._asdict())
    last = {"log_size": state.schedule.log_sizes[-1]} if state.levels > 1 else {}
    return {**schedule, **state.at._asdict(), **last}
