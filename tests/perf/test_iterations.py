"""Training iterations where overhead rules (`make perf`), and guided ones: one thread, CPU time.

`make perf BASE=COMMIT` also checks out that commit and measures both versions in turn, in two
processes of one run: a ratio of medians, which the load of the machine moves little.  Nothing here
asserts a time.  The last test prints the table and writes results/published/iterations.md.
"""

import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.tools.iterations import iteration, times
from tests.tools.perf_page import publish
from tiltbench.plan.spec import build_sampler, build_target
from tiltbench.plan.text import parse

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "results" / "published" / "iterations.md"
BASE = os.environ.get("BASE", "")
WORKER = ROOT / "tests" / "tools" / "iterations.py"
TURNS, SECONDS = 5, 0.12
TABLE: list[str] = []


def sized(loss, paths, steps, guided=False):
    model = ",model=Guided" if guided else ""
    return f"{loss}[paths={paths},reference=Brownian[steps={steps}]{model}]"


def named(loss, paths, steps, target, guided=False):
    title = f"{loss}{', guided' if guided else ''}, {paths} x {steps}, {target}"
    return title, (target, sized(loss, paths, steps, guided))


SMALL = ((128, 32), (256, 50))
PLAIN = ("log_variance", "relative_entropy", "adjoint_matching", "adjoint_sampling")
BALANCED = ("log_variance", "trajectory_balance")
CASES: dict[str, tuple[str, str]] = {
    **dict(named(loss, *size, "gmm9") for loss in PLAIN for size in SMALL),
    **dict(named(loss, *size, "gmm9", True) for loss in BALANCED for size in SMALL),
    **dict(named(loss, 300, 100, "gmm25", guided) for loss in BALANCED for guided in (False, True)),
    **dict(
        named("log_variance", 128, 32, target, True)
        for target in ("many_well", "funnel", "ising_hs")
    ),
    "cmcd_lv, 128 paths, gmm9": ("gmm9", "cmcd_lv[paths=128]"),
    "nets_pinn, 128 paths, gmm9": ("gmm9", "nets_pinn[paths=128]"),
    "adjoint_matching, 128 x 50, tilt_linear": ("tilt_linear", "adjoint_matching[paths=128]"),
    "adjoint_matching, 128 x 50, digits_even": ("digits_even", "adjoint_matching[paths=128]"),
}


class Version:
    """The package of one tree, in a process of its own."""

    def __init__(self, tree):
        environment = {**os.environ, "PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=tree,
            env=environment,
        )

    def times(self, target, sampler, seconds=SECONDS):
        asked = {"target": target, "sampler": sampler, "seconds": seconds}
        print(json.dumps(asked), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        assert answer, "the process that measures has ended; its message stands above"
        return json.loads(answer)

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.process.stdout.close()


def files_of(commit, folder):
    """The tracked files of a commit, into `folder`."""
    command = ["git", "archive", "--format=tar", commit]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        said = " ".join(done.stderr.decode().split())
        raise ValueError(f"BASE={commit} names no commit of this repository: {said}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as files:
        files.extractall(folder, filter="tar")
    return folder


@pytest.fixture(scope="module")
def versions(tmp_path_factory):
    """This tree, and that of BASE where it is given."""
    trees = [ROOT]
    if BASE:
        trees.append(files_of(BASE, tmp_path_factory.mktemp("base")))
    started = [Version(tree) for tree in trees]
    yield started
    for version in started:
        version.close()


@pytest.mark.perf
@pytest.mark.parametrize("case", CASES)
def test_iteration(case, versions):
    for version in versions:
        version.times(*CASES[case], seconds=0.0)  # builds and warms
    turns = [[version.times(*CASES[case]) for version in versions] for _ in range(TURNS)]
    here, *before = (1e3 * statistics.median(sum(both, [])) for both in zip(*turns, strict=True))
    row = f"| {case} | {here:.1f} |"
    TABLE.append(row + "".join(f" {old:.1f} | {old / here:.2f} |" for old in before))


@pytest.mark.perf
def test_table(capsys):
    against = f" at {BASE}, ms | times as fast |" if BASE else ""
    lines = [
        "## Iterations",
        "",
        "CPU time of one thread, the median of single iterations"
        + (f"; beside those of commit {BASE}, in turns." if BASE else "."),
        "",
        f"| iteration | ms |{against}",
        f"| --- | ---: |{' ---: | ---: |' if BASE else ''}",
        *TABLE,
    ]
    publish(PAGE, lines, capsys)


def test_the_cases_can_be_built():
    for target, sampler in CASES.values():
        build_target(parse(target)), build_sampler(parse(sampler))


def test_a_base_that_is_no_commit_is_named(tmp_path):
    with pytest.raises(ValueError, match="BASE=nowhere names no commit of this repository"):
        files_of("nowhere", tmp_path)


def test_an_iteration_is_timed():
    step = iteration("gaussian", sized("log_variance", 2, 2))
    assert len(times(step, 0.0)) == 1 and all(t > 0 for t in times(step, 1e-4))
