"""Thirteen Lennard-Jones particles."""

from __future__ import annotations

from dataclasses import dataclass

from tiltbench.targets.densities._lennard_jones import LennardJones


@dataclass(frozen=True)
class Lj13(LennardJones):
    """13 particles: log rho = -sum_{i != j} (r_ij^-12 - 2 r_ij^-6) - sum_i |x_i - c|^2 / 2."""

    name = "lj13"
    particles = (13, 3)
    dim = 39
    scale = 0.71
    test_value = -407794910.84721
