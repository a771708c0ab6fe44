"""What MALA and HMC share: many chains, a step size tuned in a declared warm-up, stored states."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from tiltbench.samplers.classical._leapfrog import (
    DTYPE,
    Points,
    adapted,
    evaluate,
    known_base,
    move,
    spread_out,
    unknown,
)
from tiltbench.samplers.sampler import Draws, Unsupported
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem

FEWEST = 50  # moves of every chain, below which a chain is worth nothing: take fewer chains


class Chains(NamedTuple):
    at: Points  # where the chains are, (chains, D)
    log_size: Tensor  # () log of the leapfrog step
    stored: tuple[Tensor, ...]  # thinned states after the warm-up, (chains, D) each
    moves: int  # made so far
    spent: int  # points so far
    warm: int  # points of the warm-up
    every: int  # moves from one stored state to the next


def begin(
    problem: Problem,
    budget: Cost,
    generator: Generator,
    chains: int,
    leaps: int,
    warm_up: float,
    keep: int,
) -> Chains:
    """Chains at draws from the base; free of charge.

    Fewer than `chains` where the budget would give each less than 50 moves.  Raises Unsupported
    where it does not give 50 moves to one chain, or where the base has no density."""
    base = known_base(problem)
    points = min(budget)
    chains = min(chains, points // (FEWEST * leaps))
    if chains == 0:
        raise Unsupported(
            f"a budget of {points} calls is too small: at {leaps} calls a move the least is "
            f"{FEWEST * leaps}"
        )
    warm = math.ceil(warm_up * points)
    states = (points - warm) // leaps
    at = unknown(base.end((chains, problem.dim), generator, DTYPE))
    guess = base.spread * problem.dim**-0.25
    log_size = torch.tensor(math.log(guess), dtype=DTYPE, device=at.x.device)
    return Chains(at, log_size, (), 0, 0, warm, max(1, round(states / keep)))


def advance(
    problem: Problem, state: Chains, leaps: int, acceptance: float, generator: Generator
) -> Chains:
    """One move of every chain, for `leaps` points each; the first call pays for the start."""
    if state.moves == 0:
        state = state._replace(at=evaluate(problem, state.at.x), spent=len(state.at.r))
    at, chance = move(problem, state.at, 1.0, state.log_size.exp(), leaps, generator)
    moves, spent = state.moves + 1, state.spent + leaps * len(at.r)
    log_size, stored = state.log_size, state.stored
    if state.spent < state.warm:
        log_size = adapted(log_size, chance, acceptance, moves)
        if spent >= state.warm:
            at = rescued(at, generator)
    elif moves % state.every == 0:
        stored = (*stored, at.x)
    return Chains(at, log_size, stored, moves, spent, state.warm, state.every)


def rescued(at: Points, generator: Generator) -> Points:
    """Chains that found no density in the warm-up go on from where another chain is."""
    inside = (at.r > -torch.inf).nonzero()[:, 0]
    if len(inside) == 0:
        raise Unsupported(
            f"none of {len(at.r)} chains met a point of positive density in the warm-up: "
            "raise the budget, or state the target's scale"
        )
    pick = torch.randint(len(inside), at.r.shape, generator=generator, device=at.r.device)
    return at.where(at.r > -torch.inf, at.at(inside[pick]))


def pick(state: Chains, n: int, generator: Generator) -> Draws:
    """n stored states (fewer where fewer are stored), spread evenly over chains and time; the
    chain is the group.  Before any is stored, the chains where they are."""
    x = torch.stack(state.stored or (state.at.x,), 1)  # (chains, time, D)
    chains, times, dim = x.shape
    index = spread_out(chains, times, n, generator)
    return Draws(x.reshape(-1, dim)[index], group=index // times)


def tensors(state: Chains) -> dict[str, Tensor]:
    return {**state.at._asdict(), "log_size": state.log_size}
