"""The state that `Sampler.tensors` was taken of, as far as `draw` needs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import singledispatch
from typing import Any

from torch import Tensor

from tiltbench.samplers.adapters.foreign import Foreign
from tiltbench.samplers.baselines._pool import Pool
from tiltbench.samplers.baselines.best_of_n import BestOfN
from tiltbench.samplers.baselines.guidance import Guidance
from tiltbench.samplers.baselines.importance_resampling import ImportanceResampling
from tiltbench.samplers.baselines.untrained import Untrained
from tiltbench.samplers.diffusion import Diffusion, Trained
from tiltbench.samplers.sampler import Sampler, Unsupported

Tensors = Mapping[str, Tensor]


@singledispatch
def restored(sampler: Sampler[Any], state: Any, tensors: Tensors) -> Any:
    """What `sampler.draw` is to be given; `state` is what `init` has just returned for it,
    and may be changed, `tensors` what `sampler.tensors` returned when training was over, on the
    device to draw on.

    A sampler of your own says how with `@restored.register`.  Raises Unsupported where draws come
    from the run itself, as those of a chain, and ValueError, KeyError or RuntimeError for tensors
    that do not fit."""
    raise Unsupported(
        f"{sampler.name} has nothing trained to draw from: its draws are the states that its run "
        "has met; for more of them run it again with more --draws or a larger --calls"
    )


@restored.register(Foreign)
def _(sampler: Foreign, state: Any, tensors: Tensors) -> Any:
    raise Unsupported(
        f"{sampler.name} is somebody's function or program: the draws that it handed over are all "
        "that is kept; for more of them run it again with more --draws"
    )


@restored.register
def _(sampler: Diffusion, state: Trained, tensors: Tensors) -> Trained:
    """The model that was drawn from; where weights were averaged, their average."""
    fresh = state.model.state_dict()
    extra = {key: value for key, value in fresh.items() if not isinstance(value, Tensor)}
    state.model.load_state_dict({**extra, **tensors})
    return replace(state, average=None)


@restored.register(Guidance)
@restored.register(Untrained)
def _(sampler: Sampler[None], state: None, tensors: Tensors) -> None:
    """There is nothing to learn."""


@restored.register(BestOfN)
@restored.register(ImportanceResampling)
def _(sampler: Sampler[Pool], state: Pool, tensors: Tensors) -> Pool:
    return Pool((tensors["x"],), (tensors["r"],), 0)
