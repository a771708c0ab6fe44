"""Resample-move matching: local score matching on end points that Langevin moves have settled.

The end points of the present control, resampled by their path weights, make `moves` MALA moves,
each of which leaves p* invariant (resample-move, Gilks and Berzuini 2001).  Selection decides among
wells; within a well a few moves do what many rounds of simulation and regression would have to: a
narrow well is right in width before the network knows it.  At p* neither changes the law, so the
fixed point is that of `local_score_matching`, u*.  The first step size is a well's standard
deviation, spread / 10; it follows the acceptance, and starts anew with every batch.  A value and a
gradient a move.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator

from tiltbench.samplers.classical._leapfrog import DTYPE, Points, adapted, move
from tiltbench.samplers.diffusion import Diffusion, Preset
from tiltbench.samplers.loss import Batch, Loss, Options, build_loss, reward_and_grad
from tiltbench.samplers.losses._matching import noising, path_log_w, point_hints, points
from tiltbench.samplers.losses.local_score_matching import NARROW, halved, local, value
from tiltbench.samplers.networks.model import Model
from tiltbench.targets.bases.noising import Noising
from tiltbench.targets.bases.process import Path
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem

ACCEPTANCE = 0.574  # wanted of MALA (Roberts and Rosenthal 1998)


@dataclass(frozen=True)
class Moves(Options):
    """`moves`: how many MALA moves every selected end point makes."""

    moves: int = 50

    def __post_init__(self) -> None:
        if self.moves < 1:
            raise ValueError(
                f"moves is {self.moves}; it must be 1 or more (local_score_matching makes none)"
            )

    def loss(self) -> Loss:
        return Loss(
            "resample_move_matching", self.label, value, self.price, any_law=True, options=self
        )

    def label(
        self, problem: Problem, model: Model, path: Path, share: float, generator: Generator
    ) -> Batch:
        base, x = noising(problem.base), path.x[-1]
        r, g = reward_and_grad(problem, x)
        log_w = path_log_w(base, path, r, problem.checks)
        ends = Points(x.to(DTYPE), r.to(DTYPE), g.to(DTYPE))
        at = self.moved(problem, base, ends.at(halved(log_w, generator, problem.checks)), generator)
        g = at.g + base.score(at.x, base.steps)
        rows = {"x1": at.x.to(x.dtype), "g": g.to(x.dtype)}
        if not model.guided:
            return rows
        x, k, y = points(base, local(base), rows, generator)
        return {"x": x, "k": k, "y": y, "hint": reward_and_grad(problem, x)[1]}

    def moved(self, problem: Problem, base: Noising, at: Points, generator: Generator) -> Points:
        log_size = torch.tensor(math.log(base.spread**2 / NARROW) / 2, dtype=DTYPE)
        log_size = log_size.to(at.x.device)
        for count in range(self.moves):
            at, chance = move(problem, at, 1.0, log_size.exp(), 1, generator)
            log_size = adapted(log_size, chance, ACCEPTANCE, count)
        return at

    def price(self, paths: int, steps: int, guided: bool) -> Cost:
        each = 1 + self.moves
        return Cost(each, each).times(paths).plus(point_hints(paths, steps, guided))


resample_move_matching = Preset(
    "resample_move_matching", Diffusion(build_loss(Moves()), repeats=8, memory=16)
)
"""Local score matching on end points moved by MALA."""
