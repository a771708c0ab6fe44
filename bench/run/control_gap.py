"""How far a control is from the optimal one, measured on the harness's side of the wall."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tiltbench.samplers.diffusion import Diffusion
from tiltbench.samplers.recipes.recipe import Base
from tiltbench.samplers.recipes.truncated import Truncated
from tiltbench.samplers.sampler import Sampler, Traced, Unsupported
from tiltbench.targets.bases.noising import Noising
from tiltbench.targets.bases.optimal import Optimal
from tiltbench.targets.problem import pose
from tiltbench.targets.target import Target

REMEMBERED = 0.05  # corr(X_0, X_1) from which on the closed form is not the optimum


def control_gap(
    target: Target, sampler: Sampler[Any], traced: Traced
) -> Float[Tensor, " n"] | None:
    """int |u - u*|^2 dt along reverse paths from exact draws, i.e. under P* (protocol.md 3).

    None where u* is not in closed form, or where the chain is not the base's own: an escort and its
    score share one drift, and no u* is theirs.  Raises Unsupported on a base that remembers its
    start: the closed form is the optimum of a memoryless one."""
    truth, base = target.truth(), pose(target, sampler.reference).base
    steered = isinstance(sampler, Diffusion) and isinstance(sampler.recipe, Base | Truncated)
    if truth.noised_score is None or not steered or not isinstance(base, Noising):
        return None
    if base.memory > REMEMBERED:
        raise Unsupported(
            f"the base is not memoryless, corr(X_0, X_1) = {base.memory:.2g}, and its optimal "
            "control has no closed form"
        )
    assert traced.t is not None and traced.x is not None and traced.u is not None
    steps = zip(traced.x[:-1], traced.t[:-1], strict=True)  # one at a time: a score may be wide
    optimal = Optimal(base, truth.noised_score)
    best = torch.stack([optimal.control(x, t) for x, t in steps])
    each = (traced.u - best).double().square().sum(-1)
    return torch.tensordot(traced.t.diff().double(), each, dims=1)
