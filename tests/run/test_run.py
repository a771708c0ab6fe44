"""Running cells: files, statuses, the separation of phases, processes that die, restarts."""

import contextlib
import dataclasses
import itertools
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.tools.registered import one_of_each_file
from tests.waiting import HANG, wait_for
from tiltbench.engine.local import Local
from tiltbench.plan.cell import CURVE_POINTS
from tiltbench.plan.toml import Choice, Limits, Suite, load_suite
from tiltbench.records.files import read_arrays
from tiltbench.records.provenance import code_identity
from tiltbench.records.record import Status, read_outcome, read_record
from tiltbench.records.store import records
from tiltbench.run.curve import Curve, TrainingCost
from tiltbench.run.ledger import Ledger
from tiltbench.run.phases import run_cell
from tiltbench.run.streams import STREAMS, generator
from tiltbench.samplers.registry import SAMPLERS
from tiltbench.targets.cost import Cost

PLUGIN = '''
"""Samplers that behave, and samplers that do not, on a target that needs nothing but this file."""

import dataclasses, math, os, pathlib, signal, time
from dataclasses import dataclass
from typing import ClassVar
import torch
from tiltbench.samplers.sampler import Draws, Sampler, Traced, Unsupported
from tiltbench.targets.checks import Diverged
from tiltbench.targets.bases.linear import Linear
from tiltbench.targets.bases.references import Brownian
from tiltbench.targets.target import Density, Truth


@dataclass(frozen=True)
class Plane(Density):
    name: ClassVar[str] = "plane"
    dim: int = 2
    scale: float = 1.0

    def log_rho(self, x):
        return -x.square().sum(-1) / 2

    def truth(self):
        def sample(n, g):
            return torch.randn(n, self.dim, generator=g, device=g.device, dtype=torch.float64)
        return Truth("closed form", log_Z=self.dim * math.log(2 * math.pi) / 2, sample=sample)


@dataclass
class Notes:
    """A state that is changed in place wherever it is handed in: the harness must not mind."""
    steps: int = 0
    drawn: int = 0
    seen: list = dataclasses.field(default_factory=list)
    numbers: torch.Tensor = dataclasses.field(default_factory=lambda: torch.zeros(3))
    reward: object = None


@dataclass(frozen=True)
class Honest(Sampler):
    """Ten values a step; draws from the base, weighed."""
    name: ClassVar[str] = "honest"
    reference: Linear = Brownian(scale=1.5)
    batch: int = 10
    stop: int = 0
    pause: float = 0.0

    def init(self, problem, budget, generator):
        return Notes()

    def step(self, problem, state, generator):
        x = problem.base.end((self.batch, problem.dim), generator)
        problem.reward(x)
        time.sleep(self.pause)
        w = torch.ones(3, requires_grad=True)
        return Notes(state.steps + 1, state.drawn, state.seen, state.numbers.detach() + w * x.sum())

    def done(self, state):
        return 0 < self.stop <= state.steps

    def draw(self, problem, state, n, generator):
        state.drawn += 1
        state.seen.append("draw")
        x = problem.base.end((n, problem.dim), generator) + state.numbers.detach().sum() * 1e-3
        return Draws(x + (state.drawn - 1) * 100, problem.reward(x).double())

    def reverse(self, problem, state, x, generator):
        state.seen.append("reverse")
        return Traced(problem.reward(x))

    def probe(self, problem, state, generator):
        # anything that an earlier measurement left in the state would show here
        return {"seen": torch.tensor([state.drawn, len(state.seen)])}

    def tensors(self, state):
        return {"numbers": state.numbers.detach(), "steps": torch.tensor(state.steps)}


@dataclass(frozen=True)
class Unfit(Honest):
    name: ClassVar[str] = "unfit"
    def init(self, problem, budget, generator):
        raise Unsupported("the base has no end")


@dataclass(frozen=True)
class Diverges(Honest):
    name: ClassVar[str] = "diverges"
    def step(self, problem, state, generator):
        if state.steps == 3:
            problem.reward(torch.full((4, 2), torch.nan))
        return Honest.step(self, problem, state, generator)


@dataclass(frozen=True)
class Broken(Honest):
    name: ClassVar[str] = "broken"
    def step(self, problem, state, generator):
        raise KeyError("no such thing")


@dataclass(frozen=True)
class Hungry(Honest):
    name: ClassVar[str] = "hungry"
    def step(self, problem, state, generator):
        state.seen.append(torch.zeros(50_000_000))
        return state


@dataclass(frozen=True)
class Endless(Honest):
    name: ClassVar[str] = "endless"
    def step(self, problem, state, generator):
        time.sleep(0.01)
        return state


@dataclass(frozen=True)
class Sealed(Honest):
    """Its state cannot be written to a file."""
    name: ClassVar[str] = "sealed"
    def step(self, problem, state, generator):
        state = Honest.step(self, problem, state, generator)
        state.reward = lambda: None
        return state


@dataclass(frozen=True)
class Killed(Honest):
    """Killed from outside in its third step, the first time only where `once`; the fork server that
    it came from before it where `server`."""
    name: ClassVar[str] = "killed"
    once: bool = False
    server: bool = False
    def step(self, problem, state, generator):
        mark = pathlib.Path("killed_once")
        if state.steps == 2 and not (self.once and mark.exists()):
            mark.touch()
            if self.server:
                os.kill(os.getppid(), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
        return Honest.step(self, problem, state, generator)


@dataclass(frozen=True)
class Crash(Honest):
    name: ClassVar[str] = "crash"
    def step(self, problem, state, generator):
        print("about to crash", flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)


@dataclass(frozen=True)
class Hoarder(Honest):
    """Keeps the training reward for use while drawing."""
    name: ClassVar[str] = "hoarder"
    def step(self, problem, state, generator):
        state.reward = problem.reward
        state.steps += 1
        return state
    def done(self, state):
        return state.steps > 0
    def draw(self, problem, state, n, generator):
        state.reward(torch.zeros(1, 2))
        return Honest.draw(self, problem, state, n, generator)


@dataclass(frozen=True)
class Idler(Honest):
    """Trains in `draw`."""
    name: ClassVar[str] = "idler"
    def draw(self, problem, state, n, generator):
        for _ in range(300):
            problem.reward(torch.zeros(n, 2))
        return Honest.draw(self, problem, state, n, generator)


@dataclass(frozen=True)
class Misshapen(Honest):
    name: ClassVar[str] = "misshapen"
    def draw(self, problem, state, n, generator):
        return Draws(torch.zeros(n, 2), torch.zeros(n, 1))


@dataclass(frozen=True)
class Nans(Honest):
    name: ClassVar[str] = "nans"
    def draw(self, problem, state, n, generator):
        return Draws(torch.full((n, 2), torch.nan))


@dataclass(frozen=True)
class Unmeasured(Honest):
    """Cannot be measured: not a failure of the run."""
    name: ClassVar[str] = "unmeasured"
    def reverse(self, problem, state, x, generator):
        raise ValueError("no way back")
    def probe(self, problem, state, generator):
        for _ in range(10**6):
            problem.reward(torch.zeros(1000, 2))


@dataclass(frozen=True)
class Poor(Honest):
    """Spends all in `init`."""
    name: ClassVar[str] = "poor"
    def init(self, problem, budget, generator):
        problem.reward(torch.zeros(budget.values + 1, 2))


@dataclass(frozen=True)
class Slow(Honest):
    """Leaves its process's number in its fifth step, then takes its time: as long as there is a
    file `hold`."""
    name: ClassVar[str] = "slow"
    pause: float = 0.01
    def step(self, problem, state, generator):
        if state.steps == 4:
            pathlib.Path("pids").mkdir(exist_ok=True)
            pathlib.Path("pids", str(os.getpid())).touch()
            while pathlib.Path("hold").exists():
                time.sleep(0.02)
        return Honest.step(self, problem, state, generator)
'''


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd.py").write_text(PLUGIN)
    return "odd.py"


def suite(*samplers, target="odd.py:plane", budget=200, draws=50, seeds=(0,), curve=0):
    names = [s if s.partition("[")[0] in SAMPLERS.entries else f"odd.py:{s}" for s in samplers]
    choices = tuple(
        dataclasses.replace(Choice.of(n), label=s) for n, s in zip(names, samplers, strict=True)
    )
    return Suite("t", "", budget, draws, seeds, (Choice.of(target),), choices, curve=curve)


def cell(sampler, **options):
    return suite(sampler, **options).cells("cpu")[0]


def run(sampler, folder=Path("runs"), **options):
    return run_cell(cell(sampler, **options), folder, code={"syntax": "h"})


def test_a_run_leaves_its_files(plugin):
    record = run("honest", curve=20)
    assert record.status is Status.SPENT, record.traceback
    assert record.reason == ""
    assert {p.name.removeprefix(record.id) for p in Path("runs").iterdir()} == {
        ".json",
        ".npz",
        ".curve.npz",
        ".state.safetensors",
    }
    assert read_record(Path(f"runs/{record.id}.json")) == record
    outcome = read_outcome(Path("runs"), record.id)
    assert outcome.draws.x.shape == (50, 2) and outcome.draws.log_w.shape == (50,)
    assert outcome.log_w_reverse.shape == (50,)
    curve = read_arrays(Path(f"runs/{record.id}.curve.npz"))
    assert curve["x"].shape == (len(curve["spend"]), 20, 2) and curve["log_w"].isfinite().all()
    assert (curve["seconds"].diff() >= 0).all() and curve["seconds"][0] > 0
    assert float(curve["seconds"][-1]) == record.cost["train_seconds"]
    assert record.cost["train"] == [200, 0] and record.cost["draw"] == [50, 0]
    assert record.cost["measure"] == [50 + 20 * len(curve["spend"]), 0]
    for key in ("seconds", "cpu_seconds", "train_seconds", "draw_seconds", "peak_memory_mb"):
        assert record.cost[key] >= 0
    assert record.env["threads"] == 1 and record.env["device"] == "cpu"


def test_a_method_that_plans_its_own_end_has_its_curve_before_it(plugin):
    """100 steps of a budget that pays for a million: points at 1 % of the steps and on."""
    seen = []
    planned = cell("log_variance[paths=2,batches=100,model=Mlp[width=4]]", budget=10**6, curve=5)
    record = run_cell(planned, Path("runs"), lambda *at: seen.append(at), code={"syntax": "h"})
    assert record.status is Status.DONE
    spend = read_arrays(Path(f"runs/{record.id}.curve.npz"))["spend"].double()
    ideal = torch.logspace(0, 2, CURVE_POINTS, dtype=torch.float64)
    assert len(spend) == CURVE_POINTS and bool(((spend / 2 - ideal).abs() <= 1).all())
    shares = [share for phase, share in seen if phase == "training"]
    assert shares[49] == 0.5 and shares[-1] == 1


def test_spends_of_the_curve_are_log_spaced(plugin):
    record = run("honest[batch=1]", budget=2000, curve=5)
    spend = read_arrays(Path(f"runs/{record.id}.curve.npz"))["spend"].double()
    assert len(spend) == 8 and spend[-1] == 2000
    ratio = (spend[1:] / spend[:-1]).log()
    assert ratio.mean() == pytest.approx(torch.tensor(100.0).log().item() / 7, rel=0.05)
    assert ratio.std() < 0.1


@pytest.mark.parametrize(
    "sampler, status, said",
    [
        ("honest[stop=3]", "done", ""),
        ("unfit", "unsupported", "the base has no end"),
        ("diverges", "diverged", "log rho of plane is nan at 4 of 4 points"),
        ("broken", "failed", "KeyError: 'no such thing'"),
        ("hoarder", "failed", "0 left"),
        ("idler", "failed", "drawing costs more than its budget"),
        ("misshapen", "failed", r"log_w of shape \(50, 1\); it must be \(50,\)"),
        ("nans", "diverged", "50 of 50 draws are not finite"),
        ("poor", "failed", "does not pay for the start"),
        ("unmeasured", "spent", ""),
    ],
)
def test_how_runs_end(plugin, sampler, status, said):
    record = run(sampler)
    assert record.status == status
    assert re.search(said, record.reason) and bool(record.reason) == bool(said)
    assert "\n" not in record.reason
    assert bool(record.traceback) == (status in ("failed", "diverged"))
    assert Path(f"runs/{record.id}.npz").exists() == record.status.finished
    assert read_record(Path(f"runs/{record.id}.json")) == record


def test_what_cannot_be_measured_is_noted(plugin):
    record = run("unmeasured")
    assert [note.split(":")[0] for note in record.cost["notes"]] == [
        "no reverse paths",
        "no probes",
    ]
    assert read_outcome(Path("runs"), record.id).log_w_reverse is None
    budget = record.spec["budget"]["measure"]
    assert record.cost["measure"][0] <= budget[0]


def test_nothing_measured_reaches_the_sampler(plugin):
    """Curve, reverse paths and probes get copies of the state, and a curve changes no draw."""
    with_curve, without = run("honest", curve=20), run("honest", Path("other"))
    one, other = read_outcome(Path("runs"), with_curve.id), read_outcome(Path("other"), without.id)
    assert torch.equal(one.draws.x, other.draws.x) and torch.equal(
        one.draws.log_w, other.draws.log_w
    )
    # `draw` changed the state that training left, once; no measurement changed it again
    assert one.probes["seen"].tolist() == other.probes["seen"].tolist() == [1, 1]
    assert one.draws.x.abs().max() < 50  # a state that had been drawn from before would be at 100


class Gone(BaseException):
    """The process is no more."""


def killed(sampler, at, folder=Path("other"), **options):
    """A run that saves itself at every step and dies in step number n, for each n in `at`; at last
    it ends, and is returned."""
    for step in at:
        made = 0

        def progress(phase, share):
            nonlocal made
            made += 1
            if made == step:
                raise Gone

        with pytest.raises(Gone):
            run_cell(cell(sampler, **options), folder, progress, 1, {"syntax": "h"}, 0.0)
        assert not list(folder.glob("*.json"))
    return run_cell(cell(sampler, **options), folder, code={"syntax": "h"})


def same_run(one, other):
    """Two runs of one cell, each a record and its folder: bitwise, but for what is clocked."""
    (first, here), (second, there) = one, other
    for key in ("train", "draw", "measure", "network_forward", "network_backward", "notes"):
        assert first.cost[key] == second.cost[key], key
    assert first.spec == second.spec and first.status == second.status
    for end in ("", ".curve"):
        a, b = (read_arrays(f / f"{first.id}{end}.npz") for f in (here, there))
        a.pop("seconds", 0), b.pop("seconds", 0)
        mine, others = a.pop("flops", torch.zeros(0)), b.pop("flops", torch.zeros(0))
        # but for what is made once and checked at first only, which audits may meet or not: of the
        # cheapest step, that of a random walk, it is a seventh
        torch.testing.assert_close(mine, others, rtol=0.2, atol=0.0)
        assert list(a) == list(b)
        assert all(torch.equal(a[k].nan_to_num(), b[k].nan_to_num()) for k in a), end


@pytest.mark.parametrize("name", one_of_each_file())
def test_every_sampler_runs_within_its_budget(name, plugin):
    """Real samplers: reproducible, killed and resumed or not, never over any budget."""
    small = {"paths": 8, "chains": 4, "particles": 4, "ladders": 4, "leaps": 2, "repeats": 2}
    params = ",".join(f"{k}={v}" for k, v in small.items() if getattr(built(name), k, 0) > v)
    reference = type(built(name).reference).__name__  # a start that the method can use
    text = f"{name}[{params + ',' if params else ''}reference={reference}[steps=3]]"
    start = {"parallel_tempering": 600, "ais": 240, "smc": 240, "hmc": 240, "rwm": 240}
    budget = start.get(name, 80)  # ten steps of most; ladders, chains and cheap moves need more
    first = run(text, budget=budget, draws=40, curve=10)
    assert first.status.finished, first.reason
    again = killed(text, (2,), budget=budget, draws=40, curve=10)
    trains = first.cost["train"] != [0, 0]  # else there is nothing to go on with
    assert (first.cost["resumed"], again.cost["resumed"]) == (0, trains)
    same_run((first, Path("runs")), (again, Path("other")))
    allowed, cost = first.spec["budget"], first.cost
    for phase in ("train", "draw", "measure"):
        assert Cost(*allowed[phase]).covers(Cost(*cost[phase])), phase


@pytest.mark.parametrize("name", ["mala", "smc", "parallel_tempering", "log_variance"])
def test_no_curve_changes_a_draw(name, plugin):
    """One sampler of each kind of state."""
    text = f"{name}[reference=Brownian[steps=4]]"
    made = [run(text, budget=600, draws=40, curve=curve) for curve in (10, 0)]
    one, other = (read_outcome(Path("runs"), record.id).draws.x for record in made)
    assert torch.equal(one, other) and made[0].cost["train"] == made[1].cost["train"]


def built(name):
    from tiltbench.plan.spec import build_sampler

    return build_sampler({"name": name, "params": {}})


def test_streams_are_independent_and_fixed():
    first = {p: torch.rand(1000, generator=generator(7, p, "cpu")) for p in STREAMS}
    table = torch.stack(list(first.values()))
    corr = torch.corrcoef(table) - torch.eye(len(STREAMS))
    assert corr.abs().max() < 4 / 1000**0.5
    assert torch.equal(first["train"], torch.rand(1000, generator=generator(7, "train", "cpu")))
    assert not torch.equal(first["train"], torch.rand(1000, generator=generator(8, "train", "cpu")))


# the engine


def engine(cells, seconds=HANG, megabytes=4096, jobs=2, folder=Path("runs"), every=600.0):
    limits = Limits(seconds, megabytes, checkpoint=every)
    local = Local(("",) * jobs, limits)
    return {c.labels["sampler"]: r for c, r in local.run(cells, folder, code_identity())}


def test_one_bad_cell_leaves_the_others(plugin):
    names = ["broken", "crash", "honest", "killed", "killed[once=true]", "hungry", "unfit"]
    shutil.rmtree("killed_once", ignore_errors=True)
    found = engine(suite(*names).cells("cpu"), megabytes=1000)
    status = {name: str(record.status) for name, record in found.items()}
    assert status == {
        "broken": "failed",
        "crash": "failed",
        "honest": "spent",
        "killed": "failed",
        "killed[once=true]": "spent",
        "hungry": "out_of_memory",
        "unfit": "unsupported",
    }
    assert "SIGSEGV" in found["crash"].reason and "about to crash" in found["crash"].traceback
    assert "SIGKILL" in found["killed"].reason and found["killed"].cost["deaths"] == 1
    assert "out of memory" in found["hungry"].reason
    assert len(records(Path("runs"))) == len(names)
    assert {p.suffix for p in Path("runs").iterdir()} <= {".json", ".npz", ".safetensors"}
    one = read_outcome(Path("runs"), found["honest"].id).draws.x
    alone = run("honest", Path("alone"))
    assert torch.equal(one, read_outcome(Path("alone"), alone.id).draws.x)


@pytest.mark.parametrize("name", ["killed[once=true]", "killed[once=true,server=true]"])
def test_a_cell_killed_from_outside_goes_on_from_its_checkpoint(plugin, name):
    """Its process died in the third step; the next one makes that step again and no other."""
    whole = run("honest", Path("whole"))
    resumed = engine(suite(name).cells("cpu"), every=0.0)[name]
    assert (resumed.cost["deaths"], resumed.cost["resumed"]) == (1, 1)
    one, other = (
        read_outcome(Path(folder), record.id).draws
        for folder, record in (("whole", whole), ("runs", resumed))
    )
    assert torch.equal(one.x, other.x) and resumed.cost["train"] == whole.cost["train"]


def test_a_cell_over_its_time_is_stopped(plugin):
    stopped = engine(suite("endless").cells("cpu"), seconds=0.5)["endless"]
    assert stopped.status is Status.OUT_OF_TIME and "0.5 s" in stopped.reason
    assert stopped.cost["seconds"] >= 0.5


def test_leaving_the_engine_kills_what_runs(plugin):
    Path("hold").touch()
    cells = suite("honest", "slow").cells("cpu")
    limits = Limits(HANG, 4096)
    for _, record in Local(("", ""), limits).run(cells, Path("runs"), code_identity()):
        assert record.status is Status.SPENT
        wait_for(lambda: pids(Path()))
        break
    wait_for(lambda: not any(alive(pid) for pid in pids(Path())))
    assert len(records(Path("runs"))) == 1


def pids(folder):
    return [int(path.name) for path in (folder / "pids").glob("*")]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


SUITE = """
[suite]
calls = 400
draws = 30
curve = 8
seeds = 2
checkpoint = 0
[[target]]
name = "odd.py:plane"
"""


def suite_file(*samplers):
    """`kill.toml`: every cell saves itself at every step."""
    rows = [f"[[sampler]]\nname = '{name}'\nlabel = '{name}'" for name in samplers]
    Path("kill.toml").write_text("\n".join([SUITE, *rows]))
    return load_suite("kill.toml").cells("cpu")


DRIVER = """
import sys
import time
sys.path[:] = filter(None, sys.path)  # as in a console command: not from the current directory
from tiltbench.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def driver(*more):
    words = ["run", "--suite", "kill.toml", "--jobs", "2", "--out", "out", "--device", "cpu", *more]
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"},
        # a shell that runs the tests in the background has them ignore SIGINT
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.parametrize("how, code", [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_a_killed_driver_and_what_goes_on(plugin, how, code):
    """It leaves no process and no half result; the next run does only what is left of the cells
    that were running, and ends where an uninterrupted one does.  Its workers do not import from the
    current directory, where a clone may lie."""
    Path("tiltbench").mkdir()
    Path("tiltbench/__init__.py").write_text("raise RuntimeError('the clone')")
    cells = suite_file("odd.py:honest", "odd.py:slow")
    # honest finishes at once; slow is caught in its fifth step, however busy the machine is
    hold, runs = Path("hold"), Path("out/runs")
    hold.touch()
    first = driver()
    caught = [lambda: runs.glob("*.json"), lambda: Path("pids").glob("*")]
    wait_for(lambda: all(len(list(files())) == 2 for files in caught) or first.poll() is not None)
    if how is signal.SIGINT:
        os.killpg(first.pid, how)  # as a terminal does: the parent and every child
    else:
        first.kill()
    output = first.communicate(timeout=HANG)[0]
    assert first.returncode == code and "Traceback" not in output
    assert how is signal.SIGKILL or "Stopped: 2 of 6 cells are recorded in out" in output
    wait_for(lambda: not any(alive(pid) for pid in pids(Path())))
    hold.unlink()
    done = {record.id for record in records(runs)}
    for chosen in cells:
        whole = run_cell(chosen, Path("whole"))
        assert (chosen.id in done) == ("honest" in chosen.title)
        again = (
            read_record(runs / f"{chosen.id}.json")
            if chosen.id in done
            else run_cell(chosen, runs, checkpoint=0.0)
        )
        assert again.cost["resumed"] == (chosen.id not in done)
        same_run((whole, Path("whole")), (again, runs))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_killed_at_random_moments(plugin, seed):
    """SIGKILL, to the driver or to one of its cells, again and again; whatever counts as done is
    never touched again, and at last all is as if nothing had happened."""
    chance = random.Random(seed)
    real = "log_variance[paths=16,reference=Brownian[steps=4]]"
    cells = suite_file("odd.py:slow", real, "mala[chains=8]", "smc")
    runs, kept = Path("out/runs"), {}
    for _ in range(8):
        started = driver("--retry")
        wait_for(lambda: grandchildren(started.pid) or started.poll() is not None)  # noqa: B023
        for _ in range(chance.randint(1, 2)):
            time.sleep(chance.uniform(0, 1.5))
            victims = [started.pid, *grandchildren(started.pid)]
            with contextlib.suppress(ProcessLookupError):
                os.kill(chance.choice(victims), signal.SIGKILL)
        family = grandchildren(started.pid)
        started.kill()
        started.communicate(timeout=HANG)
        wait_for(lambda: not any(alive(pid) for pid in family))  # noqa: B023
        for record in records(runs):
            if record.status.finished:
                path = runs / f"{record.id}.json"
                assert kept.setdefault(path, path.stat().st_mtime_ns) == path.stat().st_mtime_ns
    last = driver("--retry")
    output = last.communicate(timeout=HANG)[0]
    assert last.returncode == 0, output
    assert len(records(runs)) == len(cells) == 8
    assert Path("out/table.md").exists() and Path("out/table.csv").exists()
    assert not list(runs.glob("*checkpoint*"))
    found = [read_record(runs / f"{chosen.id}.json") for chosen in cells]
    for chosen, record in zip(cells, found, strict=True):
        same_run((run_cell(chosen, Path("whole")), Path("whole")), (record, runs))
    assert sum(record.cost["resumed"] for record in found) > 0


def grandchildren(pid):
    """The cells of a driver: its forkserver's children."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    return [p for p, parent in parents.items() if parents.get(parent) == pid]


def test_every_purpose_of_a_run_has_its_own_stream(plugin, monkeypatch):
    """Each is asked for once, by its own name, so that none repeats or shifts another's numbers."""
    asked = []

    def noted(seed, purpose, device="cpu", part=None):
        asked.append(purpose)
        return generator(seed, purpose, device, part)

    for room in ("phases", "training", "curve"):
        monkeypatch.setattr(f"tiltbench.run.{room}.generator", noted)
    record = run("honest", curve=20)
    assert sorted(asked) == sorted(["train", "draw", "truth", "reverse", "probe", "curve"])
    curve = read_arrays(Path(f"runs/{record.id}.curve.npz"))["x"]
    draws = read_outcome(Path("runs"), record.id).draws.x.float()
    rows = [*curve.unbind(0), draws[:20]]
    for one, other in itertools.combinations(rows, 2):
        assert not torch.isclose(one, other).any()  # no set has the noise of another


def test_every_point_of_the_curve_is_paid_for(plugin):
    """As measuring, by 20 values each; and none of it by training or drawing."""
    one, other = (run("honest", curve=curve).cost for curve in (20, 0))
    points = len(read_arrays(next(Path("runs").glob("*.curve.npz")))["spend"])
    assert points > 4
    assert one["measure"][0] - other["measure"][0] == 20 * points
    assert one["train"] == other["train"] and one["draw"] == other["draw"]


def test_the_measuring_budget_is_shared_out_and_no_more(plugin, monkeypatch):
    """Reverse paths, 200 points a draw of every point of the curve, and what is left for probes."""
    given = []

    def noted(self, target, sampler, phase, budget):
        given.append((phase, budget))
        return whole(self, target, sampler, phase, budget)

    whole = Ledger.problem
    monkeypatch.setattr(Ledger, "problem", noted)
    chosen = cell("honest", curve=20)
    run_cell(chosen, Path("runs"), code={"syntax": "h"})
    points = [cost for phase, cost in given if phase == "measure"]
    assert points[:-2] == [Cost(200 * 20, 200 * 20)] * (len(points) - 2)
    unmade = CURVE_POINTS - (len(points) - 2)  # a short training has fewer points
    assert unmade < CURVE_POINTS / 2
    total = Cost(unmade * 200 * 20, unmade * 200 * 20)
    for cost in points:
        total = total.plus(cost)
    assert total == chosen.budget.measure


def test_the_curve_keeps_the_state_as_it_was(plugin):
    """Samplers change theirs in place."""
    curve, state = Curve(Ledger(cell("honest", curve=20)), None, None), [torch.zeros(3)]
    curve.keep(TrainingCost(1, 0.0, 0.0), state)
    state[0] += 1
    assert not curve.states[0].state[0].any()
