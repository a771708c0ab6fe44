"""Targets made for a certified reference, their truth: stored draws and what long chains found."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.targets.target import Density
from tiltbench.targets.truths.certified import described, of_another, reference_truth
from tiltbench.targets.truths.facts import Modes, Truth
from tiltbench.targets.truths.stored import Stored, read

Statistic = Callable[[Tensor], Tensor]  # (B, D) -> (B,)


class Basins(NamedTuple):
    """A partition of R^D: (B, D) -> (B,) index below `number`."""

    number: int
    assign: Callable[[Tensor], Tensor]
    share: tuple[float, ...] | None = None  # exact masses, where a symmetry decides them


class Referenced(Density):
    """A density known through `tiltbench reference NAME`, which stores <name>_reference.npz (`x`,
    float32 rows) and .json (facts, diagnostics, provenance, `checksum`) in `home` once they pass
    tests.

    The facts come from all of the chains; the rows are thinned from them."""

    @abstractmethod
    def statistics(self) -> Mapping[str, Statistic]:
        """Named observables, whose means, sds and errors the reference states."""

    def basins(self) -> Basins | None:
        """What chains may fail to mix between: shares, exact or those of the chains, become
        `Modes`."""
        return None

    def moved(self, x: Float[Tensor, "n d"], generator: Generator) -> Float[Tensor, "n d"]:
        """Each row under a random symmetry of the law, which makes a finite set richer: those of
        particles, and what a target adds."""
        return self.posed(x, generator)

    def truth(self) -> Truth:
        """From the stored reference of these parameters and this version; "unknown" without."""
        stored = self.stored()
        if stored is None:
            return Truth("unknown: no reference; `tiltbench reference` makes one")
        if not self.is_described(stored):
            return Truth(of_another(self, stored))
        basins, modes = self.basins(), None
        if basins is not None:
            shares = basins.share or [basin["share"] for basin in stored.facts["basins"]]
            modes = Modes(torch.tensor(shares, dtype=torch.float64), basins.assign)
        return reference_truth(self, stored, self.moved)._replace(modes=modes)

    def stored(self) -> Stored | None:
        """What lies in `home`, whatever its parameters; None where nothing does.

        Raises ValueError where it is damaged, altered or not certified."""
        return read(self.home, self.name)

    def is_described(self, stored: Stored) -> bool:
        """Whether a reference is of these parameters and this version."""
        return described(self, stored)


def needs_reference(target: Density) -> bool:
    """Whether a certified reference becomes the target's truth: it is made for one, or its class
    itself knows nothing."""
    return isinstance(target, Referenced) or stated(target).unknown


def stated(target: Density) -> Truth:
    """What the target's class says, whether or not a reference lies beside its file."""
    undecorated = getattr(type(target).truth, "__wrapped__", None)
    truth: Truth = undecorated(target) if undecorated is not None else target.truth()
    return truth
