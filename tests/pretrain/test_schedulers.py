"""Schedulers of diffusers as noise levels and readings: by copies of their settings, and, under the
marker `pipelines`, against their own steps."""

from __future__ import annotations

import math
import warnings
from types import SimpleNamespace

import pytest
import torch

from tests.tools.worlds import rng
from tiltbench.plan.errors import Refused
from tiltbench.pretrain.diffusers import stable_diffusion
from tiltbench.pretrain.schedulers import flow, tabulated
from tiltbench.targets.bases.pretrained import epsilon, levels, sample, v_prediction

KEPT = torch.tensor([0.9, 0.6, 0.3, 0.05])


class Scheduler:
    """The settings of a scheduler, and the defaults that its class states."""

    alphas_cumprod = KEPT

    def __init__(self, strength=1.0, clip_sample=False, **config):
        self.config = {"strength": strength, "clip_sample": clip_sample, **config}


class DDIMScheduler(Scheduler):
    pass


class FlowMatchEulerDiscreteScheduler(Scheduler):
    pass


class ConsistencyScheduler(Scheduler):
    pass


@pytest.fixture(autouse=True)
def silent():
    """A warning is a fault where it is not asked for."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("reading", [epsilon, v_prediction, sample], ids=lambda f: f.__name__)
def test_readings_tell_data_and_noise(reading):
    x1, xi = torch.randn(2, 5, generator=rng(1)).double()
    schedule, read = tabulated(DDIMScheduler(prediction_type=reading.__name__))
    assert read is reading and schedule.cumulative == pytest.approx(KEPT.tolist())
    at = levels(schedule, 0.25)  # of step 2
    assert at.signal**2 == pytest.approx(0.3)
    said = {epsilon: xi, v_prediction: at.signal * xi - at.noise * x1, sample: x1}[reading]
    for found, true in zip(read(said, at.signal * x1 + at.noise * xi, at), (x1, xi), strict=True):
        assert torch.allclose(found, true)


REFUSED = {
    "prediction_type": ("flow", "prediction_type = 'flow', which is not one of epsilon"),
    "clip_sample": (True, "clip_sample = True clips the denoiser's answer"),
    "thresholding": (True, "thresholding = True clips"),
    "rescale_betas_zero_snr": (True, "rescale_betas_zero_snr = True leaves no signal"),
    "use_flow_sigmas": (True, "use_flow_sigmas = True makes a flow"),
    "timestep_type": ("continuous", "timestep_type = 'continuous' gives the network other times"),
    "variance_type": ("learned_range", "variance_type = 'learned_range' needs a network that"),
    "predict_epsilon": (False, "which is not one of"),
    "strength": (2.0, "strength = 2.0 is not known here, .* leave it at 1.0"),
}


@pytest.mark.parametrize("key", REFUSED)
def test_what_changes_the_law_is_refused_by_name(key):
    value, said = REFUSED[key]
    with pytest.raises(Refused, match=said):
        tabulated(DDIMScheduler(**{key: value}))


def test_levels_without_signal_or_noise_are_refused(monkeypatch):
    for kept in ([0.9, 0.0], [1.0, 0.5]):
        monkeypatch.setattr(DDIMScheduler, "alphas_cumprod", torch.tensor(kept))
        with pytest.raises(Refused, match="some signal and some noise at every step"):
            tabulated(DDIMScheduler())


@pytest.mark.parametrize(
    "config, said",
    [
        ({"in_channels": 9}, "takes 9 channels and answers 4"),
        ({"time_cond_proj_dim": 256}, "takes the guidance .time_cond_proj_dim"),
    ],
)
def test_networks_that_are_no_denoisers_are_refused(config, said):
    unet = {"in_channels": 4, "out_channels": 4, "time_cond_proj_dim": None, **config}
    pipeline = SimpleNamespace(
        scheduler=DDIMScheduler(), unet=SimpleNamespace(config=SimpleNamespace(**unet))
    )
    with pytest.raises(Refused, match=said):
        stable_diffusion(pipeline, "a cat")


def test_schedulers_of_another_process_are_refused():
    with pytest.raises(Refused, match="is a ConsistencyScheduler, .* use DDIMScheduler"):
        tabulated(ConsistencyScheduler())
    with pytest.raises(Refused, match="is a FlowMatchEulerDiscreteScheduler"):
        tabulated(FlowMatchEulerDiscreteScheduler(shift=3.0))
    with pytest.raises(Refused, match="is a DDIMScheduler, .* use FlowMatchEulerDiscreteScheduler"):
        flow(DDIMScheduler(), 16)


def test_a_grid_that_is_not_followed_is_told():
    theirs = {"timestep_spacing": "leading", "steps_offset": 1, "set_alpha_to_one": False}
    with pytest.warns(UserWarning, match="spacing = 'leading', steps_offset = 1, set_alpha_to_one"):
        schedule, _ = tabulated(DDIMScheduler(**theirs))
    plain, _ = tabulated(DDIMScheduler(timestep_spacing="trailing", steps_offset=0))
    assert schedule == plain
    with pytest.warns(UserWarning, match="use_karras_sigmas = True"):
        flow(FlowMatchEulerDiscreteScheduler(shift=3.0, use_karras_sigmas=True), 16)


DYNAMIC = {
    "shift": 1.0,
    "use_dynamic_shifting": True,
    "base_shift": 0.5,
    "max_shift": 1.15,
    "base_image_seq_len": 256,
    "max_image_seq_len": 4096,
}


def test_shifts_of_a_flow():
    assert flow(FlowMatchEulerDiscreteScheduler(shift=3.0), 16).shift == 3.0
    for kind, shift in (("exponential", math.exp(1.15)), ("linear", 1.15)):
        scheduler = FlowMatchEulerDiscreteScheduler(**DYNAMIC, time_shift_type=kind)
        assert flow(scheduler, 4096).shift == pytest.approx(shift)
    with pytest.raises(Refused, match="invert_sigmas = True turns the network's time"):
        flow(FlowMatchEulerDiscreteScheduler(shift=3.0, invert_sigmas=True), 16)
    with pytest.raises(Refused, match="num_train_timesteps = 500"):
        flow(FlowMatchEulerDiscreteScheduler(shift=3.0, num_train_timesteps=500), 16)


LEVELS = {
    "scaled": {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"},
    "linear": {"beta_start": 0.001, "beta_end": 0.03, "num_train_timesteps": 200},
    "cosine": {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 100},
    "given": {"trained_betas": [0.01, 0.02, 0.05, 0.1, 0.3], "num_train_timesteps": 5},
}
SOLVERS = ("DDIM", "DDPM", "PNDM", "EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete")
SOLVERS += ("LMSDiscrete", "DPMSolverMultistep", "DEISMultistep", "UniPCMultistep")


def theirs(name, **config):
    diffusers = pytest.importorskip("diffusers", reason="pip install -e '.[finetune]'")
    made = getattr(diffusers, f"{name}Scheduler")
    if name in ("DDIM", "DDPM"):
        config["clip_sample"] = False
    return made(**config)


@pytest.mark.pipelines
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("betas", LEVELS)
@pytest.mark.parametrize("name", ["DDIM", "EulerDiscrete"])
def test_data_is_predicted_as_the_library_s_own_step_does(name, betas, kind):
    """At every level of its own grid, which is another one in Euler's scaling: x / alpha."""
    if name == "EulerDiscrete" and kind == "sample":
        pytest.skip("Euler's own step knows no prediction of the data")
    scheduler = theirs(name, prediction_type=kind, timestep_spacing="trailing", **LEVELS[betas])
    warnings.simplefilter("ignore")
    schedule, reading = tabulated(scheduler)
    scheduler.set_timesteps(5)
    x, said = torch.randn(2, 2, 1, 4, 4, generator=rng(2)).unbind(0)
    n = len(schedule.cumulative)
    for k, step in enumerate(scheduler.timesteps):
        at = levels(schedule, k / 5)
        assert round(n * (1 - k / 5)) - 1 == int(step)  # where the base puts the question
        scaled = x / at.signal if name == "EulerDiscrete" else x
        own = scheduler.step(said, step, scaled).pred_original_sample
        assert torch.allclose(reading(said, x, at)[0], own, rtol=2e-3, atol=2e-3)


@pytest.mark.pipelines
@pytest.mark.parametrize("name", SOLVERS)
def test_every_solver_of_the_process_holds_the_same_levels(name):
    warnings.simplefilter("ignore")
    scheduler = theirs(name, **LEVELS["scaled"], prediction_type="v_prediction")
    schedule, reading = tabulated(scheduler)
    assert reading is v_prediction
    assert schedule == tabulated(theirs("DDIM", **LEVELS["scaled"]))[0]


@pytest.mark.pipelines
@pytest.mark.parametrize("name, config", [
    ("DDIM", {"rescale_betas_zero_snr": True}),
    ("EulerDiscrete", {"rescale_betas_zero_snr": True}),
    ("DDPM", {"variance_type": "learned"}),
    ("DPMSolverMultistep", {"thresholding": True}),
    ("UniPCMultistep", {"use_flow_sigmas": True}),
    ("LCM", {}),
    ("TCD", {}),
    ("EDMEuler", {}),
])  # fmt: skip
def test_other_processes_of_the_library_are_refused(name, config):
    with pytest.raises(Refused):
        tabulated(theirs(name, **config))


@pytest.mark.pipelines
@pytest.mark.parametrize(
    "config", [{"shift": 3.0}, DYNAMIC, {**DYNAMIC, "time_shift_type": "linear"}]
)
def test_shifts_are_the_library_s_own(config):
    scheduler = theirs("FlowMatchEulerDiscrete", **config)
    tokens = 1000
    mu = 0.5 + (1.15 - 0.5) / (4096 - 256) * (tokens - 256)
    at = torch.linspace(1, 0.25, 4)
    scheduler.set_timesteps(sigmas=at.tolist(), mu=mu if len(config) > 1 else None)
    schedule = flow(scheduler, tokens)
    ours = [math.sqrt(schedule.noise_power(1 - float(u))) for u in at]
    assert ours == pytest.approx(scheduler.sigmas[:-1].tolist(), rel=1e-5)
