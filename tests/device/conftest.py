"""The tests of this folder run on a pretended GPU, which must be there before torch: each file in a
process of its own, started by test_pretended.py, or by hand with

    python -m pytest -p tests.tools.pretend.device tests/device/test_samplers.py
"""

import sys

import pytest

IN_PLACE = "tests.tools.pretend.device" in sys.modules
collect_ignore_glob = ["test_pretended.py"] if IN_PLACE else ["test_[!p]*.py"]

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
