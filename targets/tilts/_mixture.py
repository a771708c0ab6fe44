"""The truth of a tilt that turns one Gaussian mixture into another (math.md 8)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tiltbench.targets.bases.components import Components
from tiltbench.targets.target import Modes, Observable, Truth


def mixture_truth(
    law: Components,
    log_Z: float,
    modes: Modes,
    log_Z_along: Callable[[float, float, float], float],
    **observables: Observable,
) -> Truth:
    """All that is known of p* = `law`; `observables` beside the first two powers of the first two
    coordinates."""
    for i in range(2):
        first, second, fourth = (_moment(law, i, order) for order in (1, 2, 4))
        observables[f"mean_{i}"] = _power(i, 1, first, second)
        observables[f"square_{i}"] = _power(i, 2, second, fourth)

    def noised_score(
        x: Float[Tensor, "*b d"], signal: Tensor | float, noise: Tensor | float
    ) -> Float[Tensor, "*b d"]:
        levels = (torch.as_tensor(v, dtype=x.dtype, device=x.device) for v in (signal, noise))
        return law.score(x, *(v[..., None] for v in levels))

    return Truth(
        "closed form",
        log_Z=log_Z,
        sample=law.sample,
        modes=modes,
        observables=observables,
        noised_score=noised_score,
        log_Z_along=log_Z_along,
    )


def rms(law: Components) -> float:
    """sqrt(E |X|^2 / d), rounded to two digits: the public scale."""
    return float(f"{math.sqrt(law.mean_square()):.2g}")


def _moment(law: Components, i: int, order: int) -> float:
    """E X_i^order, order 1, 2 or 4."""
    m, v = law.mean[:, i], law.var
    of_component = {1: m, 2: m**2 + v, 4: m**4 + 6 * m**2 * v + 3 * v**2}[order]
    return float((law.weight * of_component).sum())


def _power(i: int, order: int, mean: float, square: float) -> Observable:
    return Observable(lambda x: x[:, i] ** order, mean, math.sqrt(square - mean**2))


def share(modes: Modes, cells: Bool[Tensor, " m"]) -> Observable:
    """The mass of the cells chosen."""
    mass = float(modes.weight[cells].sum())

    def inside(x: Tensor) -> Tensor:
        return cells.to(x.device)[modes.assign(x)].to(x.dtype)

    return Observable(inside, mass, math.sqrt(mass * (1 - mass)))
