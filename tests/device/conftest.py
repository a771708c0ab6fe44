"""The tests of this folder run on a pretended GPU, which must be there before torch: in
processes of their own, started by test_pretended.py, or by hand with

    python -m pytest -p tests.tools.pretend.device tests/device/test_samplers.py
"""

import sys

import pytest

IN_PLACE = "tests.tools.pretend.device" in sys.modules


def pytest_ignore_collect(collection_path):
    """In an ordinary run only what starts the processes, in these everything else."""
    if collection_path.name.startswith("test_"):
        return IN_PLACE == (collection_path.name == "test_pretended.py")
    return None


if IN_PLACE:
    from tests.tools.pretend.device import Pretended, unmixed
    from tiltbench.run import pack
    from tiltbench.samplers import diffusion

    pack.PLAIN += (Pretended,)
    diffusion.GRADIENTS = 2  # of a probe

    @pytest.fixture
    def gpu():
        """The device; a test in which devices were mixed fails, whoever caught what was raised."""
        with unmixed() as device:
            yield device
