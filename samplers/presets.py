"""Classical names for special cases."""

from __future__ import annotations

from tiltbench.samplers.diffusion import Diffusion, Preset
from tiltbench.samplers.losses.relative_entropy import relative_entropy
from tiltbench.targets.bases.references import Stationary

pis = Preset("pis", Diffusion(relative_entropy))
"""Path integral sampler (arXiv 2111.15141): relative entropy on the Brownian base."""

dds = Preset("dds", Diffusion(relative_entropy, reference=Stationary()))
"""Denoising diffusion sampler (arXiv 2302.13834): relative entropy on the stationary base."""
