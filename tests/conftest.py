"""One torch thread a process: pytest-xdist uses the cores.  Pictures in one format, few pixels and
without the layout, which draws each three times: one test makes them as they are for users.  A
probe has four gradients in the place of 32: no test judges its numbers.  Hypothesis does not judge
by the clock: on a shared machine that says nothing of the code."""

import functools

import pytest
import torch
from hypothesis import HealthCheck, settings

from tests.tools import fabricated_runs
from tiltbench.report.pictures import style
from tiltbench.samplers import diffusion

torch.set_num_threads(1)
style.FORMATS = ("png",)
style.STYLE["savefig.dpi"] = 50
as_shown = style.save


@functools.wraps(as_shown)
def drawn_once(figure, path):
    figure.set_layout_engine("none")
    as_shown(figure, path)


style.save = drawn_once
diffusion.GRADIENTS = 4
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("cuda") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a GPU: make gpu runs it on one"))


@pytest.fixture(scope="session")
def fabricated(tmp_path_factory):
    """A scored folder of runs of known quality, five seeds each, and of runs that failed; to be
    read only."""
    return fabricated_runs.fabricated(tmp_path_factory.mktemp("fabricated"))
