"""Stable Diffusion 1.5, 2 and 3 as bases, their weights read by diffusers (extra `finetune`).

A pipeline is diffusers' own, from a folder or a name that it can download.  Only what is written
here is tested, on tiny random pipelines: no weights have been at hand.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.plan.errors import Refused
from tiltbench.pretrain.schedulers import flow, tabulated
from tiltbench.samplers.redraw import by_ode
from tiltbench.targets.bases.pretrained import Doubt, Pretrained, Reading, doubts
from tiltbench.targets.bases.process import Uncontrolled
from tiltbench.targets.bases.schedules import Schedule
from tiltbench.targets.bases.text_to_image import (
    Prompted,
    Transformer,
    UNet,
    difference,
)

RMS = 1.0  # of latents: the autoencoders are scaled to it


def load(folder: str, dtype: torch.dtype = torch.bfloat16, **parts: Any) -> Any:
    """The pipeline in a folder (or of a name that diffusers can download), whichever kind it is;
    `parts` take the place of its own (text_encoder_3=None, tokenizer_3=None: without T5).

    Raises Refused without the libraries."""
    try:
        from diffusers import DiffusionPipeline
    except ImportError as error:
        raise Refused("Stable Diffusion needs diffusers: pip install -e '.[finetune]'") from error
    return DiffusionPipeline.from_pretrained(folder, dtype=dtype, **parts)


@torch.no_grad()
def stable_diffusion(
    pipeline: Any, prompt: str, guidance: float = 7.5, steps: int = 50, negative: str = ""
) -> Pretrained:
    """Version 1.x or 2.x under one prompt, on the scheduler's own noise levels and read as its
    prediction_type says; stepped at times T, T - T/steps, ... ("trailing"), the last to a latent
    without noise, whatever solver and grid the scheduler would take.

    Raises Refused where the scheduler or the network says what a base cannot be."""
    schedule, reading = tabulated(pipeline.scheduler)
    unet = pipeline.unet
    if unet.config.in_channels != unet.config.out_channels:
        raise Refused(
            f"the network takes {unet.config.in_channels} channels and answers "
            f"{unet.config.out_channels}: a base needs as many, without a mask or a variance"
        )
    if getattr(unet.config, "time_cond_proj_dim", None):
        raise Refused(
            "the network takes the guidance (time_cond_proj_dim), as a distilled one does: it says "
            "no denoiser, use the network that it was distilled from"
        )
    with_, without = pipeline.encode_prompt(prompt, pipeline.device, 1, True, negative)
    side = unet.config.sample_size
    text = torch.cat([without, with_]).to(unet.dtype)
    shape = (unet.config.in_channels, side, side)
    return _based(UNet(unet, schedule, shape, text, None, guidance), reading, schedule, steps)


@torch.no_grad()
def stable_diffusion_3(
    pipeline: Any, prompt: str, guidance: float = 7.0, steps: int = 40, negative: str = ""
) -> Pretrained:
    """Version 3 under one prompt: a rectified flow with the scheduler's shift.

    Raises Refused where the scheduler says what a base cannot be."""
    model = pipeline.transformer
    side = model.config.sample_size
    schedule = flow(pipeline.scheduler, (side // model.config.patch_size) ** 2)
    with_, without, pooled_with, pooled_without = pipeline.encode_prompt(
        prompt, None, None, pipeline.device, 1, True, negative
    )
    text = torch.cat([without, with_]).to(model.dtype)
    pooled = torch.cat([pooled_without, pooled_with]).to(model.dtype)
    shape = (model.config.in_channels, side, side)
    network = Transformer(model, schedule, shape, text, pooled, guidance)
    return _based(network, difference, schedule, steps)


def _based(network: Prompted, reading: Reading, schedule: Schedule, steps: int) -> Pretrained:
    """With the uncertainty of a Gaussian of the latents' size: too much near t = 1 (`learnt`)."""
    rows = [
        (i / steps, schedule.signal(i / steps), schedule.noise_power(i / steps))
        for i in range(steps + 1)
    ]
    doubt = [(t, math.sqrt(b2 / (a * a * RMS**2 + b2)) * RMS) for t, a, b2 in rows]
    return Pretrained(network, reading, RMS, doubt, schedule, steps=steps)


@torch.no_grad()
def learnt(base: Pretrained, n: int, generator: Generator, times: int = 20) -> Pretrained:
    """The same base with the uncertainty of its own samples, n of them by the ODE: the noise of
    the last steps is then what the denoiser cannot know, and no more.  n (2 steps + times)
    evaluations of the network."""
    assert isinstance(base.network, Prompted)
    first = next(base.network.parameters())
    x = by_ode(base, Uncontrolled(), (n, math.prod(base.network.shape)), generator).x
    doubt: Doubt = doubts(
        base.network, base.reading, base.schedule, x.to(first.dtype), generator, times
    )
    return replace(base, doubt=doubt)


def images(pipeline: Any, x: Float[Tensor, "n d"]) -> Float[Tensor, "n 3 h w"]:
    """The pictures of latents, in [0, 1], differentiable: what a reward of pictures looks at."""
    vae = pipeline.vae
    side = math.isqrt(x.shape[-1] // vae.config.latent_channels)
    latents = x.reshape(-1, vae.config.latent_channels, side, side).to(vae.dtype)
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    decoded = vae.decode(latents / vae.config.scaling_factor + shift).sample
    return (decoded.float() / 2 + 0.5).clamp(0, 1)
