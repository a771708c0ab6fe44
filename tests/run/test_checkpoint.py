"""Checkpoints: what goes on from them, and what they are refused for."""

import copy
import errno
import json
import os
import random
import time
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from tests.run.test_run import PLUGIN, Gone, cell, killed, run, same_run
from tests.waiting import HANG
from tiltbench.cli.main import main
from tiltbench.engine.local import Local
from tiltbench.plan.spec import build_sampler, build_target
from tiltbench.plan.toml import Limits
from tiltbench.records.provenance import code_identity, code_of
from tiltbench.records.record import Status, read_record
from tiltbench.records.store import records
from tiltbench.run.checkpoint import Checkpoints, Saved, _checksum, glance, identity
from tiltbench.run.compute import Metered
from tiltbench.run.ledger import Attempts
from tiltbench.run.pack import Packer, Unpacker
from tiltbench.run.phases import run_cell
from tiltbench.samplers.networks.model import Earlier, Model
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import pose

FAST = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd.py").write_text(PLUGIN)


def left(sampler, step, folder=Path("other"), every=0.0, **options):
    """The checkpoint of a run that died in its `step`-th step."""
    made = 0

    def progress(phase, share):
        nonlocal made
        made += 1
        if made == step:
            raise Gone

    chosen = cell(sampler, **options)
    with pytest.raises(Gone):
        run_cell(chosen, folder, progress, 1, {"syntax": "h"}, every)
    return folder / f"{chosen.id}.checkpoint.safetensors"


def test_killed_at_random_steps_again_and_again(plugin):
    """A sampler that changes its state in place, with a curve; each death loses the step it was in,
    and no call is counted twice."""
    whole = run("honest", curve=20)
    chance = random.Random(0)
    for trial in range(2):
        at = [chance.randint(2, 5) for _ in range(5)]
        again = killed("honest", at, Path(f"other{trial}"), curve=20)
        assert again.cost["resumed"] == 5 and again.cost["train"] == [200, 0]
        same_run((whole, Path("runs")), (again, Path(f"other{trial}")))
        assert not list(Path(f"other{trial}").glob("*checkpoint*"))


def test_a_checkpoint_is_as_old_as_the_interval(plugin):
    assert not left("honest", 10, every=1e9).exists()
    found = glance(left("honest", 10))
    assert (
        found.share == pytest.approx(9 / 20) and found.code["syntax"] == "h" and found.seconds > 0
    )


def test_seconds_of_all_attempts_are_summed(plugin):
    path = left("honest[pause=0.05]", 5)
    before = glance(path).seconds
    record = run("honest[pause=0.05]", Path("other"))
    assert before >= 0.2 and record.cost["seconds"] >= before + 16 * 0.05
    assert 20 * 0.05 <= record.cost["train_seconds"] < record.cost["seconds"]
    assert record.cost["cpu_seconds"] > 0


def test_a_record_or_other_code_means_to_begin_anew(plugin):
    path = left("honest", 10)
    record = run_cell(cell("honest"), Path("other"), code={"syntax": "another"})
    assert record.cost["resumed"] == 0 and "other code" in record.cost["notes"][0]
    assert not path.exists()
    path = left("honest", 10)  # the old record made place for it
    assert path.exists()
    path.with_name(f"{record.id}.json").write_text("{}")  # what a run had left; now it is forced
    assert run("honest", Path("other")).cost["resumed"] == 0


def test_what_cannot_be_saved_runs_and_says_so(plugin):
    record = run_cell(cell("sealed"), Path("runs"), code={"syntax": "h"}, checkpoint=0.0)
    assert record.status is Status.SPENT and record.cost["train"] == [200, 0]
    assert record.cost["notes"] == [
        "it cannot be resumed: state.reward is a function, which a checkpoint cannot hold"
    ]


def test_the_calendar_does_not_matter(plugin, monkeypatch):
    whole = run("honest", curve=5)
    day = iter(range(2_000_000_000, 0, -100_000))
    monkeypatch.setattr(time, "time", lambda: float(next(day)))
    again = killed("honest", (3, 4), curve=5)
    same_run((whole, Path("runs")), (again, Path("other")))
    assert again.cost["seconds"] < HANG  # and no day


def test_the_time_of_earlier_attempts_counts_against_the_limit(plugin):
    chosen, folder = cell("endless"), Path("runs")
    path = folder / f"{chosen.id}.checkpoint.safetensors"
    code = code_of(chosen, code_identity())
    checkpoints = Checkpoints(path, identity(chosen, code), 0.0, places={})
    source, used = torch.Generator(), Attempts(seconds=100.0)
    assert checkpoints.save(Saved(None, source, Cost(9, 0), Metered(), 9, 1.0, [], used), 0.1) == ""
    ((_, record),) = Local(("",), Limits(50.0)).run([chosen], folder, code)
    assert record.status is Status.OUT_OF_TIME and 100 <= record.cost["seconds"] < 100 + HANG
    assert not path.exists()


# files that are not what they should be


def check(path, sampler="honest", **options):
    """What loading the file says; the run starts anew."""
    return loader(sampler, **options)(path)


def loader(sampler="honest", **options):
    """path -> what loading it says."""
    chosen = cell(sampler, **options)
    target, made = build_target(chosen.target), build_sampler(chosen.sampler)
    problem = pose(target, made.reference)
    whose = identity(chosen, {"syntax": "h"})

    def load(path):
        source = torch.Generator().manual_seed(0)
        state = made.init(problem, chosen.budget.train, source)
        checkpoints = Checkpoints(path, whose, 0.0)
        assert checkpoints.expect(state) == ""
        return checkpoints.load(state, source.device)

    return load


def test_a_broken_file_is_refused_wherever_it_is_broken(plugin):
    whole = run("honest", curve=5)
    path = left("honest", 10, curve=5)
    data, load = path.read_bytes(), loader(curve=5)
    assert load(path)[0].steps == 9
    n, chance = len(data), random.Random(1)
    offsets = {0, 1, 7, 8, 9, n - 1} | {chance.randrange(n) for _ in range(40)}
    for offset in offsets:
        path.write_bytes(data[:offset])
        saved, why = load(path)
        assert saved is None and why.startswith("begun anew") and "\n" not in why, offset
        path.write_bytes(data[:offset] + bytes([data[offset] ^ 0x11]) + data[offset + 1 :])
        saved, _ = load(path)
        # a changed byte in `glance`, or in white space, harms nothing
        assert saved is None or same_state(saved, data, path, load), offset
    path.write_bytes(data[: n // 2])
    again = run("honest", Path("other"), curve=5)
    assert "of no use here" in again.cost["notes"][0] and again.cost["resumed"] == 0
    again.cost["notes"].clear()
    same_run((whole, Path("runs")), (again, Path("other")))


def same_state(saved, data, path, load):
    path.write_bytes(data)
    whole = load(path)[0]
    one, other = Packer(), Packer()
    nodes = [p.node([s.state, s.source, s.curve]) for p, s in ((one, saved), (other, whole))]
    return nodes[0] == nodes[1] and all(
        torch.equal(one.tensors[name], other.tensors[name]) for name in one.tensors
    )


def test_what_init_did_not_make_cannot_be_filled_in(tmp_path):
    checkpoints = Checkpoints(tmp_path / "x", {}, 0.0)
    assert checkpoints.expect([None]) == ""
    saved = Saved([Attempts()], torch.Generator(), Cost(), Metered(), 1, 0.0, [], Attempts())
    assert "`init` has none there" in checkpoints.save(saved, 0.5)
    assert not checkpoints.due() and not list(tmp_path.iterdir())


def rewritten(path, change):
    """The file with its tensors and nodes changed, and a checksum that fits."""
    with safe_open(path, "pt") as file:
        metadata, tensors = file.metadata(), {k: file.get_tensor(k).clone() for k in file.keys()}  # noqa: SIM118
    nodes = json.loads(metadata["nodes"])
    text = change(nodes, tensors)
    metadata["nodes"] = text if isinstance(text, str) else json.dumps(nodes)
    metadata["sha256"] = _checksum(metadata["nodes"], tensors)
    save_file(tensors, path, metadata)


def put(*keys):
    *head, last, value = keys

    def change(nodes, tensors):
        for key in head:
            nodes = nodes[key]
        nodes[last] = value

    return change


def odd_order(nodes, tensors):
    model = nodes["state"]["fields"][0]["module"][0]["dict"]
    dict(model)["log_Z"]["tensor"][1] = [0] * 9


def bad_moments(nodes, tensors):
    state = dict(nodes["state"]["fields"][1]["optimizer"]["dict"])["state"]["dict"]
    dict(state[0][1]["dict"])["exp_avg"]["tensor"][0] = "0"


WRONG = {
    "fields for a number": put("state", "fields", 5, {"fields": [1]}),
    "a class": put("state", {"os.system": "touch ran"}),
    "no state": put("state", None),
    "two kinds": put("state", {"tuple": [], "dict": []}),
    "too few fields": put("state", {"fields": [1, 2]}),
    "no module": put("state", "fields", 0, "../../x"),
    "another module": put("state", "fields", 0, "module", 0, {"dict": []}),
    "no such tensor": put("state", "fields", 0, {"tensor": ["../x", [], True, False]}),
    "a state of no generator": put("source", {"generator": {"tensor": ["0", [], True, False]}}),
    "no generator": put("source", 5),
    "nothing": put("source", None),
    "counts": put("spent", [1, "many"]),
    "an odd order": odd_order,
    "moments of another shape": bad_moments,
    "no nodes": lambda nodes, tensors: nodes.clear(),
    "a list": lambda nodes, tensors: "[]",
    "brackets without end": lambda nodes, tensors: "[" * 100_000,
}


@pytest.mark.parametrize("case", WRONG)
def test_a_hostile_file_is_refused(case, plugin, tmp_path):
    sampler = "log_variance[paths=8,reference=Brownian[steps=4]]"
    path = left(sampler, 3)
    before = set(tmp_path.rglob("*"))
    rewritten(path, WRONG[case])
    saved, why = check(path, sampler)
    assert saved is None and why.startswith("begun anew") and why.count("\n") == 0
    assert set(tmp_path.rglob("*")) == before


def test_the_same_file_unchanged_is_taken(plugin):
    sampler = "log_variance[paths=8,reference=Brownian[steps=4]]"
    path = left(sampler, 3)
    rewritten(path, lambda nodes, tensors: None)
    assert check(path, sampler)[0].steps == 2


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.tuples(st.integers(0, 4), st.booleans()).map(lambda p: torch.arange(p[0]) == p[1]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)


@FAST
@given(plain)
def test_plain_data_comes_back_as_it_was(tree):
    packer = Packer()
    node = json.loads(json.dumps(packer.node(tree)))
    back = Unpacker(packer.tensors, torch.device("cpu")).fill(None, node)
    assert repr(back) == repr(tree) and packer.places == {}


def test_a_tensor_keeps_its_place_in_memory():
    """Sums over another order of the dimensions differ in the last bit."""
    x = torch.randn(3, 4, 5).permute(2, 0, 1)
    packer = Packer()
    node = json.loads(json.dumps(packer.node([x, x[:, :1], torch.ones(2, requires_grad=True)])))
    a, b, c = Unpacker(packer.tensors, torch.device("cpu")).fill(None, node)
    assert a.stride() == x.stride() and torch.equal(a, x) and torch.equal(b, x[:, :1])
    assert c.requires_grad and c.is_leaf and not a.requires_grad


def test_a_model_brings_its_counts_and_its_earlier_stage():
    sampler = build_sampler({"name": "tilt_matching", "params": {}})
    problem = pose(build_target({"name": "gmm9", "params": {}}), sampler.reference)
    model, fresh = (
        sampler.init(problem, Cost(9, 9), torch.Generator().manual_seed(i)).model for i in (0, 1)
    )
    past = copy.deepcopy(model).requires_grad_(False)
    assert isinstance(past, Model)
    model.earlier = Earlier(past, 0.2, 0.5)
    model.network.forward_points, model.network.backward_points = 7, 3
    fresh.load_state_dict(model.state_dict())
    assert fresh.earlier[1:] == (0.2, 0.5) and fresh.earlier.model is not past
    assert (fresh.forward_points, fresh.backward_points) == (7, 3)
    assert not any(p.requires_grad for p in fresh.earlier.model.parameters())
    for ours, theirs in zip(past.parameters(), fresh.earlier.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


# a full disk


def test_no_room_for_a_checkpoint_costs_the_run_nothing(plugin, monkeypatch):
    whole = run("honest", curve=5)
    monkeypatch.setattr("tiltbench.run.checkpoint.replacing", full)
    again = run_cell(cell("honest", curve=5), Path("other"), code={"syntax": "h"}, checkpoint=0.0)
    assert again.cost["notes"] == [
        "a checkpoint could not be written ([Errno 28] No space left on device)"
    ]
    again.cost["notes"].clear()
    same_run((whole, Path("runs")), (again, Path("other")))


def full(*arguments):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("room", range(4))
def test_no_room_leaves_nothing_that_counts(room, plugin, monkeypatch):
    """The disk is full after so many files: nothing half-written, and the next run goes on."""
    whole, fsync, left = run("honest", curve=5), os.fsync, room
    checkpoint = Path("other") / f"{whole.id}.checkpoint.safetensors"

    def sync(number):
        nonlocal left
        left -= 1
        fsync(number) if left >= 0 else full()

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", sync)
        with pytest.raises(OSError, match="No space left"):
            run_cell(cell("honest", curve=5), Path("other"), code={"syntax": "h"})
    assert records(Path("other")) == [] and not list(Path("other").glob(".*"))
    assert not checkpoint.exists() and len(list(Path("other").iterdir())) == room
    same_run((whole, Path("runs")), (run("honest", Path("other"), curve=5), Path("other")))


# the driver


@pytest.fixture
def here(monkeypatch):
    """Cells run in this process, and folders are not scored: seconds for each test saved."""
    from tiltbench.records.provenance import code_of

    made = []

    def run_cells(self, cells, folder, code, watch=None):
        for chosen in cells:
            made.append(chosen)
            saved = run_cell(chosen, folder, code=code_of(chosen, code), checkpoint=0.0)
            yield chosen, saved

    monkeypatch.setattr("tiltbench.engine.local.Local.run", run_cells)
    monkeypatch.setattr("tiltbench.cli.run.score_and_report", lambda out: None)
    return made


def command(*samplers, seeds="0:2"):
    names = ",".join(f"odd.py:{name}" for name in samplers)
    words = ["run", "--targets", "odd.py:plane", "--samplers", names, "--budget", "200"]
    return [*words, "--draws", "30", "--seeds", seeds, "--out", "out", "--device", "cpu"]


def test_two_suites_in_one_folder_count_a_cell_once(plugin, here, capsys):
    assert main(command("honest", "unmeasured")) == 0
    kept = {path: path.stat().st_mtime_ns for path in Path("out/runs").iterdir()}
    assert main(command("honest", "hoarder", seeds="1:3")) == 1  # hoarder fails
    # with the untrained base; of this and of honest, seed 1 was there
    assert len(here) == 6 + 4 and len({c.id for c in here}) == 10
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())
    assert len(records(Path("out/runs"))) == 10
    capsys.readouterr()
    assert main(["status", "out"]) == 0
    output = capsys.readouterr().out
    assert "6 of 6 cells recorded" in output and "4 records belong to earlier" in output


def test_two_drivers_in_one_folder(plugin, here, capsys):
    """The second is told; nothing of the first is touched."""
    from tiltbench.cli.run import alone

    assert main(command("honest")) == 0
    before = {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()}
    with alone(Path("out")):
        assert main([*command("honest"), "--force"]) == 2
    error = capsys.readouterr().err
    assert "another run is at work in out" in error and error.count("\n") == 1
    assert before == {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()}


def test_a_full_disk_is_one_sentence(plugin, here, monkeypatch, capsys):
    assert main(command("honest", seeds="0:1")) == 0
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert main(command("honest")) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "No space left on device" in error and "make room" in error
    assert len(records(Path("out/runs"))) == 2
    assert main(command("honest")) == 0 and len(records(Path("out/runs"))) == 4


def test_status_shows_what_can_be_resumed_and_force_begins_anew(plugin, here, capsys, monkeypatch):
    assert main(command("honest", seeds="0:1")) == 0
    record = read_record(Path(f"out/runs/{here[0].id}.json"))
    path = Path("out/runs") / f"{record.id}.checkpoint.safetensors"

    def half(share=0.43):
        checkpoints = Checkpoints(path, identity(here[0], record.code), 0.0, places={})
        source = torch.Generator()
        assert (
            checkpoints.save(
                Saved(None, source, Cost(9, 0), Metered(), 9, 1.0, [], Attempts(seconds=2.0)), share
            )
            == ""
        )

    half()
    (Path("out/runs") / f"{record.id}.json").unlink()
    capsys.readouterr()
    assert main(["status", "out"]) == 0
    assert "honest · seed 0, saved at 43% of its training" in capsys.readouterr().out
    assert main([*command("honest", seeds="0:1"), "--force"]) == 0
    assert read_record(Path("out/runs") / f"{record.id}.json").cost["resumed"] == 0
