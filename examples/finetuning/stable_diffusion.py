"""Adjoint matching of Stable Diffusion 1.5 or 3 towards a reward of pictures, with LoRA.

    python examples/finetuning/stable_diffusion.py FOLDER reward.py prompts.txt [--steps 50] ...

FOLDER holds a pipeline as diffusers saves it; reward.py defines reward(pictures, prompt) -> (n,),
pictures (n, 3, h, w) in [0, 1], differentiable (CLIP, ImageReward, ...); prompts.txt has a prompt a
line.  The result is loaded by `pipeline.load_lora_weights(OUT)`.

The defaults are those of the public code of adjoint matching (Domingo-Enrich et al., arXiv
2409.08861) for Stable Diffusion 1.5, its `configs/multi_prompt.yaml`: 50 steps of DDIM with
eta = 1, guidance 7.5, reward times 100, 5 of the 50 steps regressed on, the tenth of the samples
with the largest loss left out, AdamW at 3e-6 with (.9, .95), 20 steps of warm-up, batches of 3 and
25 of them a step, bfloat16.  Two things differ: guidance counts in the control and in the adjoint
here (there it only simulates), so that what is trained is what is drawn from; and what is trained
is a low-rank update.  Version 3 takes the same command; its settings are not published.

What was run here: all of it, on tiny random pipelines (`make pipelines`).  What was not: a real
checkpoint, for want of weights and a GPU.  No figure of a paper is claimed.
"""

import argparse
import importlib.util
import random
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import StableDiffusion3Pipeline
from safetensors.torch import save_file

from tiltbench.pretrain import diffusers as models
from tiltbench.samplers.losses.adjoint_matching import adjoint_matching
from tiltbench.samplers.networks.adapter import Adapter
from tiltbench.samplers.networks.lora import low_rank
from tiltbench.samplers.networks.model import Model
from tiltbench.targets.bases.pretrained import Pretrained
from tiltbench.targets.bases.process import simulate
from tiltbench.targets.problem import Problem


def options(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("reward", type=Path)
    parser.add_argument("prompts", type=Path)
    parser.add_argument("--out", type=Path, default=Path("finetuned"))
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--multiplier", type=float, default=100.0)
    parser.add_argument("--regressed", type=int, default=5, help="of the steps, a batch")
    parser.add_argument("--quantile", type=float, default=0.9, help="of losses kept")
    parser.add_argument("--lr", type=float, default=3e-6)
    parser.add_argument("--warmup", type=int, default=20)
    parser.add_argument("--batch", type=int, default=3)
    parser.add_argument("--batches", type=int, default=25, help="a step of the optimiser")
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--without-t5", action="store_true", help="of version 3")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def reward_of(path: Path):
    spec = importlib.util.spec_from_file_location("reward", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.reward


def under(pipeline, prompt: str, steps: int) -> Pretrained:
    """The base under a prompt."""
    if isinstance(pipeline, StableDiffusion3Pipeline):
        return models.stable_diffusion_3(pipeline, prompt, steps=steps)
    return models.stable_diffusion(pipeline, prompt, steps=steps)


def losses(problem, model: Model, n: int, regressed: int, generator) -> torch.Tensor:
    """(n,) of adjoint matching, the mean over `regressed` steps chosen at random."""
    base = problem.base
    with torch.no_grad():
        path = simulate(base, model, (n, problem.dim), generator)
    batch = adjoint_matching.label(problem, model, path, 0.0, generator)
    chosen = torch.randperm(base.steps, generator=generator, device=generator.device)[:regressed]
    off = [model.control(batch["x"][k], batch["t"][k]) - batch["y"][k] for k in chosen]
    return torch.stack(off).square().sum(-1).mean(0)


def main(arguments=None) -> None:
    given = options(arguments)
    prompts = given.prompts.read_text(encoding="utf-8").split("\n")
    prompts = [line.strip() for line in prompts if line.strip()]
    reward = reward_of(given.reward)
    dtype = torch.bfloat16 if given.device.startswith("cuda") else torch.float32
    without = {"text_encoder_3": None, "tokenizer_3": None} if given.without_t5 else {}
    pipeline = models.load(given.folder, dtype, **without).to(given.device)
    generator = torch.Generator(given.device).manual_seed(given.seed)
    order = random.Random(given.seed)

    first = models.learnt(under(pipeline, prompts[0], given.steps), given.batch, generator)
    tuned = low_rank(given.rank)(first.network, generator).model  # one network, every prompt
    weights = [p for p in tuned.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, given.lr, (0.9, 0.95))
    for step in range(given.iterations):
        optimizer.param_groups[0]["lr"] = given.lr * min(1.0, (step + 1) / given.warmup)
        total = 0.0
        for _ in range(given.batches):
            prompt = order.choice(prompts)
            base = replace(
                under(pipeline, prompt, given.steps),
                doubt=first.doubt,
                trainable=lambda network, _: network.around(tuned),
            )

            def tilt(x, prompt=prompt):
                return given.multiplier * reward(models.images(pipeline, x), prompt).float()

            dim = pipeline.vae.config.latent_channels * base.network.shape[1] ** 2
            model = Adapter().build(dim, base, generator)
            each = losses(Problem(dim, base, tilt), model, given.batch, given.regressed, generator)
            kept = each[each <= each.detach().quantile(given.quantile)]
            (kept.mean() / given.batches).backward()
            total += float(each.mean()) / given.batches
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
