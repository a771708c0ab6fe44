"""Classical names for special cases."""

from __future__ import annotations

from tiltbench.samplers.behaviour.exploration import Wider
from tiltbench.samplers.behaviour.local_search import Langevin
from tiltbench.samplers.behaviour.replay import Ranked
from tiltbench.samplers.diffusion import Diffusion, Preset
from tiltbench.samplers.losses.relative_entropy import relative_entropy
from tiltbench.samplers.losses.trajectory_balance import trajectory_balance
from tiltbench.targets.bases.references import Stationary

pis = Preset("pis", Diffusion(relative_entropy))
"""Path integral sampler (arXiv 2111.15141): relative entropy on the Brownian base."""

dds = Preset("dds", Diffusion(relative_entropy, reference=Stationary()))
"""Denoising diffusion sampler (arXiv 2302.13834): relative entropy on the stationary base."""

off_policy_trajectory_balance = Preset(
    "off_policy_trajectory_balance",
    Diffusion(trajectory_balance, explore=Wider(), replay=Ranked(search=Langevin())),
)
"""Trajectory balance with exploration, replay by rank and local search (arXiv 2402.05098).

The settings of its paper are not known to us but for those of the replay and of the search."""

relative_trajectory_balance = Preset("relative_trajectory_balance", Diffusion(trajectory_balance))
"""Relative trajectory balance of a pretrained prior (arXiv 2405.20971): trajectory balance itself,
for every loss here is relative to its base."""
