"""Every trained loss of the registry, and the parameters at which their gradients are compared.

All losses for a control have one network and are compared at one theta, trained by `TEACHER`; all
escorts at another, trained by `ESCORT_TEACHER`; what has a network, a base or a frozen stage of its
own (`apart`) is trained by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from torch import Generator

from tiltbench.samplers.diffusion import Diffusion, Preset
from tiltbench.samplers.loss import Loss
from tiltbench.samplers.networks.perceptron import Corrected, Mlp, Potential
from tiltbench.samplers.networks.valued import Valued
from tiltbench.samplers.recipes.recipe import Base
from tiltbench.samplers.registry import SAMPLERS
from tiltbench.studies.common.trained import shaken
from tiltbench.targets.bases.references import Brownian
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import pose
from tiltbench.targets.target import Target, Tilt

NAMES = tuple(SAMPLERS.entries)
TEACHER, ESCORT_TEACHER = "adjoint_matching", "cmcd_lv"
NET = Mlp(width=32, layers=3)
PATHS, LR, SIZE = 64, 5e-3, 0.3
FITTED = 60  # updates of F alone
PLENTY, FREE = Cost(10**9, 10**9), Cost()
SCORE, ADJOINT, PATH_SPACE, ESCORT = FAMILIES = (
    "score matching",
    "adjoint",
    "path space",
    "escorts",
)
FUNCTIONALS = {
    "relative_entropy",
    "log_variance",
    "trust_region_log_variance",
    "trust_region_cross_entropy",
    "trajectory_balance",
    "subtrajectory_balance",
    "detailed_balance",
    "reinforce",
    "dpok",
    "ddpo",
    "ddpo_published",
    "flow_grpo",
    "flow_grpo_published",
    "diffusion_dpo",
}


class Case(NamedTuple):
    name: str
    family: str
    sampler: Diffusion


def cases(steps: int) -> Iterator[Case]:
    """Every registered loss or preset that trains a Diffusion, on a grid of `steps` steps; a preset
    that is a loss under another name is left out."""
    seen: list[Diffusion] = []
    for name in NAMES:
        method = SAMPLERS.load(name)
        if isinstance(method, Loss):
            sampler = Diffusion(method)
        elif isinstance(method, Preset):
            sampler = method.sampler
        else:
            continue
        if sampler in seen:
            continue
        seen.append(sampler)
        yield Case(name, _family(name, sampler), _shrunk(sampler, steps))


def _family(name: str, sampler: Diffusion) -> str:
    if sampler.recipe != Base():
        return ESCORT
    if sampler.loss.name in FUNCTIONALS:
        return PATH_SPACE
    return ADJOINT if name.startswith("adjoint") else SCORE


def _shrunk(sampler: Diffusion, steps: int) -> Diffusion:
    model: Any = NET
    if isinstance(sampler.model, Potential):
        model = Potential(NET.width, NET.layers)
    if isinstance(sampler.model, Corrected):
        model = Corrected(NET.width, NET.layers, control=NET)
    if isinstance(sampler.model, Valued):
        model = Valued(NET.width, NET.layers, control=NET)
    reference: Any = replace(sampler.reference, steps=steps)  # type: ignore[type-var]
    return replace(sampler, reference=reference, model=model, lr=LR, paths=PATHS)


def serves(case: Case, target: Target) -> bool:
    """Whether the method exists there and is another one than its name says elsewhere.

    A tilt brings its own base: a preset that differs by its reference only is the loss itself, and
    losses on bridges need a Gaussian base."""
    if not isinstance(target, Tilt):
        return True
    return case.name not in {"dds", "adjoint_sampling", "adjoint_schroedinger_bridge"}


def apart(case: Case) -> bool:
    """Whether the method cannot be compared at the theta of the others."""
    another_base = case.family != ESCORT and not isinstance(case.sampler.reference, Brownian)
    return another_base or case.sampler.model != NET or case.sampler.loss.staged


def teacher(case: Case) -> str:
    """The method at whose theta this one is measured."""
    if apart(case):
        return case.name
    return ESCORT_TEACHER if case.family == ESCORT else TEACHER


def paths_for(case: Case, calls: int) -> int:
    """Paths of a batch that `calls` energy calls pay for, and no fewer than two."""
    return max(2, calls // price(case))


def price(case: Case) -> int:
    """Calls a path."""
    sampler = case.sampler
    steps = len(sampler.reference.times) - 1
    return sampler.recipe.price(sampler.loss, 1, steps, False).calls


def started(case: Case, target: Target, device: str) -> Any:
    """The untrained state, u = 0; the same seed for all, so that equal networks are equal."""
    problem = pose(target, case.sampler.reference)
    return case.sampler.init(problem, PLENTY, Generator(device).manual_seed(1))


def begun(case: Case, target: Target, device: str) -> Any:
    """The state with a small random control.  A staged loss has u = 0 as its frozen stage."""
    state = started(case, target, device)
    if case.sampler.loss.staged:  # the first batch keeps it
        problem, source = pose(target, case.sampler.reference), Generator(device).manual_seed(2)
        case.sampler.batch(problem, state.model, 0.0, source)
    return shaken(state, SIZE)


def halfway(case: Case, target: Target, updates: int, device: str) -> Any:
    """The state after `updates` steps of Adam, the half of a training, from u = 0."""
    return _run(case, target, 2, updates, device)


def finished(case: Case, target: Target, updates: int, device: str) -> Any:
    """The state after a training of `updates` steps, the learning rate down to zero."""
    return _run(case, target, 1, updates, device)


def lent(case: Case, target: Target, teacher: Any, device: str) -> Any:
    """A state with the parameters of another."""
    state = started(case, target, device)
    state.model.load_state_dict(teacher.model.state_dict())
    return state


def _run(case: Case, target: Target, parts: int, updates: int, device: str) -> Any:
    simulations = max(1, round(updates / case.sampler.repeats))
    sampler = replace(case.sampler, batches=parts * simulations)
    problem, source = pose(target, sampler.reference), Generator(device).manual_seed(2)
    state = started(case, target, device)
    for _ in range(simulations):
        state = sampler.step(problem, state, source)
    return state


def settled(case: Case, target: Target, state: Any, device: str) -> Any:
    """The state with log Z and F(t) fitted at this theta, by the method's own steps with a learning
    rate of nothing for the control."""
    if not case.sampler.loss.learns_log_Z:
        return state
    simulations = max(1, FITTED // case.sampler.repeats)
    sampler = replace(case.sampler, lr=1e-30, batches=simulations)
    problem, source = pose(target, sampler.reference), Generator(device).manual_seed(3)
    fresh = lent(case, target, state, device)
    for _ in range(simulations):
        fresh = sampler.step(problem, fresh, source)
    return fresh
