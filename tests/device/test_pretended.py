"""Everything through a pretended GPU: each file of this folder in a process of its own, for the
device must be there before torch."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools.pretend.build import Unavailable, library

HERE = Path(__file__).parent
FILES = sorted(path.name for path in HERE.glob("test_*.py") if path != Path(__file__))


@pytest.fixture(scope="session")
def compiled():
    try:
        library()
    except Unavailable as why:
        pytest.skip(str(why))


@pytest.mark.parametrize("file", FILES)
def test_on_the_pretended_gpu(compiled, file):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.tools.pretend.device"]
    command += ["--no-header", "--tb=short", "-p", "no:cacheprovider", str(HERE / file)]
    done = subprocess.run(command, cwd=HERE.parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
