"""The optimal control in closed form, where the noised law of p* is known."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from tiltbench.targets.bases.noising import Noising, pick
from tiltbench.targets.bases.process import Controlled

NoisedScore = Callable[[Tensor, Tensor, Tensor], Tensor]
FAINT = 1e-5  # signal at which the mean of p* is read off its noised score


class Optimal(Controlled):
    """u*(x, t_k) = lift_k (E*[X_1 | X_t = x] - E_base[X_1 | X_t = x]) on a memoryless base.

    sigma (grad log p*_t - grad log p_t) in the units of the chain (math.md 2), with the denoiser of
    p* from `Truth.noised_score` by Tweedie: E*[X_1|x] = (x + beta^2 score) / alpha, and the mean of
    p* where alpha = 0.  Worked out in float64; times are those of the base's grid.
    """

    def __init__(self, base: Noising, noised_score: NoisedScore) -> None:
        self.base, self.noised_score = base, noised_score

    def control(
        self, x: Float[Tensor, "*b d"], t: Tensor, hint: Tensor | None = None
    ) -> Float[Tensor, "*b d"]:
        grid = self.base.grid(x)
        k = torch.searchsorted((grid[1:] + grid[:-1]) / 2, t.to(grid)).expand(x.shape[:-1])
        y = x.double()
        far = self.denoise(y, k) - self.base.denoise(y, k)
        return (pick(self.base.lifts, k.clamp(max=self.base.steps - 1), y) * far).to(x)

    def denoise(self, x: Float[Tensor, "*b d"], k: Tensor) -> Float[Tensor, "*b d"]:
        """E*[X_1 | X_{t_k} = x]."""
        alpha, beta = (pick(v, k, x) for v in (self.base.signals, self.base.noises))
        assert isinstance(alpha, Tensor) and isinstance(beta, Tensor)
        none = alpha < FAINT
        signal, noise = alpha.clamp(min=FAINT), torch.where(none, 1.0, beta)
        at = torch.where(none, 0.0, x)
        score = self.noised_score(at, signal[..., 0], noise[..., 0])
        return (at + noise.square() * score) / signal
