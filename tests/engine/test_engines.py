"""Engines, as far as they go without a cluster: places on GPUs, shards, locks, words refused."""

import os
import shutil
import sys
from contextlib import nullcontext
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.waiting import HANG
from tiltbench.cli.arguments import share
from tiltbench.cli.engine import Where, engine
from tiltbench.cli.main import main
from tiltbench.cli.run import alone
from tiltbench.engine import ray as cluster
from tiltbench.engine.gpus import fitting, memory, picked, places, roomiest, visible
from tiltbench.engine.hold import Hold
from tiltbench.engine.local import Local
from tiltbench.engine.shard import WHOLE, Shard, shard
from tiltbench.engine.supervisor import Order, stamp
from tiltbench.plan.errors import Refused
from tiltbench.plan.toml import Choice, Limits, Suite
from tiltbench.processes import Workers
from tiltbench.records.provenance import code_identity, code_of
from tiltbench.records.record import Record, Status, write_record
from tiltbench.records.recorded import gpu_peak
from tiltbench.records.store import records
from tiltbench.run.phases import run_cell

PLUGIN = '''
import os, pathlib, time
from tiltbench.samplers.classical.mala import Mala

class Sees(Mala):
    """Leaves a file that names the GPU it was given, and waits for a second one."""
    name = "sees"
    def init(self, problem, budget, generator):
        pathlib.Path(f"gpu.{os.environ['CUDA_VISIBLE_DEVICES']}.{os.getpid()}").touch()
        while len(list(pathlib.Path().glob("gpu.*"))) < 3:
            time.sleep(0.02)
        return super().init(problem, budget, generator)
'''


def few(sampler="mala", seeds=(0,)):
    choices = ((Choice.of("gmm9"),), (Choice.of(sampler),))
    return Suite("t", "", 400, 20, seeds, *choices).cells("cpu")


# places on GPUs


@given(st.integers(1, 5), st.floats(0.05, 1), st.lists(st.integers(0, 99), max_size=40))
def test_no_device_has_more_cells_than_fit_nor_two_more_than_another(number, share, moves):
    devices = [f"GPU-{k}" for k in range(number)]
    free, taken = list(places(devices, share)), []
    fit = len(free) // number
    assert fit * share <= 1 + 1e-6 < (fit + 1) * share + 2e-6
    for move in moves:
        if free and (move % 2 or not taken):
            least = min(taken.count(device) for device in devices)
            device = roomiest(free)
            assert taken.count(device) == least  # never beside others while a device has fewer
            free.remove(device)
            taken.append(device)
        elif taken:
            free.append(taken.pop(move % len(taken)))
        assert all(taken.count(device) <= fit for device in devices)


@pytest.mark.parametrize("parts", range(1, 21))
def test_a_share_of_one_nth_is_n_places(parts):
    assert len(places(["0"], 1 / parts)) == len(places(["0"], round(1 / parts, 10))) == parts


def test_devices_are_those_that_this_process_may_use(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-8a")
    assert visible() == ("2", "GPU-8a") == picked([], visible())
    assert picked(["GPU-8a"], visible()) == ("GPU-8a",)
    with pytest.raises(Refused, match=r"--gpus 0 is none of the devices here \(2, GPU-8a\)"):
        picked(["0"], visible())
    for said, seen in (("-1", ()), ("", ()), ("0,-1,1", ("0",)), (" 3 , 1", ("3", "1"))):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", said)  # as CUDA reads it
        assert visible() == seen


def test_a_cell_goes_where_most_is_free():
    assert roomiest(("0", "1", "1")) == "1"
    assert roomiest(("0", "0", "1")) == "0" == roomiest(("0", "1"))


def test_what_fits_into_the_memory_of_a_gpu():
    """What was measured and what a process has beside it; a guess where nothing was."""
    assert fitting(16, 1, 1, 8000, 100.0) == 11 == int(8000 / (600 + 1.25 * 100))
    assert fitting(16, 1, 1, 8000, float("nan")) == 3 == fitting(16, 1, 1, 8000, None)
    assert fitting(16, 2, 1, 80_000, 100.0) == 8 and fitting(16, 1, 3, 80_000, 100.0) == 5
    assert fitting(1, 2, 1, 100, 100.0) == 1


def test_cells_see_their_device_and_wait_for_one_that_is_run_elsewhere(tmp_path, monkeypatch):
    """Three cells at once on two devices, and a fourth that another engine holds."""
    monkeypatch.chdir(tmp_path)
    Path("odd.py").write_text(PLUGIN)
    runs = tmp_path / "runs"
    runs.mkdir()
    (held,) = few()
    hold = Hold.take(runs, held.id)
    local = Local(places(["3", "5"], 0.5), Limits(HANG))
    found = {}
    cells = [held, *few("odd.py:sees", range(3))]
    for cell, record in local.run(cells, runs, code_identity()):
        found[cell.id] = record
        if len(found) == 3:  # all but the held one, which the other now finishes
            assert held.id not in found
            other = run_cell(held, runs, code={"syntax": "the other's"})
            hold.release()
    assert all(record.status.finished for record in found.values()), found
    assert found[held.id] == other
    seen = [path.name.split(".")[1] for path in tmp_path.glob("gpu.*")]
    assert sorted(seen) in (["3", "5", "5"], ["3", "3", "5"])
    assert not list(runs.glob(".*.lock"))


# locks


def test_a_run_is_held_once_and_by_a_child_to_its_end(tmp_path):
    hold = Hold.take(tmp_path, "a")
    assert Hold.take(tmp_path, "a") is None
    assert Hold.take(tmp_path, "b") is not None
    context = Workers()
    ours, theirs = context.Pipe()
    child = context.Process(target=Connection.recv, args=(theirs,))
    child.hold = hold
    child.start()
    os.close(hold.file)  # as when its parent is killed
    assert Hold.take(tmp_path, "a") is None
    ours.send("end")
    child.join()
    again = Hold.take(tmp_path, "a")
    again.release()
    assert not again.path.exists()


def test_a_lock_on_a_file_that_is_gone_holds_nothing(tmp_path, monkeypatch):
    """The former holder removes the file between our open and our lock."""
    first, real = Hold.take(tmp_path, "a"), os.open

    def slow(path, *rest):
        file = real(path, *rest)
        if first.path.exists() and slow.first:
            slow.first = False
            first.release()
        return file

    slow.first = True
    monkeypatch.setattr(os, "open", slow)
    second = Hold.take(tmp_path, "a")
    assert os.path.samestat(os.fstat(second.file), os.stat(second.path))
    assert Hold.take(tmp_path, "a") is None


def test_shards_share_a_folder_and_nothing_else_does(tmp_path):
    with alone(tmp_path, Shard(1, 2)), alone(tmp_path, Shard(2, 2)):
        for part in (WHOLE, Shard(1, 2)):
            with pytest.raises(Refused, match="another run is at work"), alone(tmp_path, part):
                pass
    with alone(tmp_path), pytest.raises(Refused), alone(tmp_path, Shard(1, 2)):
        pass


# shards


@given(st.integers(1, 12), st.sets(st.integers(0, 400), min_size=1, max_size=30))
def test_shards_are_disjoint_and_complete(parts, seeds):
    cells = few(seeds=tuple(sorted(seeds)))
    split = [shard(f"{k}/{parts}").of(cells) for k in range(1, parts + 1)]
    assert sorted(c.id for part in split for c in part) == sorted(c.id for c in cells)
    # a cell stays where it is, whatever else the suite has
    alone = {c.id: k for c in cells for k, part in enumerate(split) if part.count(c)}
    fewer = [Shard(k, parts).of(cells[::2]) for k in range(1, parts + 1)]
    assert all(alone[c.id] == k for k, part in enumerate(fewer) for c in part)


@pytest.mark.parametrize("text", ["", "0/2", "3/2", "1", "1/", "/2", "1/0", "a/b", "1/2/3", "-1/2"])
def test_a_wrong_shard_is_one_sentence(text):
    with pytest.raises(Refused, match="is no part of a suite; write I/N"):
        shard(text)


def test_shards_of_two_machines_are_joined_by_copying(tmp_path, monkeypatch, capsys):
    def here(engine, cells, runs, code, watch):
        return ((cell, run_cell(cell, runs, code=code_of(cell, code))) for cell in cells)

    monkeypatch.setattr(Local, "run", here)
    monkeypatch.chdir(tmp_path)
    words = "run --targets gmm9 --samplers mala --budget 400 --draws 20 --seeds 0:5 --device cpu"
    for k in (1, 2):
        assert main([*words.split(), "--shard", f"{k}/2", "--out", f"part{k}"]) == 0
        output = capsys.readouterr().out
        mine = len(records(Path(f"part{k}/runs")))
        assert (
            0 < mine < 10
            and f"10 cells (1 targets x 2 samplers x 5 seeds), {mine} of them" in output
        )
        assert f"tiltbench score part{k}; tiltbench report part{k}" in output
        assert not Path(f"part{k}/table.md").exists()
    shutil.copytree("part2/runs", "part1/runs", dirs_exist_ok=True)
    assert main(["status", "part1"]) == 0 and "10 of 10" in capsys.readouterr().out
    assert main([*words.split(), "--out", "part1", "--dry-run"]) == 0
    assert "0 to run" in capsys.readouterr().out


# words


@pytest.mark.parametrize(
    "words, device, said",
    [
        ({"ray_address": "auto"}, "cpu", "add --engine ray"),
        ({"gpus": ("0",)}, "cpu", "add --device cuda"),
        ({"gpu_share": 0.5}, "cpu", "add --device cuda"),
        ({"gpus": ("7",)}, "cuda", "none of the devices"),
        (
            {"jobs": 5, "gpu_share": 1.0},
            "cuda",
            r"--jobs 5 do not fit on 2 GPU at --gpu-share 1.* such as 0\.4, or auto",
        ),
        ({"engine": "ray", "jobs": 3}, "cpu", "of the local engine"),
        ({"engine": "ray", "gpus": ("0",)}, "cuda", "of the local engine"),
    ],
)
def test_engines_that_cannot_be(words, device, said, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with pytest.raises(Refused, match=said):
        engine(Where(**words), device, Limits())


def test_engines_by_name(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    limits = Limits(threads=2)
    assert engine(Where(jobs=3), "cpu", limits) == Local(("",) * 3, limits)
    assert engine(Where(gpu_share=0.5), "cuda", limits) == Local(("0", "1") * 2, limits)
    assert engine(Where(gpus=("1",), gpu_share=1.0), "cuda", limits) == Local(("1",), limits)
    assert engine(Where(engine="ray"), "cpu", limits) == cluster.Ray("auto", limits, None, None)
    assert engine(Where(engine="ray", gpu_share=0.2), "cuda", limits, 9.0) == cluster.Ray(
        "auto", limits, 0.2, 9.0
    )


@pytest.fixture
def machine(monkeypatch):
    """Of so many cores and GPUs of so many GB, pretended."""

    def pretend(cores, *gigabytes):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(len(gigabytes)))))
        monkeypatch.setattr("tiltbench.engine.local.cores", lambda: cores)
        cards = [SimpleNamespace(total_memory=g * 2**30) for g in gigabytes]
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: cards[index])

    return pretend


@pytest.mark.parametrize(
    "cores, cards, threads, peak, each",
    [
        (16, (141,), 1, None, 16),  # a core each
        (16, (141, 141), 1, None, 8),
        (16, (141,), 4, None, 4),
        (2, (80, 80, 80, 80), 1, None, 1),  # one at least
        (64, (24,), 1, None, 12),  # as guessed
        (64, (24, 8), 1, None, 4),  # by the smaller card
        (64, (24,), 1, 100.0, 33),  # as measured, with what a process has beside
        (64, (24,), 1, 30_000.0, 1),
    ],
)
def test_auto_is_a_cell_a_core_as_memory_holds(machine, cores, cards, threads, peak, each):
    machine(cores, *cards)
    names = tuple(str(k) for k in range(len(cards)))
    chosen = engine(Where(), "cuda", Limits(threads=threads), peak)
    assert chosen == Local(names * each, Limits(threads=threads))
    assert str(chosen) == f"{each * len(cards)} at a time on {len(cards)} GPU"
    assert Where() == Where(gpu_share=share("auto", "--gpu-share"))


def test_auto_beside_what_is_said(machine):
    machine(8, 80, 80)
    assert engine(Where(jobs=3), "cuda", Limits()) == Local(("0", "1", "0"), Limits())
    assert engine(Where(jobs=64), "cuda", Limits()) == Local(("0", "1") * 32, Limits())
    assert engine(Where(gpus=("1",)), "cuda", Limits()) == Local(("1",) * 8, Limits())
    machine(8)
    with pytest.raises(Refused, match="no GPU is visible here; see CUDA_VISIBLE_DEVICES, or"):
        engine(Where(), "cuda", Limits())


def test_a_gpu_that_cannot_be_asked_is_taken_for_a_small_one(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8a")
    assert memory(("GPU-8a",), visible()) == 16_384


def test_auto_on_a_cluster_is_that_of_the_node_with_the_fewest_cpus_a_gpu(machine):
    machine(4, 141)
    ray = cluster.Ray("auto", Limits(threads=2))
    nodes = [{"CPU": 64.0, "GPU": 4.0}, {"CPU": 42.0, "GPU": 3.0}, {"CPU": 1.0}]
    assert ray._share(nodes) == 0.1428  # a seventh, such that seven fit in Ray's ten thousandths
    assert ray._share([{"CPU": 8.0}]) == 1.0


def test_the_peak_of_a_folder_is_the_largest_of_its_runs_on_a_gpu(tmp_path):
    (one, two, three) = few(seeds=range(3))
    assert gpu_peak(tmp_path) is None
    for c, device, peak in ((one, "cuda", 300.0), (two, "cuda", 500.0), (three, "cpu", 900.0)):
        c = replace(c, device=device)
        cost = {"peak_memory_mb": peak}
        write_record(tmp_path, Record(c.spec, c.labels, Status.SPENT, cost=cost))
    (tmp_path / "broken.json").write_text("{")
    assert gpu_peak(tmp_path) == 500.0


def test_a_run_takes_as_many_places_as_its_folder_has_seen_to_fit(
    machine, tmp_path, monkeypatch, capsys
):
    machine(16, 24, 24)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.chdir(tmp_path)
    words = "run --targets gmm9 --samplers mala --seeds 1 --device cuda --dry-run --out here"
    assert main(words.split()) == 0
    assert "16 at a time on 2 GPU" in capsys.readouterr().out
    (one,) = (replace(c, device="cuda") for c in few())
    held = Record(one.spec, one.labels, Status.SPENT, cost={"peak_memory_mb": 5000.0})
    write_record(tmp_path / "here/runs", held)
    assert main([*words.split(), "--tf32"]) == 0
    output = capsys.readouterr().out
    assert "6 at a time on 2 GPU" in output and "gmm9 · mala, TF32 · seed 0  to run" in output
    assert main([*words.split(), "--gpu-share", "0.5"]) == 0
    assert "4 at a time on 2 GPU" in capsys.readouterr().out


class Card:
    """In the place of a supervisor: a cell whose seed is its GB, on cards of 10 GB, three polls
    long.  What does not fit beside the others at its second poll is out of memory."""

    on: list["Card"] = []
    seen: list[tuple[int, tuple[int, ...]]] = []  # the size of a cell, and of those beside it
    life = None

    def __init__(self, order, gpu):
        self.order, self.cell, self.gpu, self.polls = order, order.cell, gpu, 0
        # or it would not be run; and whoever stops here has no record of it
        assert stamp(order.folder, order.cell.id) == "" and (order.before != "") == order.alone
        Card.on.append(self)

    def poll(self, watch):
        self.polls += 1
        if self.polls == 2:
            beside = sorted(c.cell.seed for c in Card.on if c.gpu == self.gpu and c is not self)
            if self.cell.seed + sum(beside) > 10:
                return self.end(Status.OUT_OF_MEMORY)
        return self.end(Status.SPENT) if self.polls == 3 else None

    def end(self, status):
        beside = tuple(sorted(c.cell.seed for c in Card.on if c.gpu == self.gpu and c is not self))
        Card.seen.append((self.cell.seed, beside))
        Card.on.remove(self)
        record = Record(self.cell.spec, self.cell.labels, status, env={"device": "cuda"})
        write_record(self.order.folder, record)
        return record

    def kill(self):
        Card.on.clear()


def test_a_cell_that_others_left_no_memory_is_run_again_alone(tmp_path, monkeypatch):
    """8 GB beside 12 lack memory, and have it alone; 12 GB have it nowhere: that is recorded."""
    monkeypatch.setattr("tiltbench.engine.local.Supervisor", Card)
    monkeypatch.setattr("tiltbench.engine.local.wait", lambda supervisors: None)
    monkeypatch.setattr(Card, "on", [])
    monkeypatch.setattr(Card, "seen", [])
    sizes = (8, 4, 12, 3, 2, 1)
    local = Local(("0", "1") * 2, Limits())
    found = [(c.seed, r.status) for c, r in local.run(few(seeds=sizes), tmp_path, code_identity())]
    assert sorted(seed for seed, _ in found) == sorted(sizes)  # each once
    failed = {seed for seed, status in found if status is Status.OUT_OF_MEMORY}
    assert failed == {12}
    assert not Card.on
    again = [k for k, (size, _) in enumerate(Card.seen) if size in dict(Card.seen[:k])]
    assert {Card.seen[k] for k in again} == {(8, ()), (12, ())} and len(again) == 2


def test_a_cell_that_was_alone_is_not_run_again(tmp_path, monkeypatch):
    monkeypatch.setattr("tiltbench.engine.local.Supervisor", Card)
    monkeypatch.setattr("tiltbench.engine.local.wait", lambda supervisors: None)
    monkeypatch.setattr(Card, "on", [])
    monkeypatch.setattr(Card, "seen", [])
    ways = {("0",): (12,), ("0", "0"): (12,), ("", ""): (12, 13)}
    for k, (on, seeds) in enumerate(ways.items()):
        Card.seen.clear()
        local = Local(on, Limits())
        found = list(local.run(few(seeds=seeds), tmp_path / str(k), code_identity()))
        assert [r.status for _, r in found] == [Status.OUT_OF_MEMORY] * len(seeds)
        assert len(Card.seen) == len(seeds)


# a cluster, as far as it goes without one


def test_without_ray_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(Refused, match=r"needs Ray: pip install .*\[cluster\]"):
        list(cluster.Ray("auto", Limits()).run(few(), tmp_path, code_identity()))


def test_a_node_says_what_it_lacks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cluster, "PATIENCE", 0.0)
    Path("odd.py").write_text(PLUGIN)
    (cell,) = few("odd.py:sees")
    order = Order(cell, tmp_path, Limits(), code_of(cell, code_identity()), "")
    with cluster._marked(tmp_path) as mark:
        cluster._check(order, mark)
        other = order._replace(code={"syntax": "0"})
        with pytest.raises(Refused, match="has other code of tiltbench .* install the same"):
            cluster._check(other, mark)
        Path("odd.py").unlink()
        with pytest.raises(Refused, match="does not see the plug-in .*odd.py; keep it in a folder"):
            cluster._check(order, mark)
    with pytest.raises(Refused, match="does not see the results folder .*; name one with --out"):
        cluster._check(order, mark)
    assert not list(tmp_path.glob(".*"))  # the mark is gone


def test_what_no_task_could_write_is_a_row(tmp_path):
    (cell,) = few()
    order = Order(cell, tmp_path, Limits(), code_identity(), "", deaths=4)
    record = cluster._given_up(order)
    assert record.status is Status.FAILED and record.cost["deaths"] == 4
    assert record.reason == "its worker or node died 4 times"


def test_a_task_that_lacked_memory_on_a_part_of_a_gpu_gets_the_whole_of_one(tmp_path, monkeypatch):
    """On a cluster that is pretended.  Who was ended by Ray's memory monitor lacked a node's."""
    asked = []

    def submit(order, mark, need):
        asked.append((order.cell.seed, need["GPU"]))
        return len(asked)

    def answer(tasks):
        stream, order = next(iter(tasks.items()))
        lacks = order.cell.seed < 2 and asked[stream - 1][1] < 1 or order.cell.seed == 3
        status = Status.OUT_OF_MEMORY if lacks else Status.SPENT
        env = {} if order.cell.seed == 1 else {"device": "cuda"}
        record = Record(order.cell.spec, order.cell.labels, status, env=env)
        assert stamp(order.folder, record.id) == "" and (order.before != "") == order.alone
        write_record(order.folder, record)
        return stream, record

    nodes = [{"Alive": True, "Resources": {"CPU": 8.0, "GPU": 1.0}}]
    monkeypatch.setattr(cluster, "_ray", lambda: SimpleNamespace(nodes=lambda: nodes))
    monkeypatch.setattr(cluster, "_connected", lambda address: nullcontext())
    monkeypatch.setattr(cluster, "_submit", submit)
    monkeypatch.setattr(cluster, "_next", answer)
    cells = [replace(c, device="cuda") for c in few(seeds=range(4))]
    ray = cluster.Ray("auto", Limits(), 0.25)
    found = {c.seed: r.status for c, r in ray.run(cells, tmp_path, code_identity())}
    out, spent = Status.OUT_OF_MEMORY, Status.SPENT
    assert found == {0: spent, 1: out, 2: spent, 3: out}
    assert sorted(asked) == [(0, 0.25), (0, 1.0), (1, 0.25), (2, 0.25), (3, 0.25), (3, 1.0)]
