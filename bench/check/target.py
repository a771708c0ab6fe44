"""The contract of a target: what it states, and its log rho or reward as a function."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import torch
from torch import Generator, Tensor

from tiltbench.check import base as check_base
from tiltbench.check import truth as check_truth
from tiltbench.check import unknown as check_unknown
from tiltbench.check.device import devices
from tiltbench.check.findings import Finding, expect, is_frozen, until_broken
from tiltbench.check.symmetries import Function, symmetries
from tiltbench.plan.spec import build_target, spec
from tiltbench.targets.problem import misfit
from tiltbench.targets.target import Density, Target, test_point


def check(target: Target) -> list[Finding]:
    """In order: statement, base, function, truth, draws; nothing after the first that is broken."""
    f = target.log_rho if isinstance(target, Density) else target.reward  # type: ignore[attr-defined]
    called = "log_rho" if isinstance(target, Density) else "reward"
    return until_broken(
        [
            ("reading the fields", partial(_statement, target)),
            ("the base", partial(check_base.paths, target)),
            (called, partial(_shapes, target, f, called)),
            (called, partial(_values, target, f, called)),
            (called, partial(devices, target, f, called)),
            (f"the gradient of {called}", partial(_gradients, target, f, called)),
            (f"the symmetries of {called}", partial(_symmetric, target, f, called)),
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


def _points(target: Target, *shape: int, spread: float = 1.0) -> Tensor:
    g = Generator().manual_seed(7)
    x = torch.randn(*shape, target.dim, generator=g, dtype=torch.float64)
    return spread * target.scale * x


def _shapes(target: Target, f: Function, called: str) -> Iterator[Finding]:
    d = target.dim
    for shape in ((5,), (2, 3), ()):
        y = f(_points(target, *shape))
        yield expect(
            y.shape == shape,
            f"{called} maps {(*shape, d)} to {shape}",
            f"{called} at x of shape {(*shape, d)} has shape {tuple(y.shape)}, not {shape}",
            "return one number a point: sum over the last dimension, without keepdim",
        )
    for dtype in (torch.float32, torch.float64):
        y = f(_points(target, 4).to(dtype))
        yield expect(
            y.dtype == dtype,
            f"{called} keeps {dtype}",
            f"{called} at x of {dtype} is {y.dtype}",
            "make constants with the dtype and device of x (x.new_tensor, .to(x))",
        )
    x = _points(target, 6)
    one = torch.stack([f(row) for row in x])
    yield expect(
        torch.allclose(f(x), one, rtol=1e-6, atol=1e-6),
        f"{called} of a batch is that of its points",
        f"{called} of a batch differs from {called} of its points one by one",
        "let no point see the others: reduce over the last dimension only",
    )


def _values(target: Target, f: Function, called: str) -> Iterator[Finding]:
    x = torch.cat([_points(target, 500), _points(target, 500, spread=10), _points(target, 1) * 0])
    for points in (x, x.float()):
        y = f(points)
        bad = ~(y < math.inf)
        where = ", ".join(f"{v:.4g}" for v in points[bad][0][:6].tolist()) if bad.any() else ""
        yield expect(
            not bad.any(),
            f"{called} is finite or -inf up to 10 scales out, in {points.dtype}",
            f"{called} is NaN or +inf at {int(bad.sum())} of {len(y)} points, "
            f"first at x = ({where}), in {points.dtype}",
            "write it in logarithms (logsumexp, logaddexp, softplus); zero density is -inf",
        )
    empty = float((f(x) == -math.inf).double().mean())
    if empty:
        yield Finding(True, f"{called} is -inf at {empty:.0%} of the points tried")
    yield expect(
        torch.equal(f(x), f(x)),
        f"{called} is the same function twice",
        f"{called} gives other values the second time",
        "leave randomness and state out of it",
    )
    if target.test_value is not None:
        value = float(f(test_point(target)))
        by_default = target == type(target)()
        yield expect(
            not by_default or abs(value - target.test_value) < 1e-9 * max(1, abs(value)),
            "has its test_value at the test point",
            f"{called} at the test point is {value:.12g}, test_value says {target.test_value:.12g}",
            "if a constant was meant to change, raise `version` and state the new value",
        )


def _symmetric(target: Target, f: Function, called: str) -> Iterator[Finding]:
    yield from symmetries(target, f, called, _points(target, 200))


def _gradients(target: Target, f: Function, called: str) -> Iterator[Finding]:
    x, v = _points(target, 40, spread=0.7), _points(target, 40).flip(0)
    v, h = v / v.norm(dim=-1, keepdim=True), 1e-5 * target.scale
    ahead, behind = f(x + h * v), f(x - h * v)
    inside = (ahead.isfinite() & behind.isfinite() & f(x).isfinite()).detach()
    if not inside.any():
        yield Finding(True, f"the gradient of {called} was not checked: no point tried has density")
        return
    g = check_truth.gradient(f, x)[inside]
    yield expect(
        bool(g.isfinite().all()),
        f"the gradient of {called} is finite",
        f"the gradient of {called} is not finite at {int((~g.isfinite().all(-1)).sum())} points "
        "of finite value",
        "avoid sqrt, norm or log at zero, and where() around an infinite branch",
    )
    slope = ((ahead - behind) / (2 * h))[inside]
    along = (g * v[inside]).sum(-1)
    worst = float(((along - slope).abs() / slope.abs().clamp(min=1 / target.scale)).max())
    yield expect(
        worst < 1e-3,
        f"the gradient of {called} is that of finite differences",
        f"the gradient of {called} is off finite differences by {worst:.2g} of itself",
        "let autograd see all of it: no detach, no .data, no rounding, no numpy",
    )
