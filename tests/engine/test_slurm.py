"""The two scripts of examples/slurm on a real SLURM: Debian's, of one node, on loopback.

apt-get install slurm-wlm munge; make cluster
"""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import wait_for
from tiltbench.records.record import Status
from tiltbench.records.store import records

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]

CONF = """\
ClusterName=tiltbench
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={at}/munge.socket
StateSaveLocation={at}/state
SlurmdSpoolDir={at}/spool
SlurmctldPidFile={at}/slurmctld.pid
SlurmdPidFile={at}/slurmd.pid
SlurmctldLogFile={at}/slurmctld.log
SlurmdLogFile={at}/slurmd.log
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
NodeName=localhost NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES State=UP
"""

SUITE = """\
[suite]
calls = 2000
draws = 50
seeds = 3
[[target]]
name = "gmm9"
[[sampler]]
name = "mala"
[[sampler]]
name = "smc"
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """The environment in which `sbatch` finds it."""
    daemons = ("munged", "slurmctld", "slurmd", "sbatch")
    if os.geteuid() != 0 or not all(shutil.which(name) for name in daemons):
        pytest.skip("no SLURM that can be started here: apt-get install slurm-wlm munge, as root")
    at = tmp_path_factory.mktemp("slurm")
    (at / "state").mkdir()
    (at / "spool").mkdir()
    key = at / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        ports = [s.getsockname()[1] for s in (one, other)]
    (at / "slurm.conf").write_text(CONF.format(at=at, ports=ports))
    env = {**os.environ, "SLURM_CONF": str(at / "slurm.conf")}
    files = {"socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    munge = ["munged", "--foreground", "--force", f"--key-file={key}"]
    munge += [f"--{option}={at}/munge.{suffix}" for option, suffix in files.items()]
    commands = (munge, ["slurmctld", "-D"], ["slurmd", "-D", "-N", "localhost"])
    running = []
    try:
        for command in commands:
            log = (at / f"{command[0]}.out").open("w")
            running.append(subprocess.Popen(command, env=env, stdout=log, stderr=log))
            if command is munge:
                wait_for(lambda: (at / "munge.socket").exists())
        wait_for(lambda: "idle" in output_of(["sinfo", "-h", "-o", "%t"], env))
        yield env
    finally:
        subprocess.run(["scancel", "--full", "--user=root"], env=env, capture_output=True)
        for process in reversed(running):
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def output_of(command, env, **options):
    return subprocess.run(command, env=env, capture_output=True, text=True, **options).stdout


def submitted(env, folder, *words):
    """Runs a script to its end; returns what its logs say."""
    (folder / "tiny.toml").write_text(SUITE)
    env = {**env, "TILTBENCH_VENV": sys.prefix, "HOME": str(folder)}  # Ray leaves its token there
    job = output_of(["sbatch", "--parsable", *words], env, cwd=folder).strip()
    assert job.isdecimal()
    wait_for(lambda: job not in output_of(["squeue", "-h", "-o", "%F"], env))
    return "\n".join(log.read_text() for log in sorted(folder.glob("tiltbench*.log")))


def checked(folder, log):
    found = records(folder / "out/runs")
    assert len(found) == 9, log  # with the untrained base
    assert {record.status for record in found} <= {Status.SPENT, Status.DONE}, log
    return found


def test_an_array_of_shards(slurm, tmp_path):
    script = ROOT / "examples/slurm/array.sbatch"
    words = ["--array=1-2", "--cpus-per-task=1", "--mem=0", script, "--suite", "tiny.toml"]
    log = submitted(slurm, tmp_path, *words, "--out", "out")
    found = checked(tmp_path, log)
    assert "of them in shard 1/2" in log and "of them in shard 2/2" in log
    assert sum(log.count(f"] {r.labels['target']} · {r.labels['sampler']} ·") for r in found[:1])
    for word in ("score", "report"):
        command = [sys.executable, "-m", "tiltbench.cli.main", word, "out"]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "out/table.md").exists()


def test_a_ray_cluster_inside_a_job(slurm, tmp_path):
    pytest.importorskip("ray", reason="no Ray: pip install -c constraints.txt -e '.[cluster]'")
    script = ROOT / "examples/slurm/ray.sbatch"
    words = ["--nodes=1", script, "--suite", "tiny.toml", "--device", "cpu"]
    log = submitted(slurm, tmp_path, *words, "--out", "out")
    checked(tmp_path, log)
    assert "9 to run on cpu, as tasks of the Ray cluster at localhost:" in log
    assert (tmp_path / "out/table.md").exists()
