"""Free energies along torsion angles."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.metric import Metric, Outcome
from tiltbench.metrics._pairs import both
from tiltbench.metrics._torsions import angles, bin_of
from tiltbench.samplers.weights import Estimate
from tiltbench.targets.target import Target, Truth

BINS = 36  # of 10 degrees
SEEN = 5  # exact draws in a bin, below which its free energy is not compared
PSEUDO = 0.5  # of a draw, added to every bin


def _free_energy(target: Target, truth: Truth, outcome: Outcome, generator: Generator) -> Estimate:
    """rms of F - F' over bins, in units of k T, the largest of all torsions.

    F_k = -log(n_k + 1/2), n_k the draws in bin k of 36, F' that of as many exact draws; over the
    bins that hold 5 exact ones, both less their mean there.  Rare bins count as much as common
    ones.  Its error is not known from one pair of sets: nan; the floor's sd is the guide."""
    x, y = both(truth, outcome, generator)
    pairs = zip(angles(target, x).T, angles(target, y).T, strict=True)
    return Estimate(max(rms(a, b) for a, b in pairs), math.nan, len(x))


def rms(a: Float[Tensor, " n"], b: Float[Tensor, " m"]) -> float:
    """Of angles and exact ones; 0 where one bin holds all that are compared."""
    counts = [torch.bincount(bin_of(x, BINS), minlength=BINS) for x in (a, b)]
    seen = counts[1] >= min(SEEN, int(counts[1].max()))
    difference = (counts[1][seen] + PSEUDO).log() - (counts[0][seen] + PSEUDO).log()
    return float((difference - difference.mean()).square().mean().sqrt())


free_energy_err = Metric(
    "free_energy_err", frozenset({"sample", "torsions"}), "lower", "1", "floor", _free_energy
)
"""rms error of the free energy along a torsion angle, in k T, the worst torsion"""
