"""A ring of points with their rewards, on the device, and how points are chosen from it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from tiltbench.targets.bases.noising import Known
from tiltbench.targets.problem import Problem


@dataclass
class Buffer:
    """The last `capacity` points that were written, all of it allocated at once.

    `order` and `ladder` are the ranks of the points that were there when the buffer was last
    ranked: the points' places from the best to the worst, and the sums of their chances."""

    x: Float[Tensor, "c d"]
    r: Float[Tensor, " c"]  # float64; -inf: no density here
    written: int  # points in all, of which the last are kept
    order: Int[Tensor, " m"]
    ladder: Float[Tensor, " m"]
    ranked: int  # `written` when it was

    @property
    def filled(self) -> int:
        return min(self.written, len(self.r))

    def write(self, x: Float[Tensor, "n d"], r: Float[Tensor, " n"]) -> None:
        """Over the oldest; of more than `capacity` points the last are kept."""
        capacity = len(self.r)
        x, r = x[-capacity:], r[-capacity:]
        places = (torch.arange(len(r), device=r.device) + self.written) % capacity
        self.x.index_copy_(0, places, x.to(self.x))
        self.r.index_copy_(0, places, r.to(self.r))
        self.written += len(r)

    def at(self, places: Int[Tensor, " n"]) -> tuple[Float[Tensor, "n d"], Float[Tensor, " n"]]:
        return self.x[places], self.r[places]


def empty(capacity: int, dim: int, device: torch.device) -> Buffer:
    r = torch.zeros(capacity, dtype=torch.float64, device=device)
    nowhere = torch.zeros(0, dtype=torch.long, device=device)
    return Buffer(torch.zeros(capacity, dim, device=device), r, 0, nowhere, r[:0].clone(), 0)


def evenly(buffer: Buffer, n: int, generator: Generator) -> Int[Tensor, " n"]:
    """n places of the buffer, each as likely as any other."""
    return torch.randint(buffer.filled, (n,), generator=generator, device=buffer.r.device)


def by_rank(
    problem: Problem, buffer: Buffer, w0: float, n: int, generator: Generator
) -> Int[Tensor, " n"]:
    """n places of the buffer, that of rank i with probability in proportion to 1 / (w0 N + i),
    i = 0 being the point of the greatest density among N (arXiv 2006.09191, 2402.05098).

    Sorting is dear, so that ranks are renewed when AGED of the points are new to them; between
    renewals a place has the rank of the point that was there."""
    if buffer.written - buffer.ranked > AGED * buffer.filled or not len(buffer.order):
        _rank(problem, buffer, w0)
    at = torch.rand(n, generator=generator, device=buffer.r.device, dtype=torch.float64)
    rank = torch.searchsorted(buffer.ladder, at * buffer.ladder[-1])
    return buffer.order[rank.clamp_(max=len(buffer.order) - 1)]


AGED = 1 / 16


def _rank(problem: Problem, buffer: Buffer, w0: float) -> None:
    """By the target's density, r + log p_base up to a constant."""
    assert isinstance(problem.base, Known)
    n = buffer.filled
    height = buffer.r[:n] + problem.base.log_end(buffer.x[:n]).double()
    buffer.order = height.argsort(descending=True)
    i = torch.arange(n, device=height.device, dtype=torch.float64)
    buffer.ladder = (1 / (w0 * n + i)).cumsum(0)
    buffer.ranked = buffer.written
