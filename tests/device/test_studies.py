"""Every study that computes anything on the pretended GPU, smaller still than in its own test:
there only the kinds of calls count.  Those that read what suites have left have no device."""

import pytest

from tests.studies.test_studies import RUN, SHRUNK
from tiltbench.plan.spec import STUDIES
from tiltbench.report.pictures import style
from tiltbench.studies.digits_log_Z import study as digits_log_Z
from tiltbench.studies.estimators import study as estimators
from tiltbench.study import conduct


def shorter(setting):
    """Four steps instead of 16 or 20."""
    families = [
        one._replace(sampler=one.sampler.replace("steps=16", "steps=4")) for one in setting.families
    ]
    return setting._replace(
        target=setting.target.replace("steps=20", "steps=4"), families=tuple(families)
    )


def unguided(*given, made=digits_log_Z.controls):
    return ((name, control) for name, control in made(*given) if name != "guidance")


SMALLEST = {
    "adjoint_norms": {"STEPS": 5},
    "bias": {"STEPS": 5},
    "calibration": {"REPLICATES": 1},
    "convergence": {"STEPS": (2, 3), "PATHS": 20, "CHUNK": 20, "POINTS": 64},
    "digits_log_Z": {"PATHS": 4, "CHUNK": 100, "MOST": 100, "controls": unguided},
    "estimators": {
        "SETTINGS": tuple(shorter(setting) for setting in estimators.SETTINGS),
        "TRAINING": 200,
    },
    "fluctuation": {"CASES": {"tilt_linear[steps=4]": ("cmcd_lv[paths=8]", 200)}, "PATHS": 100},
    "gradient_variance": {
        "DIMS": (2,),
        "sources.NAMES": ("adjoint_matching", "target_score_matching", "log_variance", "cmcd_lv"),
        "claims": lambda *found: (),  # they compare more methods
    },
    "integrated_variance": {"POINTS": 8, "REPLICATES": 2},
    "memoryless": {"STEPS": 2, "POINTS": 64},
    "memoryless_digits": {"STEPS": 2, "TARGETS": ("digits_even",)},
}


@pytest.mark.parametrize("name", RUN)
def test_on_the_gpu(gpu, tmp_path, monkeypatch, name):
    monkeypatch.setattr(style, "save", lambda figure, path: None)
    for key, value in (SHRUNK[name] | SMALLEST.get(name, {})).items():
        monkeypatch.setattr(f"tiltbench.studies.{name}.study.{key}", value)
    assert conduct(STUDIES.load(name), tmp_path, "cuda").read_text().count("\n|") > 2
