"""Whether the unconstrained density of a posterior is the constrained one times |d theta / d x|."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from tiltbench.check.findings import Finding, expect
from tiltbench.check.function import points
from tiltbench.targets.constrained.parameters import Parameter, constrain
from tiltbench.targets.constrained.posterior import Posterior
from tiltbench.targets.target import Target

POINTS = 20
ROUNDING = 1e-6  # nats, and relative to the values


def jacobian(target: Target) -> Iterator[Finding]:
    """log rho against log_joint(theta(x)) + log |det d theta / d x|, the latter by autograd of the
    table's transforms.  Nothing where the target is no `Posterior`."""
    if not isinstance(target, Posterior):
        return
    x = points(target, POINTS, spread=0.7)
    constrained = constrain(target.parameters, x)
    slopes: dict[str, Tensor] = {}
    start = 0
    for parameter in target.parameters:
        part = x[:, start : start + parameter.free]
        start += parameter.free
        slopes[parameter.name] = _by_autograd(parameter, part)
        off = float(
            (slopes[parameter.name] - constrain((parameter,), part).log_jacobian).abs().max()
        )
        if not off < ROUNDING:
            yield Finding(
                False,
                f"the log-Jacobian that the transform {parameter.transform.name} of "
                f"{parameter.name} states is off autograd's by {off:.2g} nats",
                "let `forward` return log |det d theta / d u| as its second value",
            )
    value = target.log_joint(constrained.theta)
    gap = (target.log_rho(x) - value).detach()
    fine = constrained.inside & value.isfinite() & gap.isfinite()
    gap = gap[fine]
    slopes = {name: slope[fine].detach() for name, slope in slopes.items()}
    rounding = ROUNDING * (1 + value[fine].detach().abs())
    yield expect(
        _alike(gap, sum(slopes.values(), torch.zeros_like(gap)), rounding),
        "log_rho is log_joint and the log-Jacobian of its parameters",
        _mistake(gap, slopes, rounding),
        "leave `log_rho` out, which adds log |det d theta / d x| by itself, or add it there",
    )


def _by_autograd(parameter: Parameter, x: Tensor) -> Tensor:
    """(n): log |det d theta / d x| of one parameter."""

    def theta(x: Tensor) -> Tensor:
        value = constrain((parameter,), x).theta[parameter.name]
        return (value if parameter.size else value[None])[: parameter.free]

    slope: Tensor = torch.linalg.slogdet(torch.func.vmap(torch.func.jacrev(theta))(x)).logabsdet
    return slope


def _mistake(gap: Tensor, slopes: dict[str, Tensor], rounding: Tensor) -> str:
    """What log_rho - log_joint is in the place of the log-Jacobian."""
    whole = sum(slopes.values(), torch.zeros_like(gap))
    if _alike(gap, torch.zeros_like(gap), rounding):
        return "log_rho is log_joint without a Jacobian: it is no density of x"
    if _alike(gap, -whole, rounding):
        return "log_rho has minus the log-Jacobian of its parameters"
    for name, slope in slopes.items():
        if _alike(gap, whole - slope, rounding):
            return f"log_rho lacks the log-Jacobian of {name}"
        if _alike(gap, whole - 2 * slope, rounding):
            return f"log_rho has minus the log-Jacobian of {name}"
    off = gap - whole
    if _alike(off, off.mean().expand_as(off), rounding):
        return (
            f"log_rho and log_joint with its log-Jacobian differ by the constant "
            f"{float(off.mean()):.6g}, so that they have two log Z"
        )
    return (
        f"log_rho is off log_joint and the log-Jacobian of its parameters by "
        f"{float(off.abs().max()):.2g} nats"
    )


def _alike(a: Tensor, b: Tensor, rounding: Tensor) -> bool:
    return bool(((a - b).abs() <= rounding).all())
