"""Rewards of square grey images: functions of x, for a tilt of any base of images.

x holds side^2 pixels, row-major, ink positive; side is that of x.  With a base of images they make
a problem, `Problem(side**2, base, partial(likelihood, y=y, noise=0.3))`, or the `reward` of a Tilt.
"""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor

SMOOTH = 0.05  # below this difference of pixels the slope of `sharpness` falls to 0


def square(x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b s s"]:
    """The rows of an image.  Raises ValueError where d is not a square."""
    side = math.isqrt(x.shape[-1])
    if side * side != x.shape[-1]:
        raise ValueError(f"{x.shape[-1]} pixels are no square image: 64 are one of side 8")
    return x.unflatten(-1, (side, side))


def pooled(x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d4"]:
    """A x, the means of 2 x 2 blocks: half the resolution.  A A^T = I / 4.

    Raises ValueError where the side is odd."""
    image = square(x)
    half, odd = divmod(image.shape[-1], 2)
    if odd:
        raise ValueError(f"an image of side {image.shape[-1]} has no 2 x 2 blocks: use an even one")
    return image.unflatten(-1, (half, 2)).unflatten(-3, (half, 2)).mean((-1, -3)).flatten(-2)


def likelihood(
    x: Float[Tensor, "*b d"], y: Float[Tensor, " d4"], noise: float
) -> Float[Tensor, " *b"]:
    """log N(y; A x, noise^2 I), nats: with it as the reward p* is the posterior of an image seen at
    half resolution and Z the evidence of y."""
    return _normal(pooled(x) - y.to(x), noise)


def likelihood_and_grad(
    x: Float[Tensor, "*b d"], y: Float[Tensor, " d4"], noise: float
) -> tuple[Float[Tensor, " *b"], Float[Tensor, "*b d"]]:
    """`likelihood` and its gradient A^T (y - A x) / noise^2, neither with a graph."""
    away = pooled(x.detach()) - y.to(x)
    each = square(away / (-4 * noise * noise))[..., :, None, :, None]
    half = each.shape[-2]
    grad = each.expand(*each.shape[:-4], half, 2, half, 2).reshape(x.shape)
    return _normal(away, noise), grad


def _normal(away: Float[Tensor, "*b d"], noise: float) -> Float[Tensor, " *b"]:
    """log N(away; 0, noise^2 I)."""
    far = away.square().sum(-1) / (2 * noise * noise)
    return -far - away.shape[-1] / 2 * math.log(2 * math.pi * noise * noise)


def ink(x: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
    """The mean of the pixels."""
    return x.mean(-1)


def sharpness(x: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
    """The mean of sqrt(d^2 + SMOOTH^2) - SMOOTH over differences d of neighbouring pixels: it grows
    linearly, so that its exponential is integrable under every base with Gaussian tails."""
    image = square(x)
    steps = [image.diff(dim=axis).flatten(-2) for axis in (-1, -2)]
    mean = sum(((d.square() + SMOOTH**2).sqrt() - SMOOTH).mean(-1) for d in steps)
    assert isinstance(mean, Tensor)
    return mean / 2
