"""A wheel of the package, installed into an environment that has nothing of this clone, works."""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run(*words, cwd, **environ):
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        [*map(str, words)], cwd=cwd, env={**clean, **environ}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_wheel_runs_in_an_empty_environment(tmp_path):
    """Its dependencies are those of this environment, found by a .pth file; no .pth of theirs is
    read, so that an editable install of this clone is not seen."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    sources = tmp_path / "clone"  # a build leaves files behind
    (sources / "src").mkdir(parents=True)
    (sources / "src" / "tiltbench").symlink_to(ROOT / "bench")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (sources / name).symlink_to(ROOT / name)
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, sources]
    run(*pip, *build, cwd=tmp_path)
    (wheel,) = tmp_path.glob("tiltbench-*.whl")
    run(sys.executable, "-m", "venv", "--without-pip", "env", cwd=tmp_path)
    python = tmp_path / "env" / "bin" / "python"
    run(*pip, "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    (packages,) = (tmp_path / "env").glob("lib/python*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")

    where = "import tiltbench.targets as t; print(t.__file__)"
    assert Path(run(python, "-c", where, cwd=tmp_path).strip()).is_relative_to(packages)
    words = "run --targets gmm9 --samplers smc,log_variance --budget 2000 --seeds 1 --draws 50"
    said = run(python.with_name("tiltbench"), *words.split(), cwd=tmp_path, OMP_NUM_THREADS="1")
    assert "exact draws" in said and (tmp_path / "results/adhoc/report.html").exists()
    records = [json.loads(p.read_text()) for p in tmp_path.glob("results/adhoc/runs/*.json")]
    assert {r["status"] for r in records if "status" in r} <= {"spent", "done"}
