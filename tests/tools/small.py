"""Every sampler with few of everything, for tests that run whole cells of the registry."""

from dataclasses import fields

from tiltbench.plan.spec import build_sampler
from tiltbench.samplers.diffusion import Diffusion

FEW = {"paths": 8, "repeats": 2, "memory": 2, "chains": 10, "ladders": 2, "islands": 2, "leaps": 2}


def small(name, steps=3, **changed):
    """The name with few of everything that the sampler has a number of, as it is written."""
    sampler = build_sampler({"name": name, "params": {}})
    here = {part.name for part in fields(sampler)}
    few = {key: min(n, getattr(sampler, key)) for key, n in FEW.items() if key in here}
    if any(part.name == "steps" for part in fields(sampler.reference)):
        few["reference"] = f"{type(sampler.reference).__name__}[steps={steps}]"
    if isinstance(sampler, Diffusion):
        few["batches"] = 2
        if hasattr(sampler.model, "width"):
            few["model"] = f"{type(sampler.model).__name__}[width=8]"
    return name + "[" + ",".join(f"{key}={value}" for key, value in (few | changed).items()) + "]"
