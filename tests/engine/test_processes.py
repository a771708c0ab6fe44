"""Workers: they import no main module, know the plug-ins, and end with the one that asks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import HANG, wait_for
from tiltbench.plan.plugins import plugged
from tiltbench.processes import pool

MAIN = 'open("imported again", "w"); raise SystemExit("a second time")'
PLUGIN = '''
from dataclasses import dataclass
from tiltbench.targets.target import Density, Truth

@dataclass(frozen=True)
class Bell(Density):
    """N(0, I)."""
    name = "bell"
    dim = 2
    def log_rho(self, x):
        return -x.square().sum(-1) / 2
    def truth(self):
        return Truth("unknown")
'''


# as text: workers cannot import a test
SPEC = "__import__('tiltbench.plan.spec', fromlist=['x'])"
DIMENSION = SPEC + ".build_target({'name': 'bell', 'params': {}}).dim"


@pytest.mark.parametrize("main", ["main.py", "<stdin>"])
def test_workers_never_import_the_main_module(main, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("main.py").write_text(MAIN)
    Path("bell.py").write_text(PLUGIN)
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(tmp_path / main), raising=False)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    before = dict(os.environ)
    with plugged(["bell.py"]), pool(1) as workers:
        assert workers.submit(eval, DIMENSION).result() == 2
        assert workers.submit(os.getpid).result() != os.getpid()
    assert not Path("imported again").exists() and dict(os.environ) == before


def test_an_exception_ends_the_workers_at_once(tmp_path):
    """Without waiting for what they do."""
    with pytest.raises(KeyboardInterrupt), pool(1) as workers:
        pid = workers.submit(os.getpid).result()
        workers.submit(os.open, forever(tmp_path), os.O_RDONLY)
        raise KeyboardInterrupt
    wait_for(lambda: not Path(f"/proc/{pid}").exists())


def forever(folder):
    """A pipe that waits for ever when it is opened."""
    os.mkfifo(folder / "never")
    return str(folder / "never")


SCRIPT = """
from tiltbench.api import cells, run
print("the top", flush=True)
runs = run(cells(["gaussian"], ["ais"], budget=300, seeds=range(5), draws=20), jobs=2)
print("ended", sorted(runs.status))
"""


@pytest.mark.slow
def test_a_script_from_standard_input_needs_no_guard(tmp_path):
    """Cells in other processes, and scores in others again."""
    done = subprocess.run(
        [sys.executable, "-"],
        input=SCRIPT,
        text=True,
        cwd=tmp_path,
        capture_output=True,
        timeout=HANG,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the top") == 1 and "Traceback" not in done.stderr
    assert "ended ['done', 'done', 'done', 'done', 'done']" in done.stdout
    assert len(list(tmp_path.glob("results/python/runs/*.scores.json"))) == 5


NOTEBOOK = """
from tiltbench.api import cells, run
runs = run(cells(["gaussian"], ["ais"], budget=300, seeds=range(5), draws=20))
sorted(runs.status)
"""


def test_a_notebook(tmp_path):
    """In a real kernel."""
    client = pytest.importorskip("nbclient", reason="no nbclient: pip install -e '.[dev]'")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel", reason="no ipykernel: pip install -e '.[dev]'")
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    class Here(AsyncKernelManager):
        """This very interpreter, whatever kernels are installed."""

        @property
        def kernel_spec(self):
            start = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            return KernelSpec(argv=start, language="python", display_name="here")

    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(NOTEBOOK)])
    client.NotebookClient(
        book,
        timeout=HANG,
        startup_timeout=HANG,
        kernel_manager_class=Here,
        resources={"metadata": {"path": str(tmp_path)}},
    ).execute()
    outputs = book.cells[0].outputs
    assert outputs[-1].data["text/plain"] == "['done', 'done', 'done', 'done', 'done']"
    assert len(list(tmp_path.glob("results/python/runs/*.scores.json"))) == 5
