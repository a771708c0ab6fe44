"""What a scheduler of diffusers says of the network that it steps.

A scheduler holds three kinds of settings.  Some say how the network was trained: its noise levels
and what its answer stands for; they are read.  Some change what is made of the answer, or need
levels that a base cannot have; they are refused by name.  The rest choose a solver and its grid of
times; a base is stepped on a grid of its own, and a warning names those that it does not follow.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from tiltbench.plan.errors import Refused
from tiltbench.targets.bases.pretrained import Reading, epsilon, sample, v_prediction
from tiltbench.targets.bases.text_to_image import ShiftedFlow, Tabulated

# Solvers of one and the same process: x = sqrt(kept) X_1 + sqrt(1 - kept) xi at whole steps.
DISCRETE = (
    *("DDIM", "DDIMParallel", "DDPM", "DDPMParallel", "PNDM", "EulerDiscrete", "HeunDiscrete"),
    *("EulerAncestralDiscrete", "LMSDiscrete", "KDPM2Discrete", "KDPM2AncestralDiscrete"),
    *("DPMSolverMultistep", "DPMSolverSinglestep", "DPMSolverSDE", "DEISMultistep"),
    "UniPCMultistep",
)
FLOWS = ("FlowMatchEulerDiscrete", "FlowMatchHeunDiscrete")
READINGS: Mapping[str, Reading] = {
    "epsilon": epsilon,
    "v_prediction": v_prediction,
    "sample": sample,
}

LEVELS = ("beta_start", "beta_end", "beta_schedule", "trained_betas", "num_train_timesteps")
SHIFTS = ("shift", "use_dynamic_shifting", "base_shift", "max_shift", "time_shift_type")
LENGTHS = ("base_image_seq_len", "max_image_seq_len")
OF_CLIPPING = ("clip_sample_range", "dynamic_thresholding_ratio", "sample_max_value")  # not alone
# The solver's: what the base does instead, or None where it does nothing of the kind.
SOLVER: Mapping[str, Any] = {
    "timestep_spacing": "trailing",
    "steps_offset": 0,
    "set_alpha_to_one": True,
    "final_sigmas_type": "zero",
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "use_lu_lambdas": False,
    "shift_terminal": None,
    "stochastic_sampling": False,
    "lambda_min_clipped": -math.inf,
    "sigma_min": None,
    "sigma_max": None,
}
OF_SOLVER = (  # of no meaning without the solver that is not followed
    *("skip_prk_steps", "solver_order", "solver_type", "algorithm_type", "lower_order_final"),
    *("euler_at_final", "interpolation_type", "predict_x0", "solver_p", "disable_corrector"),
    *("noise_sampler_seed", "flow_shift"),
)
# Others change the law: these values leave it as it is, and any other is refused.
HARMLESS: Mapping[str, tuple[Any, ...]] = {
    "clip_sample": (False,),
    "thresholding": (False,),
    "rescale_betas_zero_snr": (False,),
    "use_flow_sigmas": (False,),
    "timestep_type": ("discrete",),
    "invert_sigmas": (False,),
    "variance_type": (None, "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"),
}
WHY = {
    "clip_sample": "clips the denoiser's answer: a network of latents needs no clipping",
    "thresholding": "clips the denoiser's answer: a network of latents needs no clipping",
    "rescale_betas_zero_snr": "leaves no signal in the first step (zero terminal SNR), where a "
    "base needs some: a network that was trained so cannot be a base here",
    "use_flow_sigmas": "makes a flow of the process: use a flow-matching pipeline",
    "timestep_type": "gives the network other times than whole steps",
    "invert_sigmas": "turns the network's time round",
    "variance_type": "needs a network that also answers a variance",
}


def tabulated(scheduler: Any) -> tuple[Tabulated, Reading]:
    """The noise levels of a discrete-time scheduler, and how the network's answer is read.

    Raises Refused, with the name of the setting, where it says what a base cannot be."""
    _known(scheduler, DISCRETE, (*LEVELS, "prediction_type", *SHIFTS))
    config = dict(scheduler.config)
    kind = config.get("prediction_type", "epsilon")
    if kind not in READINGS or config.get("predict_epsilon", True) is not True:
        raise Refused(
            f"the scheduler says prediction_type = {kind!r}, which is not one of "
            f"{', '.join(READINGS)}: name what the network was trained to predict"
        )
    signals = tuple(float(v) for v in scheduler.alphas_cumprod)
    if not all(0 < v < 1 for v in signals):
        raise Refused(
            f"the scheduler keeps a part of {min(signals):g} to {max(signals):g} of the data's "
            "variance (alphas_cumprod); a base needs some signal and some noise at every step (no "
            "zero terminal SNR): give it betas above 0 and below 1"
        )
    return Tabulated(signals), READINGS[kind]


def flow(scheduler: Any, tokens: int) -> ShiftedFlow:
    """The shifted times of a flow-matching scheduler, for a picture of that many tokens where the
    shift depends on it: exp(mu) or mu, mu linear in the number of tokens.

    Raises Refused, with the name of the setting, where it says what a base cannot be."""
    _known(scheduler, FLOWS, ("num_train_timesteps", *SHIFTS, *LENGTHS))
    config: dict[str, Any] = dict(scheduler.config)
    if (steps := config.get("num_train_timesteps", 1000)) != 1000:
        raise Refused(
            f"the scheduler says num_train_timesteps = {steps}; the times of a transformer of "
            "version 3 run to 1000: use a scheduler that says so"
        )
    if not config.get("use_dynamic_shifting", False):
        shift: float = getattr(scheduler, "shift", None) or config["shift"]
        return ShiftedFlow(float(shift))
    least, most = config["base_image_seq_len"], config["max_image_seq_len"]
    slope = (config["max_shift"] - config["base_shift"]) / (most - least)
    mu = config["base_shift"] + slope * (tokens - least)
    return ShiftedFlow(math.exp(mu) if config["time_shift_type"] == "exponential" else mu)


def _known(scheduler: Any, classes: tuple[str, ...], read: Iterable[str]) -> None:
    """Refuses what changes the law; warns of what the base does not follow."""
    name = type(scheduler).__name__
    if name.removesuffix("Scheduler") not in classes:
        raise Refused(
            f"the scheduler is a {name}, whose process is not known here: use {classes[0]}Scheduler"
            ", or another solver of the process that the network was trained on"
        )
    passed = {*read, *OF_CLIPPING, *OF_SOLVER, "predict_epsilon"}
    stated = inspect.signature(type(scheduler).__init__).parameters
    other = {}
    for key, value in dict(scheduler.config).items():
        if key in HARMLESS:
            if value not in HARMLESS[key]:
                raise Refused(f"the scheduler's {key} = {value!r} {WHY[key]}")
        elif key in SOLVER:
            if value != SOLVER[key]:
                other[key] = value
        elif key in stated and key not in passed and value != stated[key].default:
            raise Refused(
                f"the scheduler's {key} = {value!r} is not known here, and may change the law: "
                f"leave it at {stated[key].default!r}"
            )
    if other:
        shown = ", ".join(f"{key} = {value!r}" for key, value in other.items())
        warnings.warn(
            f"the base takes steps of its own, equal ones from noise to data; the {name}'s {shown} "
            "of its own sampling are not followed",
            stacklevel=4,
        )
