"""Stable Diffusion 1.x and 3 as bases, on tiny random pipelines: no download, no weights."""

import json
import math
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.tools.worlds import rng
from tiltbench.pretrain import diffusers as models
from tiltbench.samplers.diffusion import Diffusion
from tiltbench.samplers.losses.adjoint_matching import adjoint_matching
from tiltbench.samplers.networks.adapter import Adapter
from tiltbench.samplers.networks.lora import low_rank
from tiltbench.samplers.redraw import by_ode
from tiltbench.targets.bases.process import Uncontrolled
from tiltbench.targets.bases.text_to_image import ShiftedFlow, Tabulated
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem

SCHEDULES = [ShiftedFlow(), ShiftedFlow(1.0), Tabulated((0.9, 0.6, 0.3, 0.05))]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_rates_of_a_schedule(schedule):
    h = 1e-6
    assert schedule.signal(1.0) == 1 and schedule.noise_power(1.0) == 0
    for t in (0.1, 0.3, 0.6, 0.9):
        for f, rate in (
            (schedule.signal, schedule.signal_rate),
            (schedule.noise_power, schedule.noise_power_rate),
        ):
            assert (f(t + h) - f(t - h)) / (2 * h) == pytest.approx(rate(t), rel=1e-5)


def test_steps_of_a_tabulated_schedule_are_its_table():
    schedule = Tabulated((0.9, 0.6, 0.3, 0.05))
    powers = [schedule.signal(1 - (i + 1) / 4) ** 2 for i in range(4)]
    assert powers == pytest.approx(schedule.cumulative, rel=1e-12)


NEED = "needs diffusers, transformers and peft: pip install -e '.[finetune]'"
PROMPT, DIM = "a cat", 4 * 8 * 8


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    pytest.importorskip("diffusers", reason=NEED)
    transformers = pytest.importorskip("transformers", reason=NEED)
    folder = tmp_path_factory.mktemp("words")
    words = ["<|startoftext|>", "<|endoftext|>", *"acts", *(f"{c}</w>" for c in "acts")]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return transformers.CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=8
    )


def text_config():
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=10,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=8,
        projection_dim=16,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )


def autoencoder(channels, **more):
    from diffusers import AutoencoderKL

    blocks = {"block_out_channels": (8,), "norm_num_groups": 4, "latent_channels": channels}
    return AutoencoderKL(**blocks, **more)


@pytest.fixture(scope="module")
def first(tokenizer):
    """Stable Diffusion 1.x."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
    )
    return StableDiffusionPipeline(
        autoencoder(4),
        CLIPTextModel(text_config()),
        tokenizer,
        unet,
        scheduler,
        None,
        None,
        requires_safety_checker=False,
    )


@pytest.fixture(scope="module")
def third(tokenizer):
    """Stable Diffusion 3."""
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )
    from transformers import CLIPTextModelWithProjection

    torch.manual_seed(0)
    transformer = SD3Transformer2DModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=32,
        caption_projection_dim=16,
        pooled_projection_dim=32,
        pos_embed_max_size=8,
    )
    encoders = [CLIPTextModelWithProjection(text_config()) for _ in range(2)]
    return StableDiffusion3Pipeline(
        transformer,
        FlowMatchEulerDiscreteScheduler(shift=3.0),
        autoencoder(4, shift_factor=0.1),
        encoders[0],
        tokenizer,
        encoders[1],
        tokenizer,
        None,
        None,
    )


def based(pipeline):
    """The base under a prompt at 5 steps."""
    third = hasattr(pipeline, "transformer")
    make = models.stable_diffusion_3 if third else models.stable_diffusion
    return make(pipeline, PROMPT, steps=5)


@pytest.fixture(params=["first", "third"])
def case(request):
    """(pipeline, its base)."""
    pipeline = request.getfixturevalue(request.param)
    return pipeline, based(pipeline)


@contextmanager
def predicting(pipeline, kind):
    """The same network, whose answer is said to be of another kind."""
    before = pipeline.scheduler
    pipeline.scheduler = type(before).from_config(before.config, prediction_type=kind)
    yield based(pipeline)
    pipeline.scheduler = before


@pytest.mark.pipelines
def test_the_ode_is_the_library_s_own_sampler(case):
    """The same latents as the pipeline gives from the same noise: levels, times, guidance, text."""
    pipeline, base = case
    as_the_pipeline(pipeline, base)
    if not isinstance(base.schedule, ShiftedFlow):
        for kind in ("v_prediction", "sample"):
            with predicting(pipeline, kind) as other:
                as_the_pipeline(pipeline, other)
                assert other.reading.__name__ == kind


def as_the_pipeline(pipeline, base):
    x0 = base.start((2, DIM), rng(1), torch.float32)
    ours = by_ode(base, Uncontrolled(), (2, DIM), rng(1)).x
    pipeline.set_progress_bar_config(disable=True)
    flow = isinstance(base.schedule, ShiftedFlow)  # whose default times stop short of the data
    times = {"sigmas": [1 - t for t in base.times[:-1]]} if flow else {}
    theirs = pipeline(
        [PROMPT] * 2,
        negative_prompt=[""] * 2,
        latents=x0.reshape(2, 4, 8, 8),
        num_inference_steps=5,
        guidance_scale=base.network.guidance,
        **times,
        output_type="latent",
    ).images
    assert torch.allclose(ours, theirs.reshape(2, DIM), rtol=1e-3, atol=1e-4)
    other = replace(base, network=base.network.around(base.network.model))
    other.network.guidance = 1.0
    assert not torch.allclose(by_ode(other, Uncontrolled(), (2, DIM), rng(1)).x, ours, atol=1e-3)


@pytest.mark.pipelines
def test_the_noisy_step_is_ddpm_s(first):
    """Mean and noise of DDIM with eta = 1, beside what the uncertainty of X_1 adds."""
    base = models.stable_diffusion(first, PROMPT, steps=5)
    the_noisy_step(first, base)
    with predicting(first, "v_prediction") as other:
        the_noisy_step(first, other)


def the_noisy_step(first, base):
    first.scheduler.set_timesteps(5)
    x = torch.randn(2, DIM, generator=rng(2))
    for k, step in enumerate(first.scheduler.timesteps[:4]):
        output = base.network(x, torch.full((2,), base.times[k]))
        mean = first.scheduler.step(output, step, x, eta=1.0, variance_noise=0 * x).prev_sample
        assert torch.allclose(base.base(x, k).mean, mean, atol=1e-4)
        fresh = base.stepping.parts(base, k)[2]
        previous = int(step) - 200
        assert fresh == pytest.approx(
            float(first.scheduler._get_variance(step, previous)), rel=1e-3
        )


@pytest.mark.pipelines
def test_low_rank_training_shares_the_weights(case):
    pytest.importorskip("peft", reason=NEED)
    _, base = case
    base = replace(base, trainable=low_rank(2))
    before = {key: v.clone() for key, v in base.network.state_dict().items()}
    model = Adapter().build(DIM, base, rng(3))
    x, t = torch.randn(2, DIM, generator=rng(4)), torch.tensor([0.2, 0.6])
    assert not model.control(x, t).any()
    sampler = Diffusion(adjoint_matching, model=Adapter(), paths=2, lr=1e-2)
    problem = Problem(DIM, base, lambda y: y.sum(-1))
    state = sampler.init(problem, Cost(8, 8), rng(3))
    state = sampler.step(problem, state, rng(5))
    assert state.model.control(x, t).any()
    learnt = [p for p in state.model.network.tuned.parameters() if p.requires_grad]
    assert 0 < sum(p.numel() for p in learnt) < sum(v.numel() for v in before.values()) / 4
    shared = {id(p) for p in base.network.parameters()}
    assert {id(p) for p in state.model.network.tuned.parameters() if not p.requires_grad} == shared
    assert all(torch.equal(before[key], v) for key, v in base.network.state_dict().items())


@pytest.mark.pipelines
def test_uncertainty_is_learnt_and_latents_become_pictures(case):
    pipeline, base = case
    learnt = models.learnt(base, 4, rng(6), times=5)
    assert learnt.doubt != base.doubt and min(learnt.uncertainty) > 0
    x = torch.randn(2, DIM, generator=rng(7), requires_grad=True)
    seen = models.images(pipeline, x)
    assert seen.shape == (2, 3, 8, 8) and 0 <= float(seen.min()) and float(seen.max()) <= 1
    assert torch.autograd.grad(seen.sum(), x)[0].isfinite().all()
    assert math.prod(base.network.shape) == DIM


SCRIPT = Path(__file__).parents[2] / "examples" / "finetuning" / "stable_diffusion.py"
FEW = "--steps 4 --batch 3 --batches 2 --iterations 2 --rank 2 --lr 1e-3 --device cpu".split()


@pytest.fixture
def tuned(tmp_path, capsys, request):
    """(pipeline, loss, more options) -> whether the whole script, from loading to the low-rank
    weights, has changed what the pipeline draws."""
    import runpy

    pytest.importorskip("peft", reason=NEED)
    main = runpy.run_path(str(SCRIPT))["main"]
    (tmp_path / "reward.py").write_text("def reward(x, prompt): return x.mean((1, 2, 3))\n")
    (tmp_path / "prompts.txt").write_text("a cat\n\ncats\n")

    def run(name, loss, *more):
        folder = tmp_path / name
        request.getfixturevalue(name).save_pretrained(folder)
        given = (folder, tmp_path / "reward.py", tmp_path / "prompts.txt")
        main([*map(str, given), "--loss", loss, "--out", f"{folder}/out", *FEW, *more])
        assert "step 1: loss" in capsys.readouterr().out
        parts = {"text_encoder_3": None, "tokenizer_3": None} if name == "third" else {}
        pipeline = models.load(str(folder), torch.float32, **parts)
        before = picture_of(pipeline)
        pipeline.load_lora_weights(str(folder / "out"))
        return not torch.allclose(before, picture_of(pipeline), atol=1e-5)

    return run


# the four of PUBLISHED, and one without settings of its own
@pytest.mark.pipelines
@pytest.mark.parametrize(
    "loss", ["adjoint_matching", "ddpo", "flow_grpo", "diffusion_nft", "log_variance"]
)
def test_the_example_trains_with_any_loss(loss, tuned):
    assert tuned("first", loss, "--multiplier", "100")


@pytest.mark.pipelines
def test_the_example_trains_through_the_path_once_a_graph(tuned):
    with pytest.raises(SystemExit, match="graph serves once: add --updates 1"):
        tuned("first", "relative_entropy")
    assert tuned("first", "relative_entropy", "--updates", "1")


@pytest.mark.pipelines
def test_the_example_trains_version_3(tuned):
    assert tuned("third", "flow_grpo", "--without-t5")


@pytest.mark.pipelines
def test_the_example_refuses_what_one_prompt_alone_can_learn(tuned):
    with pytest.raises(SystemExit, match="trajectory_balance learns more than a control"):
        tuned("first", "trajectory_balance")


def picture_of(pipeline):
    pipeline.set_progress_bar_config(disable=True)
    output = pipeline("a cat", generator=rng(1), num_inference_steps=2, output_type="latent")
    return output.images
