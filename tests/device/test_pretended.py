"""Everything through a pretended GPU: the other files of this folder in two processes of their own,
for the device must be there before torch."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools.pretend.build import Unavailable, library

HERE = Path(__file__).parent
STUDIES = HERE / "test_studies.py"
OTHERS = sorted(path for path in HERE.glob("test_*.py") if path not in (STUDIES, Path(__file__)))


@pytest.fixture(scope="session")
def compiled():
    try:
        library()
    except Unavailable as why:
        pytest.skip(str(why))


@pytest.mark.parametrize("files", [OTHERS, [STUDIES]], ids=["all but studies", "studies"])
def test_on_the_pretended_gpu(compiled, files):
    options = ["-q", "--tb=short", "-p", "no:cacheprovider", "-p", "tests.tools.pretend.device"]
    command = [sys.executable, "-m", "pytest", *options, *map(str, files)]
    done = subprocess.run(command, cwd=HERE.parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
