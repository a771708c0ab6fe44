"""Fine-tunes Stable Diffusion 1.5 or 3 towards a reward of pictures with any loss, by LoRA.

    python examples/finetuning/stable_diffusion.py FOLDER reward.py prompts.txt --loss flow_grpo ...

FOLDER holds a pipeline as diffusers saves it; reward.py defines reward(pictures, prompt) -> (n,),
pictures (n, 3, h, w) in [0, 1] (CLIP, ImageReward, ...), differentiable where the loss takes its
gradient; prompts.txt has a prompt a line.  The result is loaded by
`pipeline.load_lora_weights(OUT)`.

--loss names a row of PUBLISHED, a loss with the settings of its authors' public code, or any loss
as `tiltbench run` has it ("ddpo[kl=1]", "advantage_weighted_matching", "log_variance"), with the
settings of the row that --settings names, ddpo unless told otherwise.  Where a loss ends, in
p_base exp(r / kl) or elsewhere, is in docs/finetune_methods.md.

What differs from the public code.  Guidance counts in the control (for adjoint matching it only
simulates there), and what is trained is a low-rank update (DDPO's 3e-5 is of the whole network, its
1e-4 of an update).  Steps are the memoryless ones: Flow-GRPO has sigma = .7 sqrt((1 - t) / t) and
DiffusionNFT a solver without noise.  Advantages are not cut at +-5 or +-10, their KL is in the
units of the control, their groups are the paths of one prompt in one batch, and no average of the
weights is kept.

What was run here: all of it, on tiny random pipelines (`make pipelines`).  What was not: a real
checkpoint, for want of weights and a GPU; no figure of a paper is claimed.  Losses on paths (ddpo,
flow_grpo, log_variance, ...) hold the graph of the network at all steps of a batch at once, which a
real checkpoint has no memory for but at few paths a batch.
"""

import argparse
import importlib.util
import random
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import StableDiffusion3Pipeline
from safetensors.torch import save_file

from tiltbench.plan.spec import build_sampler, parse
from tiltbench.pretrain import diffusers as models
from tiltbench.samplers.networks.adapter import Adapter
from tiltbench.samplers.networks.lora import low_rank
from tiltbench.targets.bases.pretrained import Pretrained
from tiltbench.targets.bases.process import simulate
from tiltbench.targets.problem import Problem


class Settings(NamedTuple):
    """An iteration buys `batches` batches of `batch` paths, each under a prompt of its own, and
    makes `updates` steps of AdamW, each on its part of them."""

    loss: str
    steps: int = 50  # of a path
    guidance: float = 7.5
    multiplier: float = 1.0  # of the reward
    batch: int = 8
    batches: int = 4
    updates: int = 1
    lr: float = 3e-4
    betas: tuple[float, float] = (0.9, 0.999)
    decay: float = 1e-4  # of weights
    warmup: int = 1  # iterations
    kept: float = 1.0  # of the paths, those with the least loss
    rank: int = 32


PUBLISHED = {
    # arXiv 2409.08861, configs/multi_prompt.yaml: 5 of 50 steps are regressed, the tenth of the
    # samples with the largest loss is left out
    "adjoint_matching": Settings(
        "adjoint_matching_tricks[late=0,early=0.1,threshold=1e9,last_noise=1]",
        multiplier=100.0,
        batch=3,
        batches=25,
        lr=3e-6,
        betas=(0.9, 0.95),
        decay=0.0,
        warmup=20,
        kept=0.9,
        rank=16,
    ),
    # arXiv 2305.13301, config/dgx.py: 256 samples on eight GPUs, two updates
    "ddpo": Settings(
        "ddpo_published[clip_range=1e-4]",
        guidance=5.0,
        batches=32,
        updates=2,
        lr=1e-4,
        rank=4,
    ),
    # arXiv 2505.05470, config/grpo.py, GenEval: 48 groups of 24, two updates
    "flow_grpo": Settings(
        "flow_grpo_published[group=24,clip_range=1e-4,kl=0.04]",
        steps=10,
        guidance=4.5,
        batch=24,
        batches=48,
        updates=2,
    ),
    # arXiv 2509.16117, config/nft.py, GenEval: 48 groups of 24, no guidance
    "diffusion_nft": Settings(
        "diffusion_nft_published[strength=1,group=24,kl=1e-4]",
        steps=10,
        guidance=1.0,
        batch=24,
        batches=48,
    ),
}
CLIP = 1.0  # the largest norm of a gradient


def options(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("reward", type=Path)
    parser.add_argument("prompts", type=Path)
    parser.add_argument("--loss", default="adjoint_matching")
    parser.add_argument("--settings", choices=PUBLISHED, help="default: those of the loss")
    parser.add_argument("--out", type=Path, default=Path("finetuned"))
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--without-t5", action="store_true", help="of version 3")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    for name in ("steps", "batch", "batches", "updates", "warmup", "rank"):
        parser.add_argument(f"--{name}", type=int)
    for name in ("guidance", "multiplier", "lr", "decay", "kept"):
        parser.add_argument(f"--{name}", type=float)
    given = parser.parse_args(arguments)
    settings = PUBLISHED[given.settings or (given.loss if given.loss in PUBLISHED else "ddpo")]
    named = {key: value for key, value in vars(given).items() if key in Settings._fields}
    named["loss"] = settings.loss if given.loss in PUBLISHED else given.loss
    return given, settings._replace(**{k: v for k, v in named.items() if v is not None})


def loss_of(settings: Settings):
    """The loss of a sampler's name.  One network serves every prompt, and so there is no log Z, no
    second head and no frozen stage for each of them."""
    loss = build_sampler(parse(settings.loss)).loss
    if loss.learns_log_Z or loss.needs or loss.staged:
        raise SystemExit(
            f"{loss.name} learns more than a control, for one prompt: use log_variance, ddpo or "
            "another loss of the control alone"
        )
    if loss.through_path and settings.updates > 1:
        raise SystemExit(
            f"{loss.name} differentiates through the simulation, whose graph serves once: "
            "add --updates 1"
        )
    return loss


def reward_of(path: Path):
    spec = importlib.util.spec_from_file_location("reward", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.reward


def under(pipeline, prompt: str, settings: Settings) -> Pretrained:
    """The base under a prompt."""
    if isinstance(pipeline, StableDiffusion3Pipeline):
        return models.stable_diffusion_3(pipeline, prompt, settings.guidance, settings.steps)
    return models.stable_diffusion(pipeline, prompt, settings.guidance, settings.steps)


class Bought(NamedTuple):
    """A batch, and what its loss is asked of."""

    model: object
    base: Pretrained
    batch: dict[str, torch.Tensor]


def bought(loss, problem: Problem, n: int, share: float, generator) -> Bought:
    """n paths of the present control, labelled."""
    model = Adapter().build(problem.dim, problem.base, generator)
    with torch.set_grad_enabled(loss.through_path):
        path = simulate(problem.base, loss.behaviour(model), (n, problem.dim), generator)
    return Bought(model, problem.base, loss.label(problem, model, path, share, generator))


def value(loss, from_: Bought, kept: float, generator) -> torch.Tensor:
    """The loss of a batch.  With kept < 1, for a regression along paths, the mean over that share
    of the paths, those with the least."""
    model, base, batch = from_
    if kept == 1:
        return loss.value(model, base, batch, generator)
    each = [
        loss.value(model, base, batch | {"x": x[:, None], "y": y[:, None]}, generator)
        for x, y in zip(batch["x"].unbind(1), batch["y"].unbind(1), strict=True)
    ]
    each = torch.stack(each)
    return each[each <= each.detach().quantile(kept)].mean()


def main(arguments=None) -> None:
    given, settings = options(arguments)
    loss = loss_of(settings)
    prompts = given.prompts.read_text(encoding="utf-8").split("\n")
    prompts = [line.strip() for line in prompts if line.strip()]
    reward = reward_of(given.reward)
    dtype = torch.bfloat16 if given.device.startswith("cuda") else torch.float32
    without = {"text_encoder_3": None, "tokenizer_3": None} if given.without_t5 else {}
    pipeline = models.load(given.folder, dtype, **without).to(given.device)
    generator = torch.Generator(given.device).manual_seed(given.seed)
    order = random.Random(given.seed)

    first = models.learnt(under(pipeline, prompts[0], settings), settings.batch, generator)
    tuned = low_rank(settings.rank)(first.network, generator).model  # one network, every prompt
    weights = [p for p in tuned.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, settings.lr, settings.betas, weight_decay=settings.decay)

    def problem_of(prompt: str) -> Problem:
        base = replace(
            under(pipeline, prompt, settings),
            doubt=first.doubt,
            trainable=lambda network, _: network.around(tuned),
        )

        def tilt(x):
            return settings.multiplier * reward(models.images(pipeline, x), prompt).float()

        dim = pipeline.vae.config.latent_channels * base.network.shape[1] ** 2
        return Problem(dim, base, tilt)

    for step in range(given.iterations):
        optimizer.param_groups[0]["lr"] = settings.lr * min(1.0, (step + 1) / settings.warmup)
        problems = [problem_of(order.choice(prompts)) for _ in range(settings.batches)]
        share = step / given.iterations
        every = [bought(loss, p, settings.batch, share, generator) for p in problems]
        total = 0.0
        for part in (every[i :: settings.updates] for i in range(settings.updates)):
            for one in part:
                loss_value = value(loss, one, settings.kept, generator)
                (loss_value / len(part)).backward()
                total += float(loss_value.detach()) / len(every)
            torch.nn.utils.clip_grad_norm_(weights, CLIP)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        print(f"step {step}: loss {total:.4g}", flush=True)
    given.out.mkdir(parents=True, exist_ok=True)
    part = "transformer" if isinstance(pipeline, StableDiffusion3Pipeline) else "unet"
    state = {
        f"{part}.{key.replace('.default.', '.')}": value.contiguous()
        for key, value in tuned.state_dict().items()
        if "lora_" in key
    }
    save_file(state, given.out / "pytorch_lora_weights.safetensors")


if __name__ == "__main__":
    main()
