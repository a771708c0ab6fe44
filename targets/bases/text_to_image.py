"""Text-to-image networks as bases: Stable Diffusion's U-Net and the transformer of version 3.

Latents are flattened, (*b, channels x height x width), and one prompt is one base.  Nothing here
needs the libraries that hold the weights: `tiltbench.pretrain.diffusers` loads them.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from tiltbench.targets.bases.pretrained import Levels, linear
from tiltbench.targets.bases.schedules import Schedule


@dataclass(frozen=True)
class Tabulated(Schedule):
    """DDPM in discrete time: alpha^2 = exp L, L linear between the logarithms of the cumulative
    products `cumulative` (of steps 0, ..., T-1, all below 1) and 0 at t = 1; step i at
    t = 1 - (i+1)/T.

    Memoryless up to alpha_0: .068 for Stable Diffusion 1.5, whose last step keeps some signal."""

    name: ClassVar[str] = "Tabulated"
    cumulative: tuple[float, ...]

    def _at(self, t: float) -> tuple[float, float]:
        """(L, dL/dt)."""
        n = len(self.cumulative)
        place = (1 - t) * n
        i = min(int(place + 1e-9), n - 1)
        below = math.log(self.cumulative[i - 1]) if i else 0.0
        rise = math.log(self.cumulative[i]) - below
        return below + (place - i) * rise, -n * rise

    def signal(self, t: float) -> float:
        return math.exp(self._at(t)[0] / 2)

    def signal_rate(self, t: float) -> float:
        return self._at(t)[1] / 2 * self.signal(t)

    def noise_power(self, t: float) -> float:
        return max(-math.expm1(self._at(t)[0]), 0.0)

    def noise_power_rate(self, t: float) -> float:
        value, rate = self._at(t)
        return -rate * math.exp(value)


@dataclass(frozen=True)
class ShiftedFlow(Schedule):
    """beta = s u / (1 + (s - 1) u), u = 1 - t, alpha = 1 - beta: a rectified flow that spends more
    of its time in noise (arXiv 2403.03206, Eq. 23, s^2 the ratio of pixel counts)."""

    name: ClassVar[str] = "ShiftedFlow"
    shift: float = 3.0

    def _rate(self, t: float) -> float:
        return -self.shift / (1 + (self.shift - 1) * (1 - t)) ** 2

    def signal(self, t: float) -> float:
        return 1 - math.sqrt(self.noise_power(t))

    def signal_rate(self, t: float) -> float:
        return -self._rate(t)

    def noise_power(self, t: float) -> float:
        return (self.shift * (1 - t) / (1 + (self.shift - 1) * (1 - t))) ** 2

    def noise_power_rate(self, t: float) -> float:
        return 2 * math.sqrt(self.noise_power(t)) * self._rate(t)


@linear
def difference(output: Tensor, x: Tensor, at: Levels) -> tuple[Tensor, Tensor]:
    """E[xi - X_1|x] where alpha + beta = 1: a rectified flow that runs from data to noise."""
    return x - at.noise * output, x + at.signal * output


class Prompted(nn.Module, ABC):
    """(x, t) -> what `model` says under a prompt, with classifier-free guidance (arXiv 2207.12598):
    said(without) + guidance (said(prompt) - said(without)); guidance 1 is the prompt alone.

    `text` and `pooled` hold two rows, without the prompt and with it; `shape` is (C, H, W)."""

    text: Tensor
    pooled: Tensor | None

    def __init__(
        self,
        model: nn.Module,
        schedule: Schedule,
        shape: tuple[int, int, int],
        text: Float[Tensor, "2 l e"],
        pooled: Float[Tensor, "2 p"] | None = None,
        guidance: float = 7.5,
    ) -> None:
        super().__init__()
        self.model, self.schedule, self.shape, self.guidance = model, schedule, shape, guidance
        self.register_buffer("text", text, persistent=False)
        self.register_buffer("pooled", pooled, persistent=False)

    def around(self, model: nn.Module) -> Prompted:
        """The same prompt put to another network, such as one that is trained on many prompts."""
        other = copy.copy(self)
        other._modules = {**self._modules, "model": model}
        return other

    @abstractmethod
    def ask(self, x: Tensor, t: Tensor, text: Tensor, pooled: Tensor | None) -> Tensor:
        """What the model says of latents (n, C, H, W) at t (n,) under embeddings of n rows."""

    def forward(self, x: Float[Tensor, "*b d"], t: Float[Tensor, "*b"]) -> Float[Tensor, "*b d"]:
        latents, t = x.reshape(-1, *self.shape), t.expand(x.shape[:-1]).reshape(-1)
        n, many = len(latents), 1 if self.guidance == 1 else 2
        text, pooled = (
            None if rows is None else rows[-many:].repeat_interleave(n, 0)
            for rows in (self.text, self.pooled)
        )
        assert text is not None
        output = self.ask(latents.repeat(many, 1, 1, 1), t.repeat(many), text, pooled)
        parts = output.chunk(many)
        whole = parts[0] + self.guidance * (parts[1] - parts[0]) if many == 2 else parts[0]
        return whole.reshape(x.shape)


class UNet(Prompted):
    """Stable Diffusion 1.x or 2.x: the noise, velocity or data, at step round(T (1 - t)) - 1.  Read
    by `epsilon`, `v_prediction` or `sample`, as it was trained."""

    def ask(self, x: Tensor, t: Tensor, text: Tensor, pooled: Tensor | None) -> Tensor:
        assert isinstance(self.schedule, Tabulated)
        step = ((1 - t.float()) * len(self.schedule.cumulative)).round().long() - 1
        output: Tensor = self.model(x, step.clamp(min=0), encoder_hidden_states=text).sample
        return output


class Transformer(Prompted):
    """Stable Diffusion 3: noise less data, at time 1000 beta.  Read by `difference`."""

    def ask(self, x: Tensor, t: Tensor, text: Tensor, pooled: Tensor | None) -> Tensor:
        assert isinstance(self.schedule, ShiftedFlow)
        late, s = 1 - t.double(), self.schedule.shift
        step = (1000 * s * late / (1 + (s - 1) * late)).to(x.dtype)
        output: Tensor = self.model(
            hidden_states=x, timestep=step, encoder_hidden_states=text, pooled_projections=pooled
        ).sample
        return output
