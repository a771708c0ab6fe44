"""The contract of a target: what it states, and its log rho or reward as a function."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

from tiltbench.check import base as check_base
from tiltbench.check import function as check_function
from tiltbench.check import truth as check_truth
from tiltbench.check import unknown as check_unknown
from tiltbench.check.device import devices
from tiltbench.check.findings import Finding, expect, is_frozen, until_broken
from tiltbench.check.function import points
from tiltbench.check.proper import proper
from tiltbench.check.stated.gradient import stated_gradient
from tiltbench.check.stated.jacobian import jacobian
from tiltbench.check.symmetries import Function, symmetries
from tiltbench.plan.spec import build_target, spec
from tiltbench.targets.problem import misfit
from tiltbench.targets.target import Density, Target


def check(target: Target) -> list[Finding]:
    """In order: statement, base, function, its stated gradient, truth, draws; nothing after the
    first that is broken."""
    f = target.log_rho if isinstance(target, Density) else target.reward  # type: ignore[attr-defined]
    called = "log_rho" if isinstance(target, Density) else "reward"
    return until_broken(
        [
            ("reading the fields", partial(_statement, target)),
            ("the base", partial(check_base.paths, target)),
            (called, partial(check_function.answers, target, f, called)),
            (called, partial(check_function.shapes, target, f, called)),
            (called, partial(check_function.values, target, f, called)),
            (f"the gradient of {called}", partial(check_function.gradients, target, f, called)),
            (called, partial(devices, target, f, called)),
            (f"{called}_and_grad", partial(stated_gradient, target, f, called)),
            ("the Jacobian", partial(jacobian, target)),
            (called, partial(check_function.test_value, target, f, called)),
            (f"the symmetries of {called}", partial(_symmetric, target, f, called)),
            (f"{called} far out", partial(proper, target, f, called)),
            ("truth", partial(check_truth.stated, target)),
            ("truth", partial(check_truth.against_density, target, f)),
            ("truth", partial(check_unknown.without_draws, target, f)),
            ("truth", partial(check_truth.against_gaussians, target)),
            ("truth", partial(check_truth.along, target)),
        ]
    )


def _statement(target: Target) -> Iterator[Finding]:
    yield expect(
        is_frozen(target),
        "is a frozen dataclass",
        f"{type(target).__name__} is not a frozen dataclass",
        "decorate the class with @dataclass(frozen=True)",
    )
    yield expect(
        isinstance(target.dim, int) and target.dim > 0,
        f"dim is {target.dim}",
        f"dim is {target.dim!r}, not a positive whole number",
        "write `dim = 2` or a field `dim: int = 2`",
    )
    yield expect(
        0 < target.scale < math.inf,
        f"scale is {target.scale:g}",
        f"scale is {target.scale!r}, not a positive number",
        "state the rms coordinate, sqrt(E |X|^2 / rank)",
    )
    yield expect(
        build_target(spec(target)) == target,
        "its spec builds it back",
        "the target built from its own spec is another one",
        "let the fields be numbers, strings and tuples that alone decide what the target is",
    )
    if wrong := misfit(target):
        yield Finding(False, *wrong)


def _symmetric(target: Target, f: Function, called: str) -> Iterator[Finding]:
    yield from symmetries(target, f, called, points(target, 200))
