"""The training runs that are timed, replayed as a graph, packed and enlarged."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Generator

from tiltbench.plan.spec import build_sampler, build_target, parse
from tiltbench.run.meter import Meter
from tiltbench.samplers.diffusion import Diffusion
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem, pose

PLENTY = Cost(10**12, 10**12)
CASES = {  # label: (target, sampler)
    "log_variance, gmm9, 128 x 32": ("gmm9", "log_variance"),
    "log_variance, gmm9, 512 x 100": (
        "gmm9",
        "log_variance[paths=512,reference=Brownian[steps=100]]",
    ),
    "log_variance, guided, gmm9, 128 x 32": ("gmm9", "log_variance[model=Guided]"),
    "trajectory_balance, gmm9": ("gmm9", "trajectory_balance"),
    "pis, gmm9": ("gmm9", "pis"),
    "adjoint_matching, gmm9": ("gmm9", "adjoint_matching"),
    "adjoint_sampling, gmm9, 6 repeats": ("gmm9", "adjoint_sampling[repeats=6,memory=20]"),
    "cmcd_lv, gmm9": ("gmm9", "cmcd_lv"),
    "nets_pinn, gmm9": ("gmm9", "nets_pinn"),
    "log_variance, dw4, Equivariant": ("dw4", "log_variance[model=Equivariant]"),
    "log_variance, tilt_linear": ("tilt_linear", "log_variance"),
    "adjoint_matching, tilt_linear": ("tilt_linear", "adjoint_matching"),
    "adjoint_matching, digits_even": ("digits_even", "adjoint_matching"),
    "conditional_score_matching, gmm9": ("gmm9", "conditional_score_matching"),
    "trust_region_log_variance, gmm9": ("gmm9", "trust_region_log_variance"),
    "mala, gmm9": ("gmm9", "mala"),
    "hmc, gmm9": ("gmm9", "hmc"),
}


@dataclass
class Training:
    """A run that can be stepped: a posed problem, its meter, and the state after `init`."""

    sampler: Any
    problem: Problem
    meter: Meter
    generator: Generator
    state: Any

    def step(self) -> None:
        if not self.sampler.done(self.state):
            self.state = self.sampler.step(self.problem, self.state, self.generator)


def training(
    target_text: str, sampler_text: str, device: str, paths: int = 0, seed: int = 0
) -> Training:
    """A Diffusion has an endless budget, others one of a million points; `paths` where > 0."""
    target, sampler = build_target(parse(target_text)), build_sampler(parse(sampler_text))
    if paths and isinstance(sampler, Diffusion):
        sampler = replace(sampler, paths=paths)
    meter = Meter(PLENTY)
    problem = pose(target, sampler.reference, meter.watch)
    generator = Generator(device).manual_seed(seed)
    budget = PLENTY if isinstance(sampler, Diffusion) else Cost(10**6, 10**6)
    return Training(sampler, problem, meter, generator, sampler.init(problem, budget, generator))
