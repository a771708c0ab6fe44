"""Fifty-five Lennard-Jones particles."""

from __future__ import annotations

from dataclasses import dataclass

from tiltbench.targets.densities._lennard_jones import LennardJones


@dataclass(frozen=True)
class Lj55(LennardJones):
    """55 particles: log rho = -sum_{i != j} (r_ij^-12 - 2 r_ij^-6) - sum_i |x_i - c|^2 / 2."""

    name = "lj55"
    particles = (55, 3)
    dim = 165
    scale = 1.0
    test_value = -3.22850590278494e15
