"""The site of what is published: every page is there, links lead somewhere, labels are text."""

import math
import re

import pytest

from tests.tools.result_sets import put
from tiltbench.cli.main import main
from tiltbench.report.board import Board, SamplerRow, Spent
from tiltbench.report.publish import publish
from tiltbench.report.site.build import MARK, site
from tiltbench.report.site.method import costs, method, wins
from tiltbench.report.site.results import Result, Set

EVIL = '<script>alert("a")</script>/..'
FLOOR = {"mean": 0.1, "sd": 0.02, "n": 40, "unfit": False}


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Two sets with a method in common, and one of a hostile name."""
    home = tmp_path_factory.mktemp("site")
    for name, others in {"one": ("b",), "two": (EVIL,)}.items():
        for sampler in ("a", *others):
            value = 0.1 if sampler == "a" else 12.8
            made_by = {"name": sampler, "params": {}}
            scores = {"w2": (value, FLOOR)}
            put(home / "results" / name, sampler, 0, scores, made_by=made_by)
        goal = home / "results/published" / name
        publish(home / "results" / name, goal, home / f"{name}.tar", home)
    site(home / "results/published", home / "public")
    return home


def test_there_is_a_page_a_suite_a_method_and_a_target(stored):
    public = stored / "public"
    names = {path.relative_to(public).as_posix() for path in public.rglob("*.html")}
    evil = next(name for name in names if "script" in name)
    assert re.fullmatch(r"methods/script_alert_a_script-[0-9a-f]{8}\.html", evil)
    assert names - {evil} == {
        *("index.html", "suites/one.html", "suites/two.html", "methods/a.html", "methods/b.html"),
        "targets/gmm9.html",
    }


def test_every_link_leads_to_a_page(stored):
    seen = 0
    for path in (stored / "public").rglob("*.html"):
        if path.parent.name != "suites":  # whose links its own script makes
            for link in re.findall(r'href="([^"]+)"', path.read_text()):
                assert (path.parent / link).is_file(), (path, link)
                seen += 1
    assert seen > 10


def test_the_numbers_are_those_of_the_leaderboards(stored):
    page = (stored / "public/methods/b.html").read_text()
    row = re.search(r"<tbody><tr>(.*?)</tr>", page)[1]
    cells = [re.sub("<.*?>", "", cell) for cell in re.findall(r"<td>(.*?)</td>", row)]
    assert cells[0] == "one" and cells[1] == "gmm9" and cells[3] == "b"
    # |12.8 - 0.1| beyond 2 sd = 0.04
    assert cells[4:8] == ["2 of 2", "318×", "w2", "1 of 1"]
    target = (stored / "public/targets/gmm9.html").read_text()
    assert target.index(">a</a>") < target.index(">b</a>")  # the best first


def test_a_method_says_where_it_wins_and_what_it_costs(stored):
    text = (stored / "public/methods/a.html").read_text()
    assert "Of 2 leaderboards it ranks first on 2 (gmm9)." in text
    assert "as good as exact draws in every score on 1 target (gmm9)" in text
    assert "calls in training 1,000" in text
    assert "What it is" not in text  # nothing is registered by that name
    worse = (stored / "public/methods/b.html").read_text()
    assert "it ranks first on 0." in worse and "in every score on 0 targets." in worse
    row = SamplerRow("x", None, 1, 1, {}, {}, frozenset(), Spent(*[math.nan] * 8, False, False))
    none = [Result(Set("s", [], []), Board("t", 1, (), (row,)), row)]
    assert wins(none).startswith("No leaderboard ranks it") and costs(none) == "–"
    about = "".join(method("log_variance", none))
    assert "What it is" in about and "variance" in about


def test_a_target_has_its_law_its_picture_its_floors_and_the_best_figures(stored):
    text = (stored / "public/targets/gmm9.html").read_text()
    assert "2 dimensions; truth: closed form; log Z = 0." in text
    assert text.count("data:image/png;base64,") == 1 and "means m_j in" in text
    best = re.search(r"Best figures.*?<tbody><tr>(.*?)</tr>", text)[1]
    cells = re.findall(r"<td>(.*?)</td>", best)
    assert cells == ["w2 (length) ↓", "0.1 ± 0.02", "0.1", "a"]


def test_labels_are_text_and_no_script_runs(stored):
    for path in (stored / "public").rglob("*.html"):
        text = path.read_text()
        assert "<script>alert" not in text
        assert "default-src 'none'" in text
        if path.parent.name != "suites":
            assert "<script" not in text


def test_its_own_folder_is_replaced_and_no_other(stored, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(stored)
    (stored / "public/old.html").write_text("of before")
    assert main(["publish", "--site", "public"]) == 0
    assert capsys.readouterr().out == (
        "suites: 2, methods: 3, targets: 1; open public/index.html\n"
    )
    assert not (stored / "public/old.html").exists() and (stored / "public" / MARK).exists()
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "index.html").write_text("a page of theirs")
    file = tmp_path / "file"
    file.write_text("of theirs")
    (tmp_path / "bare").mkdir()
    mistakes = {
        ("--site", str(theirs)): "holds things that are no site; name a new folder with --site",
        ("--site", str(file)): "holds things that are no site",
        (): "name the RESULTS to publish, or a folder for the site with --site",
        ("--site",): "--site has no value",
        ("--join",): "name the RESULTS",
        ("--site", "x", "--join"): "--draws and --join are of RESULTS to publish",
        ("--site", "x", "--draws", "y.tar"): "--draws and --join are of RESULTS to publish",
        ("nothing", "--site", "x"): "there are no results in nothing",
        ("--sight", "x"): "there is no option --sight; did you mean '--site'?",
    }
    for words, message in mistakes.items():
        assert main(["publish", *words]) == 2, words
        printed = capsys.readouterr().err
        assert message in printed and printed.count("\n") == 1, printed
    monkeypatch.chdir(tmp_path / "bare")
    assert main(["publish", "--site", "x"]) == 2
    assert "nothing is published in results/published" in capsys.readouterr().err
    assert (theirs / "index.html").read_text() == "a page of theirs"
    assert file.read_text() == "of theirs" and not (stored / "x").exists()
