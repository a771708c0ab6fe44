"""A real Ray cluster of two nodes on this machine: what dies, and what is left of it.

make cluster
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from tests.waiting import HANG, wait_for
from tiltbench.engine.hold import Hold
from tiltbench.engine.local import Local
from tiltbench.engine.ray import Ray
from tiltbench.plan.errors import Refused
from tiltbench.plan.toml import Choice, Limits, Suite
from tiltbench.records.provenance import code_identity
from tiltbench.records.record import Status, read_outcome
from tiltbench.records.store import records
from tiltbench.run.phases import run_cell

pytestmark = pytest.mark.cluster

PLUGIN = '''
"""Leaves behind who ran what: its process, the worker and the raylet above it, its GPU."""
import os, pathlib, time
from dataclasses import dataclass
from typing import ClassVar
from tiltbench.samplers.classical.mala import Mala

HERE = pathlib.Path(__file__).parent

def parent(pid):
    return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])

def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False

@dataclass(frozen=True)
class Seen(Mala):
    """`wait`: as long as there is a file `hold`; `endless`: for ever."""
    name: ClassVar[str] = "seen"
    wait: bool = False
    endless: bool = False

    def __post_init__(self):
        (HERE / f"gpu.{os.getpid()}").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", ""))

    def init(self, problem, budget, generator):
        pid = os.getpid()
        worker = parent(os.getppid())  # above the forkserver
        # cells of one seed have one stream of numbers, whatever their parameters
        mine = HERE / "seen" / f"{self.wait} {self.endless} {generator.initial_seed()}"
        mine.mkdir(parents=True, exist_ok=True)
        if any(alive(int(other.name)) for other in mine.glob("[0-9]*")):
            (HERE / "twice").touch()
        new = mine / f".{pid}"
        new.write_text(f"{worker} {parent(worker)}")
        new.rename(mine / str(pid))
        while self.endless or (self.wait and (HERE / "hold").exists()):
            time.sleep(0.02)
        return super().init(problem, budget, generator)
'''


@pytest.fixture(scope="module")
def cluster(pytestconfig):
    """Two nodes of one CPU each, so that two cells at once are on both."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_worker_niceness"] = "0"  # 15 otherwise: beside other work they would starve
    cluster_utils = pytest.importorskip(
        "ray.cluster_utils", reason="no Ray: pip install -c constraints.txt -e '.[cluster]'"
    )
    import ray

    began = time.monotonic()
    made = cluster_utils.Cluster()
    for gpus in (0, 2):
        made.add_node(num_cpus=1, num_gpus=gpus, object_store_memory=80_000_000)
    # one session for all tests but that of the driver: its workers are used again
    ray.init(address=made.address, log_to_driver=False, logging_level="error")
    with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(f"\ncluster of two nodes: {time.monotonic() - began:.1f} s to start")
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd.py").write_text(PLUGIN)
    return tmp_path


def cells(params="", seeds=(0,), device="cpu"):
    samplers = (Choice.of(f"odd.py:seen[{params}]" if params else "odd.py:seen"),)
    return Suite("t", "", 2_000, 30, seeds, (Choice.of("gmm9"),), samplers).cells(device)


def on(cluster, todo, seconds=HANG):
    """{id: record}"""
    ran = Ray(cluster.address, Limits(seconds), 0.5).run(todo, Path("runs"), code_identity())
    return {cell.id: record for cell, record in ran}


def seen(folder):
    """(child, worker, raylet) of every process that had a cell."""
    rows = [(path.name, *path.read_text().split()) for path in folder.glob("seen/*/[0-9]*")]
    return [tuple(int(pid) for pid in row) for row in rows]


def alive(pid):
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@contextlib.contextmanager
def held(folder, until):
    """Cells that `wait` do so until this is true."""
    hold = folder / "hold"
    hold.touch()

    def release():
        try:
            wait_for(until)
        finally:
            hold.unlink()

    with ThreadPoolExecutor() as pool:
        aside = pool.submit(release)
        yield
        aside.result()


def test_two_nodes_give_what_one_machine_gives(cluster, folder):
    todo = cells("wait=true", seeds=range(2))
    with held(folder, lambda: len(seen(folder)) == 2):
        records = on(cluster, todo)
    assert len({raylet for _, _, raylet in seen(folder)}) == 2
    for cell in todo:
        assert records[cell.id].status is Status.SPENT and "deaths" not in records[cell.id].cost
        run_cell(cell, Path("alone"), code={"syntax": "h"})
        assert torch.equal(*(read_outcome(Path(f), cell.id).draws.x for f in ("runs", "alone")))
    assert {path.suffix for path in Path("runs").iterdir()} <= {".json", ".npz", ".safetensors"}


def test_what_a_task_costs(cluster, folder, capsys):
    """Printed by `make cluster`: small cells, by Ray and by local processes, two at a time."""
    todo = cells(seeds=range(12))
    engines = {
        "Ray": Ray(cluster.address, Limits(HANG)),
        "local": Local(("", ""), Limits(HANG)),
    }
    for name, engine in engines.items():
        ended = [time.monotonic()]
        for _, record in engine.run(todo, folder / name, code_identity()):
            assert record.status is Status.SPENT
            ended.append(time.monotonic())
        first, rest = ended[1] - ended[0], (ended[-1] - ended[3]) / (len(todo) - 3)
        with capsys.disabled():
            print(f"\n{name}: {first:.1f} s to the first record, then {rest:.2f} s a cell")


def test_a_cell_over_its_time_costs_itself_only(cluster, folder):
    (endless,), others = cells("endless=true"), cells(seeds=range(3))
    records = on(cluster, [endless, *others], seconds=8.0)
    assert records[endless.id].status is Status.OUT_OF_TIME
    assert "its limit of 8 s" in records[endless.id].reason
    ended = [records[cell.id] for cell in others]
    assert [record.status for record in ended] == [Status.SPENT] * 3, ended
    assert not any(alive(child) for child, _, _ in seen(folder))


def test_a_cell_sees_the_gpu_that_ray_gave_it(cluster, folder):
    """There is none, so the cell fails; Ray takes our word and lends two."""
    on(cluster, cells(device="cuda"))
    assert {path.read_text() for path in folder.glob("gpu.*")} >= {"0"}


def test_what_no_node_can_do_is_refused(cluster, folder):
    (cell,) = cells()
    with pytest.raises(Refused, match="no node of the cluster .* has 2 CPU"):
        list(Ray(cluster.address, Limits(threads=2)).run([cell], Path("runs"), code_identity()))
    (folder / "odd.py").unlink()
    with pytest.raises(Refused, match="node .* does not see the plug-in .*odd.py"):
        on(cluster, [cell])


@pytest.mark.parametrize("who", ["child", "worker", "node"])
def test_what_is_killed_in_mid_run_is_run_again(cluster, folder, who, capsys):
    driver = cluster.head_node.all_processes["raylet"][0].process.pid  # the driver's node
    began = []

    def strike():
        if len(seen(folder)) < 2:
            return False
        child, worker, raylet = next(row for row in seen(folder) if row[2] != driver)
        if not began:
            struck = {"child": [child], "worker": [worker], "node": [raylet, *below(raylet)]}
            for pid in struck[who]:
                os.kill(pid, signal.SIGKILL)
            began.append(time.monotonic())
        return not alive(child)

    todo = cells("wait=true", seeds=range(2))
    with held(folder, strike):
        records = on(cluster, todo)
    with capsys.disabled():
        print(f"\n{who} killed: all records {time.monotonic() - began[0]:.1f} s later")
    if who == "node":
        cluster.add_node(num_cpus=1, num_gpus=2, object_store_memory=80_000_000)
    assert [records[cell.id].status for cell in todo] == [Status.SPENT] * 2
    assert sorted(record.cost.get("deaths", 0) for record in records.values()) == [0, 1]
    assert len(seen(folder)) == 3 and not (folder / "twice").exists()


def below(pid):
    """All descendants of a process."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for above in found:
        found += [child for child, parent in parents.items() if parent == above]
    return found[1:]


def test_a_cell_that_kills_its_workers_is_given_up(cluster, folder, monkeypatch):
    """Every time: the count ends."""
    monkeypatch.setattr("tiltbench.engine.ray.RETRIES", 1)
    (cell,) = cells("wait=true")
    killed = set()

    def strike():
        for child, worker, _ in seen(folder):
            if child not in killed:
                killed.add(child)
                os.kill(worker, signal.SIGKILL)
        return len(killed) == 2

    with held(folder, strike):
        (record,) = on(cluster, [cell]).values()
    assert record.status is Status.FAILED and record.cost["deaths"] == 2
    assert record.reason == "its worker or node died 2 times"


def test_a_driver_that_is_killed_and_started_again(cluster, folder, capsys):
    """Its tasks end with it; what is recorded stays; what an orphan still had (on a node that was
    out of reach, say) is not run at the same time."""
    command = [sys.executable, "-m", "tiltbench.cli.main", "run", "--engine", "ray"]
    command += ["--ray-address", cluster.address, "--targets", "gmm9", "--seeds", "0:2"]
    command += ["--budget", "2000", "--draws", "30", "--out", "out", "--device", "cpu"]
    both = [*command, "--samplers", "odd.py:seen,odd.py:seen[wait=true]"]
    runs = folder / "out/runs"
    # first those that wait for nobody: Ray begins with whichever it likes
    subprocess.run([*command, "--samplers", "odd.py:seen"], check=True, capture_output=True)
    assert len(records(runs)) == 4  # two of them are the untrained base
    (folder / "hold").touch()
    first = subprocess.Popen(both, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: len(seen(folder)) == 4)
    kept = {path: path.read_bytes() for path in runs.glob("*.json")}
    first.kill()
    first.wait()
    began = time.monotonic()
    wait_for(lambda: not any(alive(child) for child, _, _ in seen(folder)))
    with capsys.disabled():
        print(f"\ndriver killed: its tasks ended {time.monotonic() - began:.2f} s later")
    (folder / "hold").unlink()
    rows = json.loads((folder / "out/suite.json").read_text())["cells"]
    left = next(row["id"] for row in rows if not (runs / f"{row['id']}.json").exists())
    taken = []
    wait_for(lambda: (hold := Hold.take(runs, left)) and not taken.append(hold))
    second = subprocess.Popen(both, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for(lambda: len(records(runs)) == 5)
    assert not [record.reason for record in records(runs) if record.status is Status.FAILED]
    time.sleep(1)
    assert second.poll() is None and len(seen(folder)) == 5 and len(records(runs)) == 5
    taken[0].release()
    output = second.communicate(timeout=HANG)[0]
    assert second.returncode == 0, output
    assert "6 cells (1 targets x 3 samplers x 2 seeds), 2 to run" in output
    assert len(records(runs)) == 6 and len(seen(folder)) == 6
    assert not (folder / "twice").exists()
    assert all(path.read_bytes() == text for path, text in kept.items())
    assert not list(runs.glob(".*"))  # locks, marks, halves
