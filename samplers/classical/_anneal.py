"""What AIS and SMC share: a pilot that plans the temperatures, and islands of particles."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.samplers.classical._leapfrog import (
    DTYPE,
    adapted,
    evaluate,
    known_base,
    move,
    spread_out,
)
from tiltbench.samplers.sampler import Draws, Unsupported
from tiltbench.samplers.weights import Estimate, ess, log_mean_exp, resample, temper
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem

ACCEPTANCE = 0.574  # wanted of one leap (MALA)
LEAST = 200  # points: the smallest budget for a pilot and one island
SMALLEST = 16  # particles of an island; with fewer, plan fewer islands


class Schedule(NamedTuple):
    """0 < beta_1 < ... < beta_K = 1 and the step size of the moves at each, float64."""

    betas: Float[Tensor, " k"]
    log_sizes: Float[Tensor, " k"]


class Annealed(NamedTuple):
    points: int  # the budget
    schedule: Schedule  # empty before the pilot
    islands: int  # planned by the pilot
    particles: int  # of an island
    x: tuple[Tensor, ...]  # the particles of every complete island, (particles, D) each
    log_w: tuple[Tensor, ...]  # their log-weights, (particles,) each

    @property
    def complete(self) -> bool:
        return self.islands > 0 and len(self.x) == self.islands


def begin(problem: Problem, budget: Cost) -> Annealed:
    """Nothing yet; free of charge.  Raises Unsupported below 200 points, and where the base has no
    density."""
    known_base(problem)
    points = min(budget)
    if points < LEAST:
        raise Unsupported(
            f"a budget of {points} calls is too small: for annealing the least is {LEAST}"
        )
    empty = torch.empty(0, dtype=DTYPE)
    return Annealed(points, Schedule(empty, empty), 0, 0, (), ())


def plan(
    problem: Problem,
    state: Annealed,
    warm_up: float,
    least: float,
    particles_per_beta: float,
    islands: int,
    generator: Generator,
) -> Annealed:
    """The pilot's temperatures, their number and that of the particles fitted to what it leaves."""
    points = int(warm_up * state.points)
    particles = max(2, math.isqrt(2 * points))
    longest = max(1, points // particles - 1)
    schedule = pilot(problem, particles, longest, least, generator)
    left = state.points - particles * (1 + len(schedule.betas))
    temperatures = max(1, int(math.sqrt(left / particles_per_beta)))
    total = left // (1 + temperatures)
    islands = min(islands, max(1, total // SMALLEST))
    return state._replace(
        schedule=refined(schedule, temperatures), islands=islands, particles=total // islands
    )


def pilot(
    problem: Problem, particles: int, longest: int, least: float, generator: Generator
) -> Schedule:
    """A run of SMC that chooses each temperature so that the ess of the next weights is `least`
    and steers the step size by the acceptance.  Its particles are thrown away, so that what runs
    on the frozen schedule stays unbiased (adapting while estimating is consistent, but biased:
    Beskos, Jasra, Kantas and Thiery 2016).

    At most `longest` temperatures: where the ess would need more, the rest follow a geometric
    ladder.  Costs particles * (1 + temperatures) values and gradients.  Raises Unsupported where no
    particle has density."""
    base = known_base(problem)
    at = evaluate(problem, base.end((particles, problem.dim), generator, DTYPE))
    guess = 1.65 * base.spread * problem.dim ** (-1 / 6)  # right for the base itself
    log_size = torch.tensor(math.log(guess), dtype=DTYPE, device=at.x.device)
    before, betas, log_sizes = 0.0, [], []
    for left in range(longest, 0, -1):
        r = at.r[at.r > -torch.inf]
        if len(r) == 0:
            raise Unsupported(
                f"none of {particles} draws from the base has positive density: "
                "raise the budget, or state the target's scale"
            )
        rise = float(temper(r, least, 1 - before))
        ladder = before ** (1 - 1 / left)  # 1 at the last
        beta = 1.0 if rise == 1 - before else max(before + rise, ladder, 1e-12)
        at = at.at(resample((beta - before) * at.r, particles, generator))
        at, chance = move(problem, at, beta, log_size.exp(), 1, generator)
        log_size = adapted(log_size, chance, ACCEPTANCE, 8)
        betas.append(beta)
        log_sizes.append(log_size)
        before = beta
        if beta == 1.0:
            break
    return Schedule(torch.tensor(betas, dtype=DTYPE), torch.stack(log_sizes).cpu())


def refined(schedule: Schedule, temperatures: int) -> Schedule:
    """The same ladder with another number of rungs: linear between the pilot's, which lie at equal
    steps of ess."""
    betas = torch.cat([torch.zeros(1, dtype=DTYPE), schedule.betas])
    log_sizes = torch.cat([schedule.log_sizes[:1], schedule.log_sizes])
    pilots = len(schedule.betas)
    place = torch.arange(1, temperatures + 1, dtype=DTYPE) * (pilots / temperatures)
    low = place.long().clamp(max=pilots - 1)
    share = place - low
    rungs = [torch.lerp(y[low], y[low + 1], share) for y in (betas, log_sizes)]
    rungs[0][-1] = 1.0  # whatever the rounding: E[exp log_w] = Z needs the whole tilt
    return Schedule(*rungs)


def island(
    problem: Problem,
    schedule: Schedule,
    particles: int,
    least: Float[Tensor, " k"],
    generator: Generator,
) -> tuple[Float[Tensor, "n d"], Float[Tensor, " n"]]:
    """Particles carried from the base to p* along p_base exp(beta r), one MALA move at each beta,
    and their log-weights: E[exp(log_w) f(x)] = Z E_p*[f] exactly, for a schedule fixed beforehand.

    log_w grows by (beta_k - beta_{k-1}) r before the move at beta_k (Neal, physics/9803008).  Where
    the ess falls below least_k the particles are resampled, and each then carries the log-mean-exp
    of the weights (Del Moral, Doucet and Jasra 2006).  Costs particles * (1 + temperatures).
    """
    base = known_base(problem)
    at = evaluate(problem, base.end((particles, problem.dim), generator, DTYPE))
    log_w = torch.zeros_like(at.r)
    rises = schedule.betas.diff(prepend=torch.zeros(1, dtype=DTYPE)).tolist()
    sizes = schedule.log_sizes.exp().tolist()
    rungs = zip(schedule.betas.tolist(), rises, sizes, least.tolist(), strict=True)
    for beta, rise, size, floor in rungs:
        log_w = log_w + rise * at.r
        if 0 < ess(log_w) < floor:  # 0: every weight is zero, and so is the estimate of Z
            at = at.at(resample(log_w, particles, generator))
            log_w = torch.full_like(log_w, log_mean_exp(log_w))
        at, _ = move(problem, at, beta, size, 1, generator)
    return at.x, log_w


def with_island(problem: Problem, state: Annealed, least: Tensor, generator: Generator) -> Annealed:
    x, log_w = island(problem, state.schedule, state.particles, least, generator)
    return state._replace(x=(*state.x, x), log_w=(*state.log_w, log_w))


def pick(problem: Problem, state: Annealed, n: int, generator: Generator) -> Draws:
    """n particles (fewer where fewer are stored), spread evenly over islands; the island is the
    group.  Any even choice keeps E[exp(log_w) f(x)] = Z E_p*[f].

    Before the first island is complete, n draws of the base weighted by exp r, at one value each:
    an anneal without temperatures."""
    if not state.x:
        x = known_base(problem).end((n, problem.dim), generator, DTYPE)
        with torch.no_grad():
            log_w = problem.reward(x)
        return Draws(x, log_w, None, log_mean_weight(log_w))
    index = spread_out(len(state.x), state.particles, n, generator)
    return Draws(torch.cat(state.x)[index], torch.cat(state.log_w)[index], index // state.particles)


def tensors(state: Annealed) -> dict[str, Tensor]:
    return dict(state.schedule._asdict())


def log_mean_weight(log_w: Float[Tensor, " n"]) -> Estimate:
    """log mean exp of n independent log-weights; se by the delta method, sd(w) / (mean(w) sqrt n).

    The se is inf where one weight, or none, says nothing of their spread."""
    n, share = len(log_w), min(ess(log_w), 1.0)
    se = math.sqrt((1 / share - 1) / (n - 1)) if n > 1 and share > 0 else math.inf
    return Estimate(log_mean_exp(log_w), se, n)
