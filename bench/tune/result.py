"""The result of the search of one method."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from tiltbench.plan.suite import Choice

if TYPE_CHECKING:
    from tiltbench.tune.trials import TrialScore


class SearchResult(NamedTuple):
    """The search of one method: ranks, params and totals by trial, scores by target and trial."""

    sampler: Choice
    params: list[dict[str, Any]]
    scores: dict[str, list[TrialScore]]
    ranks: list[float] | None
    calls: int

    @property
    def best(self) -> int:
        """The first of the smallest mean rank: the method as it was, where it is as good."""
        assert self.ranks is not None
        return self.ranks.index(min(self.ranks))

    @property
    def judged(self) -> list[str]:
        """The targets on which there is something to choose by."""
        return [t for t, row in self.scores.items() if max(s.better for s in row) > -float("inf")]
