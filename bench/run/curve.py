"""The learning curve: draws at 8 log-spaced shares of the training, from 1 % of it to the end."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tiltbench.plan.cell import CURVE_POINTS, Cell
from tiltbench.records.validate import validated
from tiltbench.run.failures import explain
from tiltbench.run.ledger import Ledger
from tiltbench.run.states import copied
from tiltbench.run.streams import generator
from tiltbench.samplers.sampler import Draws, Sampler
from tiltbench.targets.cost import Cost
from tiltbench.targets.target import Target


class TrainingCost(NamedTuple):
    """What training has taken so far."""

    calls: int
    flops: float
    seconds: float


class CurveState(NamedTuple):
    """A copy of the sampler's state in the midst of training, and what that had cost."""

    spent: TrainingCost
    state: Any


def curve_cost(cell: Cell) -> Cost:
    """The learning curve's part of the measuring budget: 200 points a draw, as for any draw."""
    each = 200 * cell.curve * CURVE_POINTS
    return Cost(each, each)


class Curve:
    """While training only copies of the state are kept; they are drawn from once the run's own
    draws are made, with meters and a generator of their own, so that nothing measured can reach
    them."""

    def __init__(self, ledger: Ledger, target: Target, sampler: Sampler[Any]) -> None:
        self.ledger, self.target, self.sampler = ledger, target, sampler
        cell = ledger.cell
        shares = np.geomspace(0.01, 1.0, CURVE_POINTS)[:-1].tolist()
        self.shares = shares if cell.curve else []
        self.states: list[CurveState] = []
        self.source = generator(cell.seed, "curve", cell.device)

    def due(self, share: float) -> bool:
        """Whether one of the shares was passed since the last question."""
        passed = [s for s in self.shares if s <= share]
        self.shares = self.shares[len(passed) :]
        return bool(passed)

    def keep(self, spent: TrainingCost, state: Any) -> None:
        if self.ledger.cell.curve:
            self.states.append(CurveState(spent, copied(state)))

    def draw(self) -> dict[str, Tensor]:
        """spend (calls), flops and seconds (P,), x (P, n, D) and log_w (P, n), NaN where there is
        none."""
        pairs = [(at, self.draws(at.state)) for at in self.states]
        rows = [(at, draws) for at, draws in pairs if draws is not None]
        if not rows:
            return {}
        n, dim = self.ledger.cell.curve, self.target.dim
        x = torch.full((len(rows), n, dim), torch.nan)
        log_w = torch.full((len(rows), n), torch.nan, dtype=torch.float64)
        for row, (_, draws) in enumerate(rows):
            x[row, : len(draws.x)] = draws.x.float().cpu()
            if draws.log_w is not None:
                log_w[row, : len(draws.log_w)] = draws.log_w.double().cpu()
        spent = [at.spent for at, _ in rows]
        spend = torch.tensor([each.calls for each in spent])
        flops = torch.tensor([each.flops for each in spent], dtype=torch.float64)
        seconds = torch.tensor([each.seconds for each in spent], dtype=torch.float64)
        return {"spend": spend, "flops": flops, "seconds": seconds, "x": x, "log_w": log_w}

    def draws(self, state: Any) -> Draws | None:
        n = self.ledger.cell.curve
        budget = Cost(200 * n, 200 * n)
        problem, meter = self.ledger.problem(self.target, self.sampler, "measure", budget)
        try:
            return validated(self.sampler.draw(problem, state, n, self.source), n, self.target.dim)
        except Exception as error:  # no draws so early, or not yet finite: a gap in the curve
            self.ledger.note(f"a gap in the learning curve: {explain(error)[1]}")
            return None
        finally:
            meter.close()
