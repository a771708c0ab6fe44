"""The unit of account: evaluations of the reward (or log rho) and of its gradient, at points."""

from __future__ import annotations

from typing import NamedTuple


class BudgetExceeded(Exception):
    """The next evaluation would spend more than is allowed; it was not made."""


class Cost(NamedTuple):
    """Points, not function calls: one value at one x, one gradient at one x (protocol.md 1)."""

    values: int = 0
    grads: int = 0

    def plus(self, other: Cost) -> Cost:
        return Cost(self.values + other.values, self.grads + other.grads)

    def minus(self, other: Cost) -> Cost:
        return Cost(self.values - other.values, self.grads - other.grads)

    def times(self, n: int) -> Cost:
        return Cost(self.values * n, self.grads * n)

    def covers(self, other: Cost) -> bool:
        return self.values >= other.values and self.grads >= other.grads

    def share(self, budget: Cost) -> float:
        """The larger of the two fractions spent, in [0, inf)."""
        return max(
            self.values / max(budget.values, 1),
            self.grads / max(budget.grads, 1),
        )

    @property
    def calls(self) -> int:
        """The headline figure: a gradient comes with its value."""
        return max(self.values, self.grads)
