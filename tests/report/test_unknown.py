"""Tables, sentences and pictures of targets whose truth is unknown."""

import json
import math
from dataclasses import dataclass

import matplotlib.image
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from tests.tools.browser import NAME, Browser
from tests.tools.result_sets import put
from tiltbench.report import write
from tiltbench.report.beside import Seed, _error, _seed, beside, read_beside, written
from tiltbench.report.board import Board, Column, SamplerRow, Spent
from tiltbench.report.compare import FloorStatus, ScoreSummary
from tiltbench.report.frame import collect
from tiltbench.report.pictures.axes import span
from tiltbench.report.pictures.curves import _level, learning
from tiltbench.report.pictures.style import looks
from tiltbench.report.pictures.weights import window
from tiltbench.report.publish import publish
from tiltbench.report.ranks import judged
from tiltbench.report.standings import leaderboard
from tiltbench.report.tables.markdown import _misled, _none_off
from tiltbench.report.tables.unknown import unknown
from tiltbench.samplers.sampler import Draws
from tiltbench.targets.target import Density, Truth


@dataclass(frozen=True)
class Pair(Density):
    name = "pair"
    dim = 2

    def log_rho(self, x):
        return -x.square().sum(-1) / 2

    def statistics(self):
        return {"a": lambda x: x[:, 0], "sum": lambda x: x.sum(-1)}

    def truth(self):
        return Truth("unknown")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def alike(n):
    return torch.full((n,), 1 / n, dtype=torch.float64)


def plain(x):
    return Seed(x, alike(len(x)), None)


def cell(value, metric="ksd"):
    return ScoreSummary(
        value, value, value, 1.0, math.nan, math.nan, FloorStatus.NONE, (0,), (value,)
    )


def board(*samplers):
    spent = Spent(100, 100, 100, 0, 0, 1, 0, 100, False, False)
    rows = [
        SamplerRow(name, None, 1, 1, {}, {"ksd": cell(k)}, frozenset(), spent)
        for k, name in enumerate(samplers)
    ]
    return Board("mine.py", 100, (Column("ksd", "drawn"),), tuple(rows))


# --- what is not said ---------------------------------------------------------------------------


def test_nothing_is_said_of_a_side_that_is_not_there():
    assert _misled([], known=False) == ""
    assert "No run looks good" in _misled([], known=True)
    unranked = board("hmc", "smc")
    assert unranked.unknown and _none_off(unranked) == ""
    text = " ".join(leaderboard([unranked]).split())
    assert "at the floor, as good as" not in text and "lead" not in text
    assert "No ranks" in text and "`tiltbench reference mine.py` certifies" in text


def test_not_moving_wins_no_rank():
    """A chain that never moved may have any ksd: scores without a truth rank nobody."""
    cells = {"ksd": {"unmoved": cell(-50.0), "hmc": cell(0.1)}}
    cells["r_hat"] = {"hmc": cell(1.2)}
    assert judged(cells) == {}


# --- tables -------------------------------------------------------------------------------------


def rows_of(text, start):
    lines = [line for line in text.splitlines() if line.startswith(start)]
    return [[part.strip() for part in line.strip("|").split("|")] for line in lines]


def test_means_errors_and_quantiles_of_named_statistics():
    x = normal(4000, 2)
    (row,) = rows_of(unknown(beside(Pair(), {"one": [plain(x)]})), "| `sum`")
    mean, rest = row[1].split(" ± ")
    error, quantiles = rest.split("<br>")
    y = x.sum(-1)
    assert float(mean) == pytest.approx(float(y.mean()), rel=0.01)
    assert float(error) == pytest.approx(float(y.std()) / math.sqrt(4000), rel=0.2)
    wanted = y.quantile(torch.tensor([0.05, 0.5, 0.95], dtype=y.dtype))
    assert [float(q) for q in quantiles.split(", ")] == pytest.approx(wanted.tolist(), abs=0.03)


def test_weights_carry_the_mean_and_seeds_that_disagree_widen_the_error():
    x = normal(20_000, 2)
    tilted = _seed(Draws(x, x[:, 0]), 2)  # to N(1, 1)
    (row,) = rows_of(unknown(beside(Pair(), {"one": [tilted]})), "| `a`")
    mean, error = row[1].split("<br>")[0].split(" ± ")
    assert abs(float(mean) - 1) < 4 * float(error) < 0.2
    quantiles = [float(q) for q in row[1].split("<br>")[1].split(", ")]
    assert quantiles == pytest.approx([-0.645, 1.0, 2.645], abs=0.1)  # of N(1, 1)
    apart = [plain(normal(400, 2, seed=k) + 3 * k) for k in range(2)]
    (row,) = rows_of(unknown(beside(Pair(), {"one": apart})), "| `a`")
    assert float(row[1].split("<br>")[0].split(" ± ")[1]) == pytest.approx(1.5, abs=0.5)


def test_the_error_of_a_mean_over_runs_by_hand():
    """sd / sqrt(n) of a sample of runs, or what they state themselves where that is more."""
    assert _error([1.0, 2.0, 4.0], [0.1, math.nan, 0.1]) == pytest.approx(math.sqrt(7 / 9))
    assert _error([1.0, 1.0, 1.0], [0.3, 0.0, 0.4]) == pytest.approx(0.5 / 3)
    assert _error([5.0], [0.3]) == 0.3


def test_distances_between_samplers():
    near = [plain(normal(300, 2, seed=k)) for k in range(3)]
    far = [plain(normal(300, 2, seed=9) + 4)]
    (one, two) = rows_of(
        unknown(beside(Pair(), {"near": near, "far": far})).split("**How far")[1], "| `"
    )
    assert abs(float(one[1])) < 0.05 and float(one[2]) > 3 and one[2] == two[1]
    assert two[2] == "–"  # one run


def test_draws_that_cannot_be_used_are_left_out():
    assert _seed(Draws(normal(5, 3)), 2) is None
    assert _seed(Draws(normal(5, 2) * math.nan), 2) is None
    assert _seed(Draws(normal(5, 2), torch.full((5,), -math.inf)), 2) is None
    half = normal(6, 2)
    half[::2] = math.inf
    assert len(_seed(Draws(half), 2).x) == 3
    assert unknown(beside(Pair(), {})) == ""


# --- a folder of results, published and not -------------------------------------------------------

BELL = """
from tiltbench.targets.functions import from_torch

bell = from_torch("bell", lambda x: -x.square().sum(-1) / 2, dim=2, statistics=["left", "right"])
"""
CURVE = {
    "spend": [100, 1000],
    "seconds": [0.1, 1.0],
    "n": 40,
    "metric": "energy_distance",
    **dict.fromkeys(("log_Z_err", "log_Z_se", "distance"), [None, None]),
    "floor": None,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two samplers with two seeds on a density whose truth is unknown, reported and published."""
    home = tmp_path_factory.mktemp("unknown")
    (home / "bell.py").write_text(BELL)
    mine = home / "results" / "mine"
    for seed in range(2):
        for k, sampler in enumerate(("smc", "hmc")):
            scores = {"ksd": 0.1 + k, "log_Z_forward": 1.8 + k}
            given = {"name": str(home / "bell.py"), "params": {}}
            record = put(mine, sampler, seed, scores, of=given, target="bell.py")
            path = mine / "runs" / f"{record.id}.scores.json"
            stored = json.loads(path.read_text())
            stored["curve"] = {
                **CURVE,
                "log_Z_forward": [-4000.0, 1.7 + k],
                "elbo": [None, 1.5 + k],
                "ess_model": [0.1, 0.6],
                "ksd": [2.0, -0.01],
            }
            path.write_text(json.dumps(stored))
    write(mine)
    publish(mine, home / "results" / "published" / "mine", home / "mine.tar", home)
    return mine


def test_published_tables_are_those_of_the_draws(folder):
    """The draws are not published; what they say beside each other is."""
    public = folder.parent / "published" / "mine"
    tables = [(place / "table.md").read_text() for place in (folder, public)]
    parts = [text[text.index("The truth of bell.py") : text.index("## Prov")] for text in tables]
    assert parts[0] == parts[1] and "| `left` | " in parts[0] and "**How far" in parts[0]
    publish(public, public, folder.parent / "again.tar", folder.parent)  # its own source
    assert parts[0] in (public / "table.md").read_text()


def test_what_was_published_and_cannot_be_read_is_left_out(capsys):
    leaderboard = board("hmc", "smc")._replace(
        beside=beside(Pair(), {"hmc": [plain(normal(50, 2))]})
    )
    (row,) = written([leaderboard])
    assert read_beside([row]) == {("mine.py", 100, ""): leaderboard.beside}
    broken = [{**row, "statistics": {"a": ["high"]}}, {**row, "board": ["x"]}, 7]
    assert read_beside(broken) == {}
    assert capsys.readouterr().err.count("is left out") == 3


def test_both_tables_are_in_LaTeX(folder):
    text = (folder / "table.tex").read_text()
    assert r"\label{tab:mine-bell.py-1000-statistics}" in text
    assert r"\texttt{right} & $" in text and text.count(r"\pm") >= 4
    assert r"\label{tab:mine-bell.py-1000-distances}" in text and "5 \\%" in text


def test_curves_have_panels_of_what_can_be_known(folder):
    names = {path.name for path in (folder / "plots").glob("*.png")}
    assert {"bell.py.curves.png", "bell.py.draws.png"} <= names
    frames = collect(folder)
    look, path = looks(["smc", "hmc"]), folder / "narrow.png"
    wide = matplotlib.image.imread(folder / "plots" / "bell.py.curves.png").shape
    lean = {run: {**curve, "elbo": [None] * 2} for run, curve in frames.curves.items()}
    assert learning(path, frames.runs, frames.scores, lean, look)
    assert matplotlib.image.imread(path).shape[1] < 0.85 * wide[1]


def test_the_axis_of_an_estimate_holds_the_later_half_of_the_usual_curves():
    axes = Figure().subplots()
    _level(axes, [np.array([-147.2, -147.0]), np.array([-147.1, -147.3]), np.array([-9e4, 5.0])])
    low, high = axes.get_ylim()
    assert -147.4 < low < -147.25 and -147.05 < high < -146.95


def test_the_page_has_both_tables_and_the_curves(folder, tmp_path):
    if NAME is None:
        pytest.skip("no Chromium on this machine; Debian's package is called chromium")
    browser = Browser(tmp_path / "profile")
    try:
        browser.open(folder / "report.html")
        browser.show("target-0")
        page = browser.run("document.querySelector('main').innerText")
        assert "so there are no ranks" in page and "tiltbench reference bell.py" in page
        assert "What the samplers say" in page and "How far samplers are from each other" in page
        assert "They meet at 0" not in page and "sees what a sampler has missed" in page
        heads = "[...document.querySelectorAll('main figcaption b')].map((b) => b.innerText)"
        assert {"estimate of log Z (nats)", "ELBO (nats)", "effective share of the weights"} <= set(
            browser.run(heads)
        )
        assert "2 of 2 leave the panel and run along its edge" in page
        rows = "[...document.querySelectorAll('main tbody th')].map((h) => h.innerText)"
        assert {"left", "right"} <= set(browser.run(rows))
        assert browser.messages == []
    finally:
        browser.close()


# --- axes ---------------------------------------------------------------------------------------


def test_an_axis_is_set_by_the_usual_runs():
    g = np.random.default_rng(0)
    good = [g.normal(3, 1, 500) for _ in range(4)]
    wild = [g.normal(0, 1, 500) ** 2 * 60_000, np.full(500, 240_000.0), np.full(500, 3.2)]
    low, high = span([*good, *wild])
    assert -1 < low < 0.5 and 5.5 < high < 7
    heavy = np.concatenate([good[0], [-59_502.0, 240_000.0]])
    low, high = span([heavy])
    assert low > -12 and high < 18
    assert span([]) == (0.0, 1.0) and span([np.full(9, 2.0)]) == (2.0, 2.0)


def test_weights_are_shown_around_zero_only_where_log_Z_is_known():
    log_w = np.random.default_rng(0).normal(-147, 1, 500)
    low, high = window(log_w, np.empty(0), False)
    assert -152 < low < -149 and -146 < high < -143
    assert window(log_w, np.empty(0), True)[1] >= 0
