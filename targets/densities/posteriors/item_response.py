"""Item response: 400 students and 100 questions in ten overlapping booklets, 501 parameters."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tiltbench.targets.constrained.parameters import Parameter, Table, Theta
from tiltbench.targets.densities.posteriors._laws import normal
from tiltbench.targets.densities.posteriors._observed import Data, Observed, stored


@dataclass(frozen=True)
class ItemResponse(Observed):
    """A student i of booklet k solves question j = 10 k + 1, ..., 10 k + 20 (after 100 comes 1)
    with log-odds mean + ability_i - difficulty_j; mean ~ N(3/4, 1), abilities and difficulties ~
    N(0, 1).  8,000 answers drawn from it (data/make_posteriors.py): the 1PL model of Inference Gym,
    with a design by booklets."""

    name = "item_response"
    test_value = -6492.550783169835

    def data(self) -> Data:
        right = stored("item_response")  # (booklets, students, questions of the booklet)
        first, second = right.sum(1).split(10, -1)
        return {"score": right.sum(-1).flatten(), "solved": (first + second.roll(1, 0)).flatten()}

    def table(self, data: Data) -> Table:
        sizes = {"ability": len(data["score"]), "difficulty": len(data["solved"])}
        return (Parameter("mean"), *(Parameter(name, size=n) for name, n in sizes.items()))

    def log_density(self, theta: Theta, data: Data) -> Tensor:
        mean, ability, difficulty = theta["mean"], theta["ability"], theta["difficulty"]
        each = difficulty.unflatten(-1, (10, 10))
        asked = torch.cat([each, each.roll(-1, -2)], -1)[..., None, :]
        odds = (mean[..., None] + ability).unflatten(-1, (10, 40))[..., None] - asked
        right = mean * data["score"].sum() + ability @ data["score"] - difficulty @ data["solved"]
        seen = right - torch.nn.functional.softplus(odds, threshold=40).sum((-1, -2, -3))
        prior = normal(mean, 0.75, 1) + normal(ability, 0, 1).sum(-1)
        return seen + prior + normal(difficulty, 0, 1).sum(-1)
