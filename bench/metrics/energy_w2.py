"""Transport between the energies of draws and of exact draws."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.metric import Metric, Outcome, Unknown
from tiltbench.metrics._line import w2
from tiltbench.metrics._pairs import both
from tiltbench.samplers.weights import Estimate
from tiltbench.targets.target import Target, Truth


def _energy_w2(target: Target, truth: Truth, outcome: Outcome, generator: Generator) -> Estimate:
    """sqrt of the least mean squared difference of -log rho over couplings, in nats; log Z cancels.

    One number a draw: two laws of one law of energies score as equal.  Raises Unknown where draws
    have zero density, hence infinite energy.  Its error is not known from one pair of sets: nan;
    the floor's sd is the guide."""
    x, y = both(truth, outcome, generator)
    return Estimate(w2(_energies(target, x), _energies(target, y)), math.nan, len(x))


def _energies(target: Target, x: Float[Tensor, "n D"]) -> Float[Tensor, " n"]:
    with torch.no_grad():
        log_rho = target.log_rho(x).double().cpu()  # type: ignore[attr-defined]  # by its needs
    bad = int((~(log_rho < torch.inf)).sum())
    if bad:
        raise Unknown(f"log rho is NaN or +inf at {bad} of {len(x)} draws")
    lost = int((log_rho == -torch.inf).sum())
    if lost:
        raise Unknown(f"{lost} of {len(x)} draws have zero density: their energy is infinite")
    return -log_rho


energy_w2 = Metric(
    "energy_w2", frozenset({"sample", "density"}), "lower", "nats", "floor", _energy_w2
)
"""2-Wasserstein distance between the energies -log rho of draws and of exact draws"""
