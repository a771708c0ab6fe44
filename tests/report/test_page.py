"""The HTML page: what it holds, and how it behaves in a real browser where there is one."""

import base64
import hashlib
import json
import re
import shlex

import numpy as np
import pytest
import torch
from scipy import stats

from tests.tools.browser import NAME, Browser
from tests.tools.result_sets import FLOOR, GMM9, put
from tiltbench.cli.main import app
from tiltbench.metric import Outcome
from tiltbench.plan.spec import build_target, spec
from tiltbench.records.record import Record, Status
from tiltbench.report.board import boards
from tiltbench.report.compare import holm
from tiltbench.report.frame import collect
from tiltbench.report.page.page import command, inert, page
from tiltbench.report.page.views import DIGITS, both_sides, decoded, histograms, laws, plane, views
from tiltbench.samplers.sampler import Draws

EVIL = """<img src=x onerror=alert(1)>"'&`{{data}}</script><script>alert(2)</script><!--"""
SEEDS = range(5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three good samplers, one that fails, one whose every word is hostile."""
    folder = tmp_path_factory.mktemp("results") / "a{{data}}<b>"
    rng = np.random.default_rng(0)
    for seed in SEEDS:
        for name, level in {"good": 0.2, "alike": 0.2, "bad": 3.0}.items():
            scores = {
                "energy_distance": (level + 0.01 * rng.normal(), FLOOR),
                "log_Z_err": float(rng.normal() * level),
                "grad_cov": level,
                "w2": "no exact draws of the target are known",
            }
            put(folder, name, seed, scores)
    for seed in range(3):
        end = {"status": Status.DIVERGED, "reason": "log rho is nan"} if seed else {}
        put(folder, "broken", seed, {"energy_distance": (0.5, FLOOR)}, **end)
    put(folder, EVIL, 0, {"energy_distance": EVIL}, notes=[EVIL], target=f"gmm9{EVIL}")
    put(folder, EVIL, 1, {}, status=Status.FAILED, reason=EVIL, target=f"gmm9{EVIL}")
    (folder / "suite.json").write_text(json.dumps({"command": EVIL, "cells": []}))
    frames = collect(folder)
    (folder / "report.html").write_text(page(frames, boards(frames), folder), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def text(folder):
    return (folder / "report.html").read_text(encoding="utf-8")


# --- what it holds -------------------------------------------------------------------------------


def test_records_can_add_no_markup(text):
    assert len(re.findall("<script", text)) == len(re.findall("</script", text)) == 2
    assert "<img" not in text and "alert(2)</" not in text and "<b>" not in text
    (data,) = re.findall(r'id="data">(.*?)</script>', text, re.S)
    assert json.loads(data)["command"] == EVIL
    assert not set("<>&") & set(inert({EVIL: [EVIL]}))


def test_only_its_own_script_may_run(text):
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in text


def test_nothing_is_fetched_from_elsewhere(text):
    addresses = set(re.findall(r"\w+://[^\"'\s]*", text))
    assert addresses == {"http://www.w3.org/2000/svg"}  # the name of a vocabulary
    rest = re.sub(r'id="data">.*?</script>', "", text, flags=re.S)
    assert not re.search(r"\ssrc=|@import|url\(|innerHTML|eval\(", rest)


def test_the_quick_suite_stays_under_five_megabytes(folder, text):
    runs, fixed = len(collect(folder).runs), 100_000
    assert len(text.encode()) < fixed + runs * (5_000_000 - fixed) / 189


def test_a_run_names_the_command_that_makes_it_again():
    sampler = "adjoint_sampling[reference=Stationary[steps=8],lr=0.001,model=Mlp[width=8]]"
    asked = [
        "run",
        "--targets",
        "ising_hs[side=4]",
        "--samplers",
        sampler,
        "--time-limit",
        "60",
        "--draws",
        "77",
        "--flops",
        "123456789",
    ]

    def cells(words):
        return app().parse_args(words)[1].arguments["asked"].plan().cells("cpu")

    (cell,) = cells([*asked, "--seeds", "3,"])
    words = shlex.split(command(Record(cell.spec, {}, Status.SPENT)))
    (again,) = cells(words[1:])
    assert words[0] == "tiltbench" and again.id == cell.id
    gone = {"name": "x", "params": {"part": {"name": EVIL, "params": {}}}}
    assert command(Record({**cell.spec, "sampler": gone}, {}, Status.SPENT)) == ""


@pytest.mark.parametrize("name", ["gmm9", "funnel", "dw4", "ising_hs[side=4]", "tilt_linear"])
def test_every_kind_of_target_has_pictures(name, capsys):
    from tiltbench.plan.spec import parse

    target = build_target(parse(name))
    g = torch.Generator().manual_seed(0)
    exact = target.truth().sample(200, g).double()
    log_w = torch.randn(200, generator=g, dtype=torch.float64)
    far = exact.clone()
    far[:50] += 1e6
    content = views(target, {run: Outcome(Draws(x, log_w), None, {}) for run, x in
                           {"one": exact, "far": far}.items()})  # fmt: skip
    assert not capsys.readouterr().err
    assert len(content["laws"]) == len(laws(target)) >= 2
    for law in content["laws"]:
        assert sum(law["runs"]["one"]) == pytest.approx(1000, abs=60)
    plain = not (target.particles or target.lattice)
    assert (content["plane"] is not None) == plain
    if plain:
        assert content["plane"]["runs"]["far"]["outside"] == pytest.approx(0.25, abs=0.03)
        assert bool(content["plane"]["contours"]) == (name == "gmm9")
    assert content["weights"]["one"]["backward"] == []


def test_points_and_shares_are_those_of_the_draws():
    target = build_target(GMM9)
    x = target.truth().sample(300, torch.Generator().manual_seed(1)).double()
    seen = plane(target, x, {"run": x})
    low, high = (torch.tensor(seen[side]) for side in ("low", "high"))
    back = low + torch.tensor(decoded(seen["runs"]["run"]["points"])) * (high - low)
    assert (back - x).abs().max() <= (high - low).max() / 4095
    law = next(law for law in laws(target) if law.title == "x1")
    histogram = histograms(law, x, {"run": x + 1})
    middles = np.linspace(histogram["low"], histogram["high"], 81)[1::2]
    shift = (middles * histogram["runs"]["run"]).sum() - (middles * histogram["exact"]).sum()
    assert shift / 1000 == pytest.approx(1, abs=0.05)
    log_w = torch.tensor([0.0, 1.0, 2.0, torch.nan, -torch.inf], dtype=torch.float64)
    both = both_sides(Outcome(Draws(x[:5], log_w), log_w[:2], {}), 1.0)
    assert (
        sum(both["forward"]) == pytest.approx(1000, abs=1) and both["low"] < -1 < 1 < both["high"]
    )


# --- in a browser --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(tmp_path_factory, folder):
    if NAME is None:
        pytest.skip("no Chromium on this machine; Debian's package is called chromium")
    browser = Browser(tmp_path_factory.mktemp("profile"))
    browser.open(folder / "report.html")
    yield browser
    browser.close()


@pytest.fixture
def shown(browser, folder):
    browser.look("light", 1280, 900)
    browser.messages.clear()
    yield browser
    assert browser.messages == []
    page = (folder / "report.html").resolve().as_uri()
    assert {address.split("#")[0] for address in browser.fetched} == {page}


VIEWS = ["overview", "target-0", "target-1", "compare", "runs", "reading"]
CELLS = "[...document.querySelectorAll('main tbody tr')].map((r) => r.children[{}].innerText)"


def test_every_view_is_drawn_and_fits_every_screen(shown):
    for scheme, width in (("light", 1280), ("dark", 360)):
        shown.look(scheme, width, 800)
        for view in VIEWS:
            shown.show(view)
            assert len(shown.run("document.querySelector('main h2').innerText")) > 3, view
            assert shown.run("document.documentElement.scrollWidth") <= width, view
        ink, paper = (
            sum(shown.run(f"getComputedStyle(document.body).{what}.match(/\\d+/g).map(Number)"))
            for what in ("color", "backgroundColor")
        )
        assert abs(ink - paper) > 500 and (ink < paper) == (scheme == "light")
    shown.show("target-0")
    kinds = shown.run("[...document.querySelectorAll('main figcaption b')].map((b) => b.innerText)")
    assert {"|log Z error| (nats)", "energy_distance", "grad_cov"} <= set(kinds)
    assert {"exact draws", "good"} <= set(kinds)
    assert shown.run("document.querySelectorAll('main svg path').length") > 20


def test_every_record_is_shown_with_its_end(shown, folder):
    records = collect(folder).records
    shown.show("runs")
    assert set(shown.run(CELLS.format(0))) == {record.id for record in records}
    failed = "document.querySelectorAll('main tbody .failed').length"
    assert shown.run(failed) == sum(not r.status.finished for r in records)
    shown.show("target-0")
    page = shown.run("document.querySelector('main').innerText")
    assert "1 of 3 seeds, 2 diverged" in page
    last = shown.run("[...document.querySelectorAll('main h3')].map((h) => h.innerText)")[-1]
    assert last == "Marks, failures, dashes and notes"  # pictures come first
    assert "diverged: log rho is nan: broken (seed 1, 2)" in page
    assert "0.01±0.005" in page


def test_heads_sort_and_boxes_filter(shown):
    shown.show("target-0")
    first = "document.querySelector('main tbody tr button').innerText"
    heads = "[...document.querySelectorAll('main thead button')]"
    head = f"{heads}.find((b) => b.innerText.startsWith('energy_distance'))"
    shown.run(f"{head}.click()")
    up = [float(c.split()[0]) for c in shown.run(CELLS.format(5))]
    assert up == sorted(up) and len(up) == 4
    assert shown.run(f"{head}.parentNode.ariaSort") == "ascending"
    shown.run(f"{head}.click()")
    assert [float(c.split()[0]) for c in shown.run(CELLS.format(5))] == up[::-1]
    assert shown.run(f"{head}.parentNode.ariaSort") == "descending" and shown.run(first) == "bad"
    typed = "{ const box = document.querySelector('main input'); box.value = %s;"
    typed += " box.dispatchEvent(new Event('input')); }"
    shown.run(typed % "'al'")
    assert shown.run(CELLS.format(0)) == ["alike\n5 of 5 seeds"]
    captions = "[...document.querySelectorAll('main .panels figcaption b')].map((b) => b.innerText)"
    assert set(shown.run(captions)) == {"exact draws", "alike"}
    shown.show("runs")
    shown.run(typed % "'diverged BROKEN'")
    assert len(shown.run(CELLS.format(0))) == 2
    shown.run(typed % "'nothing at all'")
    message = shown.run("document.querySelector('main tbody').innerText")
    assert message == "Nothing matches the filter."


def test_bold_is_what_is_not_significantly_different_from_the_best(shown, folder):
    (board, _) = boards(collect(folder))
    bold = {row.sampler for row in board.rows if "energy_distance" in row.best}
    shown.show("target-0")
    rows = "[...document.querySelectorAll('main tbody tr')].filter((r) => r.querySelector('.best'))"
    named = set(shown.run(f"{rows}.map((r) => r.querySelector('button').innerText)"))
    assert named == bold == {"good", "alike"}


def test_hostile_words_are_text(shown):
    for view in VIEWS:
        shown.show(view)
        assert shown.run("document.querySelectorAll('img, main script, main b b').length") == 0
        assert shown.run("document.scripts.length") == 2
    shown.show("target-1")
    assert shown.run("document.querySelector('main tbody button').innerText") == EVIL
    assert EVIL in shown.run("document.querySelector('main ul.reasons').innerText")


def test_the_keyboard_opens_the_runs_behind_a_row(shown, folder):
    shown.show("target-0")
    shown.run("document.querySelector('main thead button').focus()")
    for _ in range(20):
        shown.press("Tab")
        if shown.run("document.activeElement.className") == "name":
            break
    name = shown.run("document.activeElement.innerText")
    shown.press("Enter")
    assert shown.run("document.querySelector('dialog').open")
    dialog = shown.run("document.querySelector('dialog').textContent")
    mine = [r for r in collect(folder).records if r.labels["sampler"] == name]
    assert all(r.id in dialog for r in mine) and "a" * 40 in dialog and "torch 2, numpy 2" in dialog
    shown.press("Escape")
    assert not shown.run("document.querySelector('dialog').open")


def test_two_methods_meet_in_a_paired_test(shown, folder):
    scores = collect(folder).scores.set_index(["metric", "sampler", "seed"])["value"]
    shown.show("compare")
    for at, name in ((1, "good"), (2, "bad")):
        select = f"document.querySelectorAll('main select')[{at}]"
        shown.run(f"{select}.value = '{name}'; {select}.dispatchEvent(new Event('change'))")
    rows = "[...document.querySelectorAll('main tbody tr')]"
    row = rows + ".find((r) => r.innerText.startsWith('{}'))"
    cells = shown.run(f"[...{row.format('energy_distance')}.children].map((c) => c.innerText)")
    good, bad = (scores["energy_distance"][n].to_numpy() for n in ("good", "bad"))
    assert float(cells[3].split()[0]) == pytest.approx((good - bad).mean(), rel=0.01)
    assert cells[4] == "5" and cells[5] == "< .0001" and cells[6] == "A better"
    cells = shown.run(f"[...{row.format('log_Z_err')}.children].map((c) => c.innerText)")
    good, bad = (abs(scores["log_Z_err"][n].to_numpy()) for n in ("good", "bad"))
    assert float(cells[5]) == pytest.approx(stats.ttest_rel(good, bad).pvalue, abs=1e-4)


def test_its_statistics_are_those_of_the_tables(shown):
    for freedom in (1, 2, 3, 4, 7, 12):
        for t in (0.0, 0.3, 2.5, 30.0):
            assert shown.run(f"tail({t}, {freedom})") == pytest.approx(
                2 * stats.t.sf(t, freedom), abs=1e-12
            )
    d = [0.3, 0.9, -0.1, 0.5]
    for scale in (1.0, 1e-200):
        interval = shown.run(f"paired({[v * scale for v in d]})")
        known = stats.ttest_1samp(d, 0)
        half = known.confidence_interval(0.95).high - np.mean(d)
        assert interval["p"] == pytest.approx(known.pvalue)
        assert interval["half"] == pytest.approx(half * scale, rel=1e-6)
    p = {"0": 0.011, "1": 0.3, "2": 0.02, "3": 0.001}
    rejected = shown.run(f"[...holm({list(p.values())})].map(String)")
    assert set(rejected) == holm(p) == {"0", "2", "3"}


# --- another page: many targets, and images ------------------------------------------------------


FACES = """
from dataclasses import dataclass
import torch
from tiltbench.targets.target import Density, Truth

@dataclass(frozen=True)
class Faces(Density):
    name = "faces"
    dim = 6
    pixels = (3, 2)

    def log_rho(self, x):
        return -x.square().sum(-1) / 2

    def truth(self):
        def sample(n, g):
            return torch.randn(n, 6, generator=g, dtype=torch.float64)
        return Truth("closed form", log_Z=0.0, sample=sample)
"""


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Seven targets and methods that drew fewer, one of the targets of images."""
    folder = tmp_path_factory.mktemp("wide")
    fewer = {"mean": 0.012, "sd": 0.1, "n": 20, "unfit": False}
    for i, target in enumerate(("funnel", "gmm40", "gmm9", "ising_hs", "many_well", "phi4")):
        for name, floor in (("good", FLOOR), ("trajectory_balance", FLOOR), ("few", fewer)):
            value = 0.011 if name == "good" else 0.01 + 0.05 * 10**i
            scores = {"energy_distance": (value, floor), "log_Z_err": 0.3}
            record = put(folder, name, 0, scores, target=target, version=i + 1)
            (folder / "runs" / f"{record.id}.npz").unlink()  # no pictures of these
    plug = tmp_path_factory.mktemp("plugins") / "faces.py"
    plug.write_text(FACES)
    faces = spec(build_target({"name": f"{plug}:faces", "params": {}}))
    put(folder, "good", 0, {"energy_distance": (9.0, FLOOR)}, target="many_well_mdelta", of=faces)
    frames = collect(folder)
    (folder / "report.html").write_text(page(frames, boards(frames), folder), encoding="utf-8")
    return folder


def test_seven_targets_fit_a_laptop_and_the_floor_stands_in_one_row(browser, wide):
    browser.open(wide / "report.html")
    for width in (1400, 1600):
        browser.look("light", width, 900)
        table = "document.querySelector('main .scroll')"
        assert browser.run(f"{table}.scrollWidth - {table}.clientWidth") == 0
    shown = browser.run(f"{table}.innerText")
    assert shown.count("0.01±0.005") == 7 and shown.count("0.012±0.1, n 20") == 6
    body = browser.run("document.querySelector('main tbody').innerText")
    assert "floor" not in body and "n 20" in body


def test_colours_tell_the_distance_from_the_floor_whatever_others_score(browser, wide):
    browser.open(wide / "report.html")
    cell = "DATA.boards[{}].rows.find((r) => r.sampler === '{}').cells.energy_distance.d"
    assert browser.run(cell.format(0, "good")) == 0
    far = [browser.run(cell.format(i, "trajectory_balance")) for i in range(5)]
    sds = [0.05 * 10**i / 0.005 for i in range(5)]
    assert far == pytest.approx([min(np.log(s / 2) / np.log(100), 1) for s in sds], abs=1e-5)
    (alone,) = browser.run("DATA.boards.find((b) => b.target === 'many_well_mdelta').rows")
    assert alone["cells"]["energy_distance"]["d"] == 1  # the best of its column, and far off


def test_images_are_drawn_as_images(browser, wide):
    browser.open(wide / "report.html")
    at = browser.run("DATA.boards.findIndex((b) => b.target === 'many_well_mdelta')")
    browser.show(f"target-{at}")
    kinds = "[...document.querySelectorAll('main canvas')].map((c) => c.getAttribute('aria-label'))"
    assert browser.run(kinds) == ["draws of exact draws", "draws of good"]
    data = browser.run(f"DATA.views[{at}]")
    assert data["plane"] is None and len(data["images"]["exact"]) == 25 * 6
    greys = "[...document.querySelectorAll('main canvas')][0].getContext('2d')"
    row = browser.run(f"[...{greys}.getImageData(1, 1, 2, 3).data]")[::4]
    assert row == [round(255 * DIGITS.index(c) / 63) for c in data["images"]["exact"][:6]]
    assert browser.messages == []
