"""Controlled Monte Carlo diffusions (arXiv 2307.01050), classical and tilted (math.md 5.3, 6).

An escorted chain weighed by kernel ratios.  On a density the base is static and the weights are
exact at any number of steps; on a pretrained base they are exact as dt -> 0.
"""

from __future__ import annotations

from tiltbench.samplers.diffusion import Diffusion, Preset
from tiltbench.samplers.losses.log_variance import log_variance
from tiltbench.samplers.losses.relative_entropy import relative_entropy
from tiltbench.samplers.recipes.escorted import Escorted
from tiltbench.targets.bases.references import Stationary

cmcd_kl = Preset(
    "cmcd_kl",
    Diffusion(relative_entropy, reference=Stationary(), recipe=Escorted(), lr=5e-3),
)
"""CMCD by KL: -E[A], differentiated through the path and grad r."""

cmcd_lv = Preset(
    "cmcd_lv",
    Diffusion(
        log_variance,
        reference=Stationary(),
        recipe=Escorted(),
        paths=256,
        repeats=4,
        memory=4,
        lr=5e-3,
    ),
)
"""CMCD by log-variance: Var A over paths of the present escort, detached."""
