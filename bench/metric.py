"""What a metric is: one number with its error, from a run's output and its target's truth."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from torch import Generator, Tensor

from tiltbench.samplers.sampler import Draws
from tiltbench.samplers.weights import Estimate
from tiltbench.targets.target import Density, Target, Tilt, Truth

# What a metric may need: "sample" (exact draws), "log_Z", "modes", "observables" of the truth;
# "log_w", "reverse" (log_w_reverse), "own_log_Z", "chains" (groups of states in the order of time)
# of the outcome; "probe.NAME"; of the target, what KINDS lists.
Needs = frozenset[str]


class Metric(NamedTuple):
    """A file in bench/metrics offers `name = Metric("name", ...)`.

    `perfect` is what an exact sampler scores: "0", "1", "floor" (a finite-sample value measured
    between two exact sets) or "" (reported, not ranked).  `fn` may assume that `needs` are met;
    it works in float64 and draws its randomness from the generator only.
    """

    name: str
    needs: Needs
    better: Literal["lower", "higher"]
    unit: str  # "nats", "length", "length^2", "1"
    perfect: str
    fn: Callable[[Target, Truth, Outcome, Generator], Estimate]
    widest: float = math.inf  # a value whose standard error is larger is shown as a dash


KINDS = {
    "density": "the target is a tilt, whose density is not known",
    "tilt": "the target is a density: it has no base model and no reward of its own",
    "particles": "the target has no particles",
    "lattice": "the target is not a lattice",
    "torsions": "the target has no torsions",
    "unknown_law": "exact draws of the target are known: draws are compared with them instead",
    "unknown_log_Z": "log Z of the target is known: errors of its estimates are scored instead",
}  # why a metric made for one kind of target has no number on another


def of_kind(need: str, target: Target, truth: Truth) -> bool:
    """Whether the target, of which `truth` is known, is of the kind that a metric asks for."""
    if need == "unknown_law":
        return truth.sample is None
    if need == "unknown_log_Z":
        return truth.log_Z is None
    if need == "density":
        return isinstance(target, Density)
    if need == "tilt":
        return isinstance(target, Tilt)
    if need == "torsions":
        return bool(target.torsions())
    return (target.particles if need == "particles" else target.lattice) is not None


NOISED = "noised"  # the probe of runs whose reverse paths are not those of the base's own chain


class Unknown(Exception):
    """The number cannot be had from this outcome; the sentence says why and stands in the table."""


class Outcome(NamedTuple):
    """A run's output as the metrics see it: everything was read from disk, on the CPU."""

    draws: Draws
    log_w_reverse: Tensor | None  # log_w of reverse paths from exact draws of the target
    probes: Mapping[str, Tensor]  # what `Sampler.probe` returned

    def copy(self) -> Outcome:
        """For a metric of somebody else's, which may change what it is given."""
        back, draws = self.log_w_reverse, self.draws
        return Outcome(
            draws._replace(
                x=draws.x.clone(),
                log_w=None if draws.log_w is None else draws.log_w.clone(),
                group=None if draws.group is None else draws.group.clone(),
            ),
            None if back is None else back.clone(),
            {key: value.clone() for key, value in self.probes.items()},
        )
