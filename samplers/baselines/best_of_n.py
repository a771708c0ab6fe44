"""Best of n: no training, the best of some draws of the base."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from tiltbench.samplers.at_once import at_once
from tiltbench.samplers.baselines._pool import CHUNK, Pool, bought
from tiltbench.samplers.sampler import Draws, Sampler, Unsupported
from tiltbench.targets.bases.linear import Linear
from tiltbench.targets.bases.references import Brownian
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem


@dataclass(frozen=True)
class BestOfN(Sampler[Pool]):
    """Every draw is the one with the largest reward of `candidates` independent draws of the base.

    Its law is p_base(x) n F(r(x))^(n-1), n = candidates and F the base's distribution of rewards:
    not the tilt, for any n; its KL to the base is at most log n - (n - 1) / n (arXiv 2401.01879).
    Values only, `candidates` a draw, all paid in training; no weights.  A step fills groups for
    about 2,048 values, on a GPU for more (`at_once`).  Training ends where the budget pays for
    no further draw or `keep` draws are held.
    """

    name: ClassVar[str] = "best_of_n"
    consistent: ClassVar[bool] = False
    reference: Linear = Brownian()
    candidates: int = 16
    keep: int = 20_000

    def __post_init__(self) -> None:
        for field in ("candidates", "keep"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} is {getattr(self, field)}; it must be 1 or more")

    def init(self, problem: Problem, budget: Cost, generator: Generator) -> Pool:
        if budget.values < self.candidates:
            raise Unsupported(
                f"a budget of {budget.values} values does not pay for one draw of "
                f"{self.candidates} candidates: lower candidates"
            )
        return Pool((), (), budget.values)

    def step(self, problem: Problem, state: Pool, generator: Generator) -> Pool:
        n = self.candidates
        most = at_once(CHUNK, problem.dim, generator.device)
        groups = min(max(most // n, 1), state.left // n, self.keep - state.size)
        x, r = bought(problem, groups * n, generator)
        best = r.reshape(groups, n).argmax(1)
        rows = torch.arange(groups, device=x.device) * n + best
        return Pool((*state.x, x[rows]), (*state.r, r[rows]), state.left - groups * n)

    def done(self, state: Pool) -> bool:
        return state.left < self.candidates or state.size >= self.keep

    def draw(self, problem: Problem, state: Pool, n: int, generator: Generator) -> Draws:
        """The first n, which are independent."""
        if not state.x:
            raise Unsupported("nothing has been drawn yet: the budget paid for no step")
        return Draws(torch.cat(state.x)[:n])

    def tensors(self, state: Pool) -> dict[str, Tensor]:
        return {"x": torch.cat(state.x), "r": torch.cat(state.r)} if state.x else {}
