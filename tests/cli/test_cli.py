"""The command line: what it says, what it refuses, what it leaves behind."""

import json
import math
import shlex
import subprocess
import sys
from dataclasses import replace
from subprocess import PIPE

import pytest

from tiltbench.cli.arguments import RESULTS, automatic, natural, seeds, setting, split, whole
from tiltbench.cli.main import main
from tiltbench.cli.run import _verdict, alone
from tiltbench.plan.errors import Refused
from tiltbench.plan.spec import METRICS, STUDIES
from tiltbench.plan.suite import Choice, Suite
from tiltbench.plan.toml import suite_names
from tiltbench.records.published import read
from tiltbench.records.record import Record, Status, write_record
from tiltbench.samplers.registry import SAMPLERS
from tiltbench.targets.registry import TARGETS

SMALL = Suite("s", "", 1000, 50, (0,), (Choice.of("gaussian"),), (Choice.of("mala"),), curve=250)
HEAVY = {"torch", "numpy", "scipy", "ot", "pandas", "matplotlib"}


LIGHT = [
    *(["--help"], ["run", "--help"], ["list", "targets"], ["list", "networks"]),
    *(
        ["list", "metrics"],
        ["list", "suites"],
        ["run"],
        ["publish", "nowhere"],
        ["tune", "nowhere"],
    ),
]


def test_words_need_no_torch(tmp_path):
    """Ten commands in one fresh interpreter: what one of them imported, the next would find."""
    code = (
        "import sys\nfrom tiltbench.cli.main import main\n"
        f"for words in {LIGHT!r}:\n"
        "    try: main(words)\n    except SystemExit: pass\n"
        f"    heavy = {HEAVY!r} & set(sys.modules)\n    assert not heavy, (words, sorted(heavy))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


COMMANDS = "base check diff draw export floor import list new publish reference report run".split()
COMMANDS += "score status study tune versus".split()


def test_every_command_has_help(capsys):
    for command in COMMANDS:
        assert main([command, "--help"]) == 0
        output = capsys.readouterr().out
        assert f"Usage: tiltbench {command}" in output and "None" not in output
        assert max(map(len, output.splitlines())) <= 100
    assert main(["--help"]) == 0
    output = capsys.readouterr().out
    assert all(f"\n  {command} " in output for command in COMMANDS)


@pytest.mark.parametrize(
    "kind, names",
    [("targets", TARGETS.entries), ("samplers", SAMPLERS.entries)]
    + [("metrics", METRICS.entries), ("suites", suite_names()), ("studies", STUDIES.entries)],
)
def test_lists_name_all_and_cut_nothing(kind, names, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "70")
    assert main(["list", kind]) == 0
    lines = capsys.readouterr().out.splitlines()[kind == "targets" :]  # a heading
    heads = [line for line in lines if not line.startswith(" ")]
    assert [line.split()[0] for line in heads] == sorted(names)
    assert max(map(len, lines)) <= 70
    said = "".join("".join(lines).split())
    for entry in names.values():
        if isinstance(entry, str):
            assert entry and "".join(entry.split()) in said
        else:
            assert entry.summary
            assert entry.dim.replace(" ", "") + "".join(entry.summary.split()) in said


@pytest.mark.parametrize(
    "name, said",
    [
        ("gmm9", ["gmm9 (target)", "It has no parameters", "dimension ", "2", "log Z "]),
        ("gmm_weighted[dim=3]", ["dim: int = 3", "exact draws", "yes", "2, of weights 0.333 to"]),
        ("dw4", ["4 in 2 dimensions", "+- 0.0068", "60,000 stored", "observable energy"]),
        ("rings", ["rings (target)", "modes"]),
        ("mala", ["mala (sampler)", "chains: int = 128", "`chains` chains start from the base"]),
        ("log_variance", ["lr: float = 0.003", "of Adam", "(Brownian or Scattered or Stationary)"]),
        ("pis", ["Path integral sampler"]),
        ("Brownian", ["(reference process)", "ratio: float = 5"]),
        ("Mlp", ["(network)", "width: int = 64", "wherever a parameter takes such a part"]),
        ("w2", ["(metric)", "needs", "sample", "length"]),
        ("bias", ["(study)", "`tiltbench study bias` runs it"]),
        (
            "quick",
            [
                "(suite)",
                "2,000,000 calls, 8e+10 flops",
                "1,000 to score",
                "0, 1, 2",
                "3 targets",
                "gmm9",
            ],
        ),
        ("mine.py", ["mine (target)", "width: float = 2", "of the bell", "unknown"]),
    ],
)
def test_a_name_shows_what_is_known_of_it(name, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    (tmp_path / "mine.py").write_text(MINE)
    assert main(["list", name]) == 0
    page = capsys.readouterr().out
    assert all(" ".join(part.split()) in " ".join(page.split()) for part in said), page
    assert max(map(len, page.splitlines())) <= 100


MINE = '''
from dataclasses import dataclass
from tiltbench.targets.target import Density, Truth

@dataclass(frozen=True)
class Mine(Density):
    """log rho = -|x / width|^2 / 2."""

    name = "mine"
    dim = 1
    width: float = 2.0  # of the bell

    def log_rho(self, x):
        return -(x[..., 0] / self.width) ** 2 / 2

    def truth(self):
        return Truth("unknown")
'''


ANY = ["--targets", "gmm9", "--samplers", "mala"]


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["run"], "name a --suite, or both"),
        (["run", "--suite", "smokey"], "did you mean 'smoke'"),
        (["run", "--suite", "no/such.toml"], "there is no file no/such.toml"),
        (["run", "--targets", "gmm8", "--samplers", "mala"], "did you mean 'gmm9'"),
        (["run", "--targets", "gmm9", "--samplers", "malo"], "did you mean 'mala'"),
        (
            ["run", "--targets", "gmm9", "--samplers", "log_variance[path=3]"],
            "did you mean 'paths'",
        ),
        (["run", "--targets", "no.py", "--samplers", "mala"], "there is no file no.py"),
        (
            ["run", "--suite", "smoke", "--targets", "gmm8"],
            "has no target 'gmm8'; did you mean 'gmm9'",
        ),
        (["run", *ANY, "--budget", "many"], "--budget many is not a whole number"),
        (["run", *ANY, "--budget", "-3"], "--budget -3 is not"),
        (["run", *ANY, "--budget", "1.5"], "--budget 1.5 is not"),
        (["run", *ANY, "--seeds", "5:0"], "--seeds 5:0 names no seeds"),
        (["run", *ANY, "--budget", ""], "--budget '' is not a whole number"),
        (["run", *ANY, "--draws", ""], "--draws '' is not a whole number"),
        (["run", *ANY, "--seeds", ""], "--seeds '' names no seeds"),
        (["run", "--targets", "gmm9", "--samplers", ","], "--samplers ',' names nothing"),
        (["run", *ANY, "--out", "/dev/null"], "results cannot be written to /dev/null"),
        (["run", *ANY, "--out", "/dev/null/here"], "(Not a directory); name another folder"),
        (["new", "target", "mine", "--out", "/dev/null"], "/dev/null cannot be used (File exists)"),
        (["base", "digits", "--kind", "flow", "--out", "/dev/null/x"], "name another folder with"),
        (["run", "--targets", "gmm9", "--samplers", "hmc[leaps=0]"], "leaps is 0; it must be"),
        (["floor", "--draws", ""], "--draws '' is not a whole number"),
        (["floor", "--draws", "1"], "has no spread to measure"),
        (["run", *ANY, "--jobs", "two"], "--jobs two is not"),
        (["run", *ANY, "--jobs", "0"], "such as 4 or 1e6, or auto"),
        (["run", *ANY, "--gpu-share", "half"], "--gpu-share half is not a share of a GPU"),
        (["run", *ANY, "--device", "cpu", "--tf32"], "the device here is cpu: choose cuda, or"),
        (["study", "memory", "--device", "cpu", "--tf32"], "add --device cuda, or leave it out"),
        (["run", *ANY, "--set", "mala"], "--set mala is not readable"),
        (
            ["run", *ANY, "--set", "*.lr="],
            "*.lr= has no value behind the equals sign; write one, as",
        ),
        (
            ["run", *ANY, "--set", "*.lr=1e-3"],
            "none of gmm9, mala that * stands for has a parameter",
        ),
        (["list", "targtes"], "nothing is called 'targtes'; did you mean 'targets'?"),
        (["list", "gmm8"], "nothing is called 'gmm8'; did you mean 'gmm9'? `tiltbench list KIND`"),
        (["list", "Mlp[widht=3]"], "Mlp has no parameter 'widht'; did you mean 'width'"),
        (["list", "no.py"], "there is no file no.py"),
        (["run", *ANY, "--set", "mala.chain=3"], "`tiltbench list mala` says what they mean"),
        (["rnu"], "there is no command 'rnu'; did you mean 'run'?"),
        (
            ["run", "--bugdet", "3"],
            "no option --bugdet; did you mean '--budget'? `tiltbench run --h",
        ),
        (["run", "gmm9"], "nothing is expected in the place of 'gmm9'; write --targets gmm9"),
        (["run", "mine.toml"], "in the place of 'mine.toml'; write --suite mine.toml"),
        (["publish", "a", "b"], "of 'b'; `tiltbench publish --help` shows what there is"),
        (["run", *ANY, "--device", "gpu"], "--device cannot be 'gpu'; did you mean 'cpu'?"),
        (["run", "--set", "--retry"], "--set has no value behind it; `tiltbench run --help`"),
        (["new"], "KIND is missing; `tiltbench new --help`"),
        (["import", "x.npz", "--target", "gmm9"], "--calls is missing"),
        (["check"], "NAMES is missing"),
        (["run", *ANY, "--set", "malo.chains=3"], "did you mean 'mala'"),
        (["run", *ANY, "--set", "mala.chain=3"], "did you mean 'chains'"),
        (["status", "nothing"], "there are no results in nothing"),
        (["score", "nothing"], "there are no results in nothing"),
        (["report", "nothing"], "there are no results in nothing"),
        (["publish", "nothing"], "there are no results in nothing"),
        (["floor", "--targets", "gmm8"], "did you mean 'gmm9'"),
        (["floor", "gmm8"], "did you mean 'gmm9'"),
        (["check", "gmm8"], "did you mean 'gmm9'"),
        (["check", "no/such.py:it"], "there is no file no/such.py; check the path"),
        (["check", "gmm9[foo=1]"], "no parameter 'foo'. It takes none"),
    ],
)
def test_wrong_arguments_end_with_one_sentence(arguments, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir()), "a refused command left something behind"


def test_commas_inside_brackets_do_not_split():
    assert split("a,b[x=1,y=P[z=2,w=3]], c") == ["a", "b[x=1,y=P[z=2,w=3]]", "c"]
    assert split("") == []


def test_numbers_and_ranges():
    assert whole("1e6", "") == 10**6 and whole("40_000", "") == 40_000
    assert natural("0", "") == 0 and automatic("auto", "") is None and automatic("2", "") == 2


def test_seeds_are_counted_as_in_a_suite_file():
    assert seeds("3") == (0, 1, 2) and seeds("1") == (0,) and seeds("0") == (0,)
    assert seeds("0:5") == (0, 1, 2, 3, 4) and seeds("3:4") == (3,)
    assert seeds("0,7") == (0, 7) and seeds("3,") == (3,)
    for wrong in ("-1", "5:0", "0,0", ",", "", "1.5", "a", "1:2:3"):
        with pytest.raises(Refused, match="names no seeds; write how many, such as 3, a range"):
            seeds(wrong)
    with pytest.raises(Refused, match="20,261,129 seeds; write 20261129, for one of that number"):
        seeds("20261129")


def test_settings():
    assert setting("log_variance.lr=1e-3,3e-4") == ("log_variance", "lr", (1e-3, 3e-4))
    assert setting("dir/my.py:mine.n=2") == ("dir/my.py:mine", "n", (2,))
    assert setting("a[b=1.5].reference.steps=8") == ("a[b=1.5]", "reference.steps", (8,))
    owner, key, values = setting("a.reference=Brownian[steps=8,ratio=2],Stationary")
    assert (owner, key) == ("a", "reference")
    assert [value["name"] for value in values] == ["Brownian", "Stationary"]


def test_a_pattern_sets_what_has_the_parameter(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    what = "run --targets gmm9,gmm_weighted --samplers mala,pis,log_variance --seeds 1 --dry-run"
    assert main([*what.split(), "--set", "*.lr=1e-3", "--set", "gmm*.dim=3,4"]) == 0
    output = capsys.readouterr().out
    assert "12 cells (3 targets x 4 samplers x 1 seeds)" in output  # with the untrained base
    for title in ("gmm9 · mala ·", "gmm_weighted[dim=4] · pis[lr=0.001] ·", "gmm_weighted[dim=3]"):
        assert title in output
    assert "mala[" not in output and "gmm9[" not in output


def test_the_command_is_kept_as_typed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    typed = [*RUN, "--set=mala.chains=5", "--set", "gaussian.std=2.0", "--plugin", "a b.py"]
    (tmp_path / "a b.py").write_text(MINE)
    monkeypatch.setattr("tiltbench.cli.run._run_all", lambda *given: None)
    monkeypatch.setattr("tiltbench.cli.run.score_and_report", lambda out: None)
    assert main(typed) == 1
    capsys.readouterr()
    kept = json.loads((tmp_path / RESULTS / "adhoc/suite.json").read_text())["command"]
    assert shlex.split(kept) == ["tiltbench", *typed]


def test_dry_run_shows_the_grid_and_runs_nothing(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = [
        "run",
        "--suite",
        "smoke",
        "--targets",
        "gmm9",
        "--samplers",
        "mala",
        "--seeds",
        "0:2",
    ]
    assert main([*command, "--set", "mala.chains=5,10", "--budget", "3e3", "--dry-run"]) == 0
    output = capsys.readouterr().out
    assert "6 cells (1 targets x 3 samplers x 2 seeds), 6 to run on " in output
    assert "training takes at most 18,000 calls in all" in output
    for title in ("mala[chains=5] · seed 0", "mala[chains=10] · seed 1"):
        assert title in output
    assert "gmm9 · untrained · seed 1" in output
    assert not list(tmp_path.iterdir())


def test_namesakes_of_other_draws_are_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = "run --targets gaussian --samplers mala --seeds 0 --budget 1e3 --device cpu --dry-run"
    for draws, seed, flops, said in (
        (50, 0, math.inf, False),
        (20, 1, math.inf, False),
        (20, 0, 1e9, False),  # stands in another table
        (20, 0, math.inf, True),
    ):
        (cell,) = replace(SMALL, flops=flops).cells("cpu")
        cell = replace(cell, draws=draws, seed=seed)
        write_record(RESULTS / "adhoc/runs", Record(cell.spec, cell.labels, Status.FAILED))
        assert main([*command.split(), "--draws", "50"]) == 0
        found = "1 other records in results/adhoc carry the names" in capsys.readouterr().out
        assert found == said
    for limit in ("--flops", "--seconds"):  # another table: no seed of this one
        assert main([*command.split(), "--draws", "50", limit, "9"]) == 0
        assert "other records" not in capsys.readouterr().out


@pytest.mark.parametrize("status", [Status.UNSUPPORTED, Status.SPENT])
def test_a_run_of_which_nothing_applies_says_so(status, capsys):
    cells = replace(SMALL, seeds=(0, 1)).cells("cpu")
    statuses = (Status.UNSUPPORTED, status)
    made = {
        cell.id: Record(cell.spec, cell.labels, each, "it never does")
        for cell, each in zip(cells, statuses, strict=True)
    }
    assert _verdict(cells, made, []) == 0
    output = capsys.readouterr().out
    nothing = "Nothing ran, as no method here applies to its target: it never does\n"
    assert output == (nothing if status is Status.UNSUPPORTED else "")


BAD = """
from dataclasses import dataclass
from typing import ClassVar
from tiltbench.samplers.sampler import Draws, Sampler, Unsupported
from tiltbench.targets.bases.linear import Linear
from tiltbench.targets.bases.references import Brownian

@dataclass(frozen=True)
class Odd(Sampler):
    name: ClassVar[str] = "odd"
    reference: Linear = Brownian()
    apply: bool = False
    def init(self, problem, budget, generator):
        if not self.apply:
            raise Unsupported("it never does")
        raise ValueError("it is broken")
    def step(self, problem, state, generator): ...
    def draw(self, problem, state, n, generator): ...
"""


def test_from_run_to_publication(tmp_path, monkeypatch, capsys):
    """One whole life: run with a failure, repeat nothing, repeat the failure, status, publish."""
    (tmp_path / "odd.py").write_text(BAD)
    what = ["--targets", "gaussian", "--samplers", "mala,odd.py,odd.py:odd[apply=true]"]
    what += ["--seeds", "0", "--budget", "1e3", "--draws", "50", "--device", "cpu"]

    monkeypatch.chdir(tmp_path)

    def tiltbench(*arguments):
        code = main(arguments)
        return code, capsys.readouterr().out

    code, said = tiltbench("run", *what)
    assert code == 1, said
    assert "1 of 4 cells failed" in said and "ValueError: it is broken" in said
    again = said.splitlines()[-1].partition("tiltbench ")[2]
    assert again.endswith("--retry") and "Traceback" not in said
    out = tmp_path / RESULTS / "adhoc"
    records = sorted(p for p in out.glob("runs/*.json") if p.name.count(".") == 1)
    statuses = sorted(json.loads(p.read_text())["status"] for p in records)
    assert len(records) == 4 and set(statuses) - {"spent", "done"} == {"failed", "unsupported"}
    before = {p: p.stat().st_mtime_ns for p in records}

    code, said = tiltbench(*shlex.split(again))
    assert code == 1 and "4 cells (1 targets x 4 samplers x 1 seeds), 1 to run" in said
    after = {p: p.stat().st_mtime_ns for p in records}
    assert [json.loads(p.read_text())["status"] for p in records if after[p] != before[p]] == [
        "failed"
    ]

    (tmp_path / "odd.py").write_text(BAD.replace("raise ValueError", "raise Unsupported"))
    code, said = tiltbench("run", *what, "--dry-run")
    assert "2 recorded cells come from other code" in said and ", 0 to run" in said
    code, said = tiltbench("run", *what, "--stale")
    assert code == 0 and ", 2 to run" in said, said

    code, said = tiltbench("status", "adhoc")
    assert code == 0 and "4 of 4 cells recorded" in said
    code, said = tiltbench("publish", "adhoc")
    assert code == 0, said
    public = tmp_path / RESULTS / "published/adhoc"
    kinds = {path.suffix for path in public.rglob("*") if path.is_file()}
    assert kinds == {".parquet", ".md"} and len(read(public).scores) == 2


def test_floors_of_one_target_leave_the_others(tmp_path, monkeypatch):
    import tiltbench.score.floor

    shipped = tmp_path / "floors.json"
    monkeypatch.setattr(tiltbench.score.floor, "SHIPPED", shipped)
    for target, draws in [("gaussian", "20"), ("gmm9", "20"), ("gaussian", "20,30")]:
        assert main(["floor", "--targets", target, "--draws", draws]) == 0
    rows = json.loads(shipped.read_text())["floors"]
    found = sorted((row["target"]["name"], row["n"]) for row in rows)
    assert found == [("gaussian", 20), ("gaussian", 30), ("gmm9", 20)]


def test_checking(capsys, tmp_path):
    assert main(["check", "gaussian"]) == 0
    assert capsys.readouterr().out.startswith("ok ")
    (tmp_path / "bad.py").write_text("x = (")
    assert main(["check", str(tmp_path / "bad.py")]) == 1
    assert "BAD" in capsys.readouterr().out


@pytest.mark.parametrize(
    "text, said",
    [
        (
            "raise RuntimeError('not\\ntoday')",
            "raises RuntimeError: not today; make `python odd.py`",
        ),
        ("raise SystemExit(0)", "raises SystemExit: 0"),
        ("import mathematics", "raises ModuleNotFoundError"),
    ],
)
def test_a_plug_in_that_cannot_be_imported_is_one_sentence(
    text, said, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd.py").write_text(text + BAD)
    assert main(["run", "--targets", "gmm9", "--samplers", "odd.py"]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert main(["check", "odd.py"]) == 1
    assert said in capsys.readouterr().out


def test_an_empty_plug_in_names_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd.py").write_text("")
    assert main(["run", "--targets", "odd.py", "--samplers", "mala"]) == 2
    assert "odd.py names no plug-in" in capsys.readouterr().err


RUN = ["run", "--targets", "gaussian", "--samplers", "mala", "--budget", "1e3", "--draws", "50"]
RUN += ["--seeds", "0:2", "--device", "cpu"]


def test_broken_files_count_as_not_done(tmp_path, monkeypatch, capsys):
    """A record and draws cut short: told, skipped by what reads, made anew by `run`."""
    monkeypatch.chdir(tmp_path)
    again = ["untrained" if word == "mala" else word for word in RUN]
    assert main(again) == 0
    out = tmp_path / RESULTS / "adhoc"
    first, second = sorted(p for p in (out / "runs").glob("*.json") if p.name.count(".") == 1)
    draws = second.with_suffix(".npz")
    draws.write_bytes(draws.read_bytes()[:-50])
    assert main(["status", "adhoc"]) == 0
    captured = capsys.readouterr()
    assert "1 of 2 cells recorded" in captured.out and f"{draws.name} is cut short" in captured.err

    first.write_text(first.read_text()[:100])
    assert main(["report", "adhoc"]) == 0  # of the scores, which need no draws
    assert f"{first.name} is not a readable record" in capsys.readouterr().err
    for command in ("score", "publish"):
        assert main([command, "adhoc"]) == 2
        error = capsys.readouterr().err
        assert f"{first.name} is not a readable record" in error
        assert "holds no records of runs" in error
    assert main(again) == 0
    captured = capsys.readouterr()
    assert "2 to run" in captured.out and f"{first.name} is not a readable record" in captured.err
    assert main(["status", "adhoc"]) == 0
    assert "2 of 2 cells recorded" in capsys.readouterr().out

    public = tmp_path / RESULTS / "published/adhoc"
    assert main(["publish", "adhoc"]) == 0
    assert {record.id for record in read(public).records} == {first.stem, second.stem}
    second.write_text("{")
    assert main(["publish", "adhoc"]) == 0
    assert {record.id for record in read(public).records} == {first.stem}


def test_nothing_to_publish_leaves_what_was_published(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    out, public = tmp_path / RESULTS / "mine", tmp_path / RESULTS / "published/mine"
    for folder in (out / "runs", public):
        folder.mkdir(parents=True)
    (public / "table.md").write_text("precious")
    assert main(["publish", "mine"]) == 2
    error = capsys.readouterr().err
    assert "holds no records of runs" in error
    assert error.count("\n") == 1
    assert [p.name for p in public.iterdir()] == ["table.md"]


def test_two_runs_do_not_share_a_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    out = tmp_path / RESULTS / "adhoc"
    hold = (
        "import sys\nfrom pathlib import Path\nfrom tiltbench.cli.run import alone\n"
        "with alone(Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.read()"
    )
    command = [sys.executable, "-c", hold, str(out)]
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True) as other:
        try:
            assert other.stdout.readline() == "held\n"
            assert main(RUN) == 2
            error = capsys.readouterr().err
            assert "another run is at work in" in error and error.count("\n") == 1
            assert main([*RUN, "--dry-run"]) == 0
        finally:
            other.kill()
    with alone(out):  # the lock went with its process
        pass


def test_floors_are_written_once(tmp_path, monkeypatch):
    """No half-made file ever stands in the place of the shipped one."""
    import tiltbench.score.floor

    shipped = tmp_path / "floors.json"
    monkeypatch.setattr(tiltbench.score.floor, "SHIPPED", shipped)
    assert main(["floor", "--targets", "gaussian", "--draws", "20"]) == 0
    write, seen = tiltbench.score.floor.write_floors, []

    def watched(path, entries):
        rows = list(entries)
        seen.extend([len(rows)] if path == shipped else [])
        write(path, rows)

    monkeypatch.setattr(tiltbench.score.floor, "write_floors", watched)
    assert main(["floor", "--targets", "gmm9", "--draws", "20"]) == 0
    assert seen == [2]


def test_floors_of_a_plug_in_do_not_ship(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text('class Mine:\n    name = "mine"\n')
    assert main(["floor", "--targets", "mine.py", "--draws", "20"]) == 2
    assert "do not ship" in capsys.readouterr().err


def test_list_tells_of_limits_of_a_target_and_of_the_untrained_base(tmp_path, capsys):
    file = tmp_path / "own.toml"
    file.write_text(
        "[suite]\ncalls = 900\ndraws = 5\nseeds = 2\n"
        '[[target]]\nname = "gaussian"\n[[target]]\nname = "gmm9"\nflops = 1e6\n'
        '[[sampler]]\nname = "mala"\ncalls = 100\n[[sampler]]\nname = "smc"\n'
    )
    assert main(["list", str(file)]) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "training 900 calls on gmm9 900 calls, 1e+06 flops draws" in output
    assert "cells 8, and 8 of the untrained base" in output
