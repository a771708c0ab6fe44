"""Published sets: nothing is lost, nothing in them is executed, their draws are the right ones."""

import hashlib
import io
import json
import pickle
import re
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pandas.testing import assert_frame_equal
from pyarrow import parquet

from tests.tools.result_sets import FLOOR, put
from tiltbench import api
from tiltbench.cli.main import main
from tiltbench.plan.errors import Refused
from tiltbench.records import columns
from tiltbench.records.archive import pack, sums_of, unpack
from tiltbench.records.published import Archive, read, results, write
from tiltbench.records.record import Status, read_record
from tiltbench.report.diff import compare
from tiltbench.report.frame import collect, frames_of
from tiltbench.report.publish import publish

ROOT = Path(__file__).resolve().parents[2]
BEFORE = json.loads((Path(__file__).parent / "published_before.json").read_text(encoding="utf-8"))
SUITES = sorted(set(BEFORE) - {"about"})
PUBLIC = Path("results/published/mine")


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Two samplers with two seeds, one run that failed, all kinds of scores; published."""
    home = tmp_path_factory.mktemp("published")
    mine = home / "results/mine"
    for seed in range(2):
        own = {"w2": (0.1 + 0.2 * seed, FLOOR), "log_Z_err": -0.0, "mmd": "no number | today"}
        put(mine, "a", seed, own, parameters=7 + seed, notes=["π ≈ 3"])
        put(mine, "b", seed, {"w2": 1e-310, "ess_model": float(seed)}, commit="b" * 40)
    put(mine, "c", 0, {}, status=Status.FAILED, reason="broken", peak_memory_mb=float("nan"))
    (mine / "suite.json").write_text(
        json.dumps({"command": "tiltbench run", "cells": [{"id": "f" * 16}]})
    )
    publish(mine, home / PUBLIC, home / "results/mine-draws.tar", home)
    return home


@pytest.fixture
def here(stored, tmp_path, monkeypatch):
    """A copy of it to work in."""
    shutil.copytree(stored, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_is_read_back_is_what_was_recorded(stored):
    plain, public = results(stored / "results/mine"), results(stored / PUBLIC)
    assert public.records == plain.records and len(plain.records) == 5
    assert public.suite == plain.suite and public.published and not plain.published
    one, two = frames_of(plain), frames_of(public)
    assert_frame_equal(one.runs, two.runs, check_exact=True)
    assert_frame_equal(one.scores, two.scores, check_exact=True)
    assert one.curves == two.curves and one.command == two.command == "tiltbench run"
    assert np.signbit(two.scores.set_index("metric").loc["log_Z_err", "value"]).all()


def test_what_is_published(stored):
    names = {str(p.relative_to(stored / PUBLIC)) for p in (stored / PUBLIC).rglob("*.*")}
    assert names == {"runs.parquet", "scores.parquet", "curves.parquet", "table.md"}
    about = columns.read(stored / PUBLIC / "runs.parquet")[1]
    assert len(about["environments"]) == 1  # once, not once a run
    archive = stored / "results/mine-draws.tar"
    assert about["archive"]["sha256"] == hashlib.sha256(archive.read_bytes()).hexdigest()
    one = stored / "results/mine/runs" / f"{next(iter(read(stored / PUBLIC).sums))}.npz"
    digest = hashlib.sha256(one.read_bytes()).hexdigest()
    assert read(stored / PUBLIC).sums[one.stem] == {"draws": digest}


def test_the_same_draws_make_the_same_archive(stored, tmp_path):
    runs = stored / "results/mine/runs"
    sums = sums_of(runs, [r.id for r in results(stored / "results/mine").records])
    made = [pack(runs, sums, tmp_path / name) for name in ("one.tar", "two.tar")]
    assert made[0].sha256 == made[1].sha256 and len(sums) == 4


def test_whoever_reads_results_reads_published_ones(here, capsys):
    before = {path: path.read_bytes() for path in PUBLIC.iterdir()}
    shutil.rmtree("results/mine")
    for command in (["report", "mine"], ["report", str(PUBLIC), "--out", "mine"]):
        assert main(command) == 0
    made = Path("results/mine-published")
    assert (made / "table.md").read_text() == (PUBLIC / "table.md").read_text()
    assert {"report.html", "table.csv", "table.tex"} <= {p.name for p in Path("mine").iterdir()}
    assert main(["export", str(PUBLIC), "scores.csv"]) == 0
    assert Path("scores.csv").read_bytes() == (made / "table.csv").read_bytes()
    assert api.score(PUBLIC).equals(collect(PUBLIC).scores)
    capsys.readouterr()
    assert main(["status", str(PUBLIC)]) == 0
    captured = capsys.readouterr()
    assert "5 of 6 cells (1 failed, 4 spent)" in captured.out and "mine-draws.tar" in captured.out
    assert "c · seed 0: broken" in captured.out and "other code" not in captured.out + captured.err
    assert {path: path.read_bytes() for path in PUBLIC.iterdir()} == before


def test_published_and_plain_are_compared(here, capsys):
    assert main(["diff", str(PUBLIC), "mine"]) == 0
    assert not compare(PUBLIC, Path("results/mine")).worse
    public = read(PUBLIC)
    for scored in public.scores.values():
        scored["scores"]["w2"]["value"] += 9
    write(public, PUBLIC)
    assert {str(row.change.value) for row in compare(PUBLIC, Path("results/mine")).rows} > {
        "the same numbers"
    }


def test_a_published_set_is_published_anew_from_itself(here):
    before = read(PUBLIC)
    (PUBLIC / "table.md").write_text("old")
    shutil.rmtree("results/mine")
    assert main(["publish", str(PUBLIC)]) == 0
    assert read(PUBLIC) == before and "`a`" in (PUBLIC / "table.md").read_text()


def test_other_seeds_are_joined_and_other_settings_left_out(here, capsys):
    """A folder of another day: a's third seed, b at another allowance, c once more."""
    before = read(PUBLIC)
    shutil.rmtree("results/mine")
    mine = Path("results/mine")
    third = put(mine, "a", 2, {"w2": (0.3, FLOOR)})
    other = put(mine, "b", 0, {"w2": 0.5}, limits={"flops": 1e9})
    again = put(mine, "c", 0, {"w2": 0.7})
    assert main(["publish", "mine", "--join"]) == 0
    assert "2 published runs of other settings than now are left out" in capsys.readouterr().err
    after = read(PUBLIC)
    a = [r.id for r in before.records if r.labels["sampler"] == "a"]
    assert {r.id for r in after.records} == {*a, third.id, other.id, again.id}
    assert next(r for r in after.records if r.id == again.id).status is Status.SPENT
    assert {r: after.scores[r] for r in a} == {r: before.scores[r] for r in a}
    assert {r: after.sums[r] for r in a} == {r: before.sums[r] for r in a}
    assert main(["publish", "mine"]) == 0
    assert {r.id for r in read(PUBLIC).records} == {third.id, other.id, again.id}


def test_no_path_of_the_machine_is_published(here):
    """Of a traceback the files of packages are named from the package on, others by their name."""
    trace = (
        'File "/a/b/src/tiltbench/run/phases.py", line 8\nFile "/c/lib/site-packages/torch/x.py"'
    )
    trace += ', line 9\nFile "/home/somebody/mine.py", line 1\nFile "<string>", line 2'
    record = put(Path("results/mine"), "d", 0, {}, status=Status.FAILED, reason=trace)
    assert main(["publish", "mine"]) == 0
    (shown,) = [r.traceback for r in read(PUBLIC).records if r.id == record.id]
    files = ["tiltbench/run/phases.py", "torch/x.py", "mine.py", "<string>"]
    assert re.findall(r'File "(.*?)"', shown) == files


def test_pictures_go_along_that_a_page_shows(here, capsys):
    plots = Path("results/mine/plots")
    plots.mkdir()
    for name in ("seen.png", "hidden.png"):
        (plots / name).write_bytes(b"png")
    Path("README.md").write_text(f"![s]({PUBLIC}/plots/seen.png) ![g]({PUBLIC}/plots/gone.png)")
    assert main(["publish", "mine"]) == 0
    assert [path.name for path in (PUBLIC / "plots").iterdir()] == ["seen.png"]
    assert "has no gone.png, which a page shows" in capsys.readouterr().err


def test_nothing_is_run_into_a_published_set(here, capsys):
    command = ["run", "--targets", "gaussian", "--samplers", "mala", "--out", str(PUBLIC)]
    assert main(command) == 2
    assert "holds published results" in capsys.readouterr().err
    assert not (PUBLIC / "runs").exists()


def test_unscored_runs_are_not_published(here, capsys):
    before = (PUBLIC / "runs.parquet").read_bytes()
    next(Path("results/mine/runs").glob("*.scores.json")).unlink()
    assert main(["publish", "mine"]) == 2
    assert "1 runs of results/mine are not scored" in capsys.readouterr().err
    assert (PUBLIC / "runs.parquet").read_bytes() == before


def test_old_sets_without_draws_are_published(here, capsys):
    for path in Path("results/mine/runs").glob("*.npz"):
        path.unlink()
    Path("results/mine-draws.tar").unlink()
    assert main(["publish", "mine"]) == 0
    assert "of 4 runs the draws are not known" in capsys.readouterr().out
    assert read(PUBLIC).archive is None and not Path("results/mine-draws.tar").exists()
    assert main(["score", str(PUBLIC), "--draws", "x.tar"]) == 2
    assert "published without an archive of its draws" in capsys.readouterr().err
    assert main(["score", str(PUBLIC)]) == 2
    assert "name their archive with --draws" in capsys.readouterr().err


# scoring again


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Runs of the quick suite's kinds, scored by what is here, and published."""
    home = tmp_path_factory.mktemp("ran")
    mine = home / "results/mine"
    for method in ("smc", "log_variance"):
        api.run(api.cell("gmm9", method, budget=600, draws=40, curve=20), mine)
    publish(mine, home / PUBLIC, home / "results/mine-draws.tar", home)
    return home


DRAWS = "results/mine-draws.tar"
AGAIN = ["score", str(PUBLIC), "--draws", DRAWS]


def test_archived_draws_give_the_published_scores(ran, tmp_path, monkeypatch, capsys):
    shutil.copytree(ran, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    shutil.rmtree("results/mine")
    assert main(AGAIN) == 0
    output = capsys.readouterr().out
    assert "of 2 runs:" in output and "the same to the bit" in output and "different" not in output
    assert results(Path("results/mine-rescored")).records == read(PUBLIC).records
    assert main(AGAIN) == 2  # a fresh folder, or none
    assert "results/mine-rescored is not empty" in capsys.readouterr().err

    public = read(PUBLIC)
    wrong = next(s for s in public.scores.values() if s["curve"])
    wrong["scores"]["w2"]["value"] *= 1.01
    wrong["scores"]["mmd"]["value"] *= 1 + 1e-9
    wrong["curve"]["distance"][0] += 1
    write(public, PUBLIC)
    assert main([*AGAIN, "--out", "again"]) == 1
    output = capsys.readouterr().out
    assert (
        "2 different" in output
        and f"{wrong['run']}, w2: " in output
        and "1 the same to round" in output
    )


def test_other_archives_are_refused(here, capsys):
    Path(DRAWS).write_bytes(Path(DRAWS).read_bytes() + b"\0")
    for archive, said in {
        DRAWS: "is not the archive of these results",
        "no.tar": "no file",
    }.items():
        assert main([*AGAIN[:3], archive]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
    assert not Path("results/mine-rescored").exists()


def _member(name, data=b"", **facts):
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for key, value in facts.items():
        setattr(member, key, value)
    return member, data


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda npz: [_member("../../evil.npz", npz)], "no draws of a run published"),
        (lambda npz: [_member("/tmp/evil.npz", npz)], "no draws of a run published"),
        (lambda npz: [_member(f"runs/{'a' * 16}.json", npz)], "no draws of a run published"),
        (
            lambda npz: [_member(f"runs/{'a' * 16}.npz", type=tarfile.SYMTYPE, linkname="/etc")],
            "no draws of a run published",
        ),
        (lambda npz: [_member(f"runs/{'a' * 16}.npz", b"other")], "other draws than those"),
        (lambda npz: [_member(f"runs/{'a' * 16}.npz", npz)] * 2, "no draws of a run published"),
        (lambda npz: [], "lacks 1 files of draws"),
    ],
)
def test_an_archive_writes_nothing_but_draws(make, said, tmp_path):
    """Also where the checksums in a published set are made to fit a hostile archive."""
    npz = b"draws"
    path = tmp_path / "draws.tar"
    with tarfile.open(path, "w") as tar:
        for member, data in make(npz):
            tar.addfile(member, io.BytesIO(data))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    sums = {"a" * 16: {"draws": hashlib.sha256(npz).hexdigest()}}
    with pytest.raises(Refused, match=said):
        unpack(path, Archive("draws.tar", digest, 1), sums, tmp_path / "in/side/runs")
    written = {p for p in tmp_path.rglob("*") if p.is_file() and not p.is_symlink()}
    assert written <= {path, tmp_path / "in/side/runs" / f"{'a' * 16}.npz"}


# damaged and hostile files


class Evil:
    def __reduce__(self):
        return Path.touch, (Path("executed"),)


def _edited(name, edit):
    """Writes a table again, as anybody might who has pyarrow."""

    def change(folder):
        table = parquet.read_table(folder / name)
        parquet.write_table(edit(table), folder / name)

    return change


def _without(column):
    return lambda table: table.drop_columns([column])


def _filled(column, value, kind="string"):
    def edit(table):
        at = table.column_names.index(column)
        return table.set_column(at, column, pyarrow.array([value] * len(table), kind))

    return edit


def _about(**changed):
    def edit(table):
        about = {**json.loads(table.schema.metadata[b"tiltbench"]), **changed}
        return table.replace_schema_metadata({"tiltbench": json.dumps(about)})

    return edit


def _extension(table):
    field = pyarrow.field("x", "binary", metadata={
        "ARROW:extension:name": "arrow.py_extension_type",
        "ARROW:extension:metadata": pickle.dumps(Evil()),
    })  # fmt: skip
    return table.append_column(field, pyarrow.array([b""] * len(table), "binary"))


NUMBERS = pyarrow.list_(pyarrow.float64())
DAMAGES = {
    "gone": lambda folder: (folder / "scores.parquet").unlink(),
    "cut": lambda folder: (folder / "runs.parquet").write_bytes(b"PAR1" + b"\0" * 99),
    "empty": lambda folder: (folder / "curves.parquet").write_bytes(b""),
    "other table": _edited("runs.parquet", lambda t: pyarrow.table({"x": [1]})),
    "no id": _edited("runs.parquet", _without("id")),
    "another id": _edited("runs.parquet", _filled("id", "0" * 16)),
    "another seed": _edited("runs.parquet", _filled("spec.seed", 7, "int64")),
    "no whole seed": _edited("runs.parquet", _filled("spec.seed", "7")),
    "no JSON": _edited("runs.parquet", _filled("spec.target:json", "{")),
    "deep JSON": _edited("runs.parquet", _filled("spec.target:json", "[" * 100_000)),
    "no status": _edited("runs.parquet", _filled("status", "fine")),
    "no machine": _edited("runs.parquet", _filled("env", 9, "int64")),
    "minus machine": _edited("runs.parquet", _filled("env", -1, "int64")),
    "no table about": _edited("runs.parquet", lambda t: t.replace_schema_metadata({})),
    "no list about": _edited("runs.parquet", _about(environments=None)),
    "a later format": _edited("runs.parquet", _about(format=2)),
    "odd archive": _edited("runs.parquet", _about(archive={"name": 1, "sha256": 2, "bytes": "3"})),
    "odd suite": _edited("runs.parquet", _about(suite={"cells": [3]})),
    "texts for values": _edited("scores.parquet", _filled("value", "big")),
    "no run": _edited("scores.parquet", _filled("run", "0" * 16)),
    "no metric": _edited("scores.parquet", _filled("metric", None)),
    "odd floor": _edited("scores.parquet", lambda t: t.append_column("floor", t["reason"])),
    "uneven": _edited("curves.parquet", _filled("distance", [1.0], NUMBERS)),
    "an extension": _edited("scores.parquet", _extension),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_published_set_is_one_sentence(damage, here, capsys):
    damage(PUBLIC)
    assert main(["export", str(PUBLIC), "scores.csv"]) == 2
    error = capsys.readouterr().err
    assert str(PUBLIC) in error and "take it from the repository again" in error
    assert error.count("\n") == 1 and len(error) < 600
    assert not Path("executed").exists() and not Path("scores.csv").exists()


@pytest.mark.parametrize("command", ["report", "status", "publish", "diff", "score"])
def test_every_command_says_it(command, here, capsys):
    DAMAGES["cut"](PUBLIC)
    more = {"diff": ["mine"], "score": ["--draws", DRAWS]}.get(command, [])
    assert main([command, str(PUBLIC), *more]) == 2
    error = capsys.readouterr().err
    assert "runs.parquet" in error and error.count("\n") == 1


def test_a_run_does_not_bring_its_code(here, capsys):
    """A record whose target is a file inside the set is refused, and the file not imported."""
    Path(PUBLIC / "evil.py").write_text("open('executed', 'w')")
    path = next(p for p in Path("results/mine/runs").glob("*.json") if p.name.count(".") == 1)
    record = read_record(path)
    spec = {**record.spec, "target": {"name": f"{PUBLIC}/evil.py", "params": {}}}
    other = type(record)(spec, record.labels, Status.FAILED, env={"x": 1})
    write(results(PUBLIC)._replace(records=[other], scores={}, sums={}), PUBLIC)
    assert main(["report", str(PUBLIC)]) == 2
    assert "names code in its own results folder" in capsys.readouterr().err
    assert not Path("executed").exists()


def test_columns_keep_every_value(tmp_path):
    rows = [
        {"a": 1, "b": 0.1, "c": "é", "d": [1.5, None], "e": {"x": [1, "y"]}, "f": True},
        {"a": 2**62, "b": -0.0, "d": [], "e": None, "g": 2**70, "h": "\ud800", "i": 1},
        {"b": float("inf"), "f": False, "i": 1.0},
    ]
    columns.write(tmp_path / "x.parquet", rows, {"z": "double"}, about={"k": [1]})
    back, about = columns.read(tmp_path / "x.parquet", {"z": "double"})
    assert back == [{k: v for k, v in row.items() if v is not None} for row in rows]
    assert [type(row["i"]) for row in back[1:]] == [int, float] and about == {"k": [1]}
    with pytest.raises(ValueError, match="a value of z is not of type double"):
        columns.write(tmp_path / "x.parquet", [{"z": "text"}], {"z": "double"})


def test_a_record_may_hold_nulls(here):
    record = results(PUBLIC).records[0]
    cost = {**record.cost, "parameters": None, "seconds": None}
    odd = type(record)(record.spec, record.labels, record.status, cost=cost, code={}, env={})
    write(results(PUBLIC)._replace(records=[odd], scores={}, sums={}), PUBLIC)
    assert read(PUBLIC).records == [odd]


# what the repository holds


def _numbers(folder):
    scores = frames_of(read(folder)).scores
    keys = ["id", "metric", "value", "se", "n", "floor_mean", "floor_sd", "floor_n"]
    rows = scores[scores["value"].notna()][keys].astype(object)
    rows = rows.where(rows.notna(), None).values.tolist()
    numbers = [[*row[:2], *(None if x is None else float(x) for x in row[2:])] for row in rows]
    return sorted(numbers, key=lambda row: row[:2])


@pytest.mark.parametrize("suite", SUITES)
def test_the_numbers_are_those_of_the_tables_published_before(suite):
    """A suite that is run and published anew leaves `published_before.json`."""
    before, now = BEFORE[suite], _numbers(ROOT / "results/published" / suite)
    assert len(now) == before["scores"]
    for row in before["some"]:
        assert row in now
    assert hashlib.sha256(json.dumps(now).encode()).hexdigest() == before["sha256"]


def test_what_git_holds_of_results_is_shown_or_read():
    """Pictures that a page shows, and the form that `tiltbench publish` writes; small enough."""
    home = ROOT / "results/published"
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    for path in home.rglob("*.png"):
        assert f"{path.relative_to(ROOT)})" in text, f"no page shows {path}"
    assert not list(home.glob("*/runs")) and not list(home.rglob("*.html"))
    suites = [path.parent for path in home.glob("*/runs.parquet")]
    kinds = {path.suffix for suite in suites for path in suite.rglob("*.*")}
    assert len(suites) >= 9 and kinds == {".parquet", ".md", ".png"}
    assert sum(path.stat().st_size for path in home.rglob("*")) < 8e6
