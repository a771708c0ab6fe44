"""Digits seen noisily at half their resolution: the posterior, and what methods make of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.plan.spec import build_sampler, parse
from tiltbench.samplers.sampler import Draws
from tiltbench.studies.common.trained import trained
from tiltbench.targets.bases.process import Uncontrolled, simulate
from tiltbench.targets.digits.digits import DIM, SIDE, digits, log_classes
from tiltbench.targets.digits.images import ink, likelihood, pooled, sharpness, square
from tiltbench.targets.problem import pose
from tiltbench.targets.tilts._digits import DigitsTilt

NOISE = 0.5
POINTS = 1_000  # calls for one y: values and gradients in training, or values of base draws
PATHS = 500  # draws of a method that makes its own, for means and weights
TWICE, HALF = "y counted twice", "half the noise"  # too sure of themselves, on purpose
GUIDED = "guidance"
LEARNT = "adjoint_matching[model=Adapter,paths=32,lr=0.0003]"


@dataclass(frozen=True, kw_only=True)
class Seen(DigitsTilt):
    """p_base(x) N(y; A x, noise^2 I) / Z, A x the means of 2 x 2 blocks: the posterior of the image
    given any y."""

    name = "seen"
    y: tuple[float, ...]
    noise: float = NOISE

    def reward(self, x: Float[Tensor, "*b 64"]) -> Float[Tensor, " *b"]:
        return likelihood(x, torch.tensor(self.y, dtype=torch.float64), self.noise)


class Pair(NamedTuple):
    """A fresh draw of the base, float64, and the posterior of what is seen of it."""

    x: Float[Tensor, " 64"]
    seen: Seen


@torch.no_grad()
def pairs(n: int, device: str) -> list[Pair]:
    source = Generator(device).manual_seed(11)
    x = simulate(digits(), Uncontrolled(), (n, DIM), source).x[-1].double()
    clean = pooled(x)
    xi = torch.randn(clean.shape, generator=source, device=device, dtype=torch.float64)
    return [
        Pair(row, Seen(y=tuple(y.tolist()))) for row, y in zip(x, clean + NOISE * xi, strict=True)
    ]


def posteriors(seen: Seen, pool: Float[Tensor, "n 64"], seed: int) -> dict[str, Draws]:
    """By method, what it draws of the posterior; `pool` are draws of the base."""
    source = Generator(pool.device).manual_seed(seed)
    few = pool[torch.randperm(len(pool), generator=source, device=pool.device)[:POINTS]]
    by_method = {
        "exact": Draws(pool, seen.reward(pool)),
        TWICE: Draws(pool, 2 * seen.reward(pool)),
        HALF: Draws(pool, replace(seen, noise=seen.noise / 2).reward(pool)),
        "base": Draws(few),
        f"importance, {POINTS:,} draws": Draws(few, seen.reward(few)),
    }
    for name, text in {"guidance": GUIDED, "adjoint matching": LEARNT}.items():
        sampler = build_sampler(parse(text))
        state = trained(seen, sampler, POINTS, str(pool.device), seed)
        sampled = sampler.draw(pose(seen, sampler.reference), state, PATHS, source)
        assert sampled.log_w is not None
        by_method[name] = Draws(sampled.x.double())
        by_method[f"{name}, weighted"] = Draws(sampled.x.double(), sampled.log_w)
    return by_method


PART = 2_048  # draws of which moments are taken at once

Statistic = Callable[[Tensor, Seen], Tensor]  # (*b, 64) -> (*b,)
STATISTICS: Mapping[str, Statistic] = {
    "ink": lambda x, seen: ink(x),
    "left half": lambda x, seen: square(x)[..., : SIDE // 2].mean((-1, -2)),
    "contrast": lambda x, seen: x[..., 27] - x[..., 18],  # of one block: A does not see it
    "sharpness": lambda x, seen: sharpness(x),
    "3 or 8": lambda x, seen: log_classes(x)[..., 3] - log_classes(x)[..., 8],
    "r": lambda x, seen: seen.reward(x),
}


def picked(draws: Draws, n: int, generator: Generator) -> Float[Tensor, "n 64"]:
    """n of the draws: the first where they have no weights, or else independently by weight."""
    if draws.log_w is None:
        return draws.x[:n]
    share = draws.log_w.double().softmax(0)
    return draws.x[torch.multinomial(share, n, replacement=True, generator=generator)]


class Moments(NamedTuple):
    """Of the pixels, by the weights; `se` that of the mean (delta method)."""

    mean: Float[Tensor, " 64"]
    sd: Float[Tensor, " 64"]
    se: Float[Tensor, " 64"]


def moments(draws: Draws) -> Moments:
    flat = draws.x.new_zeros(len(draws.x))
    share = (flat if draws.log_w is None else draws.log_w).double().softmax(0)
    mean = share @ draws.x
    variance = square = torch.zeros_like(mean)
    # in parts: of whole temporaries, small results between them would pin the memory (25 MB a call)
    for w, x in zip(share.split(PART), draws.x.split(PART), strict=True):
        far = (x - mean).square()
        variance, square = variance + w @ far, square + w.square() @ far
    return Moments(mean, variance.sqrt(), square.sqrt())
