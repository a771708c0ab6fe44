"""Pictures of particles and lattices, from fabricated runs; what a panel shows is counted."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from tiltbench.metric import Outcome
from tiltbench.plan.spec import build_target
from tiltbench.records.files import write_arrays
from tiltbench.records.record import Record, Status, write_outcome, write_record
from tiltbench.records.store import read_scores
from tiltbench.report import report
from tiltbench.report.board import summaries
from tiltbench.report.frame import collect
from tiltbench.report.pictures import strips
from tiltbench.report.pictures.particles import HALF, particles
from tiltbench.report.pictures.particles import discs as drawing
from tiltbench.report.pictures.strips import Sample, gathered, histogram, reference
from tiltbench.report.pictures.style import HUES
from tiltbench.report.tables.legend import head, number
from tiltbench.samplers.sampler import Draws
from tiltbench.score.curve import DISTANCES
from tiltbench.score.folder import score
from tiltbench.targets.target import Truth

PLUGIN = """
from dataclasses import dataclass
import torch
from tiltbench.targets.target import Density, Truth, centred

HELD = torch.randn(130, 8, generator=torch.Generator().manual_seed(5), dtype=torch.float64)

@dataclass(frozen=True)
class Balls(Density):
    name = "balls"
    dim = 8
    particles = (4, 2)

    def log_rho(self, x):
        return -centred(x, 2).square().sum(-1) / 2

    def truth(self):
        def sample(n, g):
            if n > len(HELD):
                raise ValueError(f"the reference holds {len(HELD)} points, not {n}")
            return centred(HELD[torch.randperm(len(HELD), generator=g)[:n]], 2)
        return Truth("made up", log_Z=0.0, sample=sample, held=len(HELD))

@dataclass(frozen=True)
class Sea(Density):
    name = "sea"
    dim = 12
    lattice = (3, 4)

    def log_rho(self, x):
        return -x.square().sum(-1) / 2

    def truth(self):
        def sample(n, g):
            return torch.randn(n, 12, generator=g, dtype=torch.float64)
        return Truth("closed form", log_Z=0.0, sample=sample)

@dataclass(frozen=True)
class Chain(Density):
    name = "chain"
    dim = 5
    lattice = (5,)

    def log_rho(self, x):
        return -x.square().sum(-1) / 2

    def truth(self):
        return Truth("unknown")
"""
N = 80


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two samplers on each of three plug-ins; the second is too wide and has a draw of NaN."""
    folder = tmp_path_factory.mktemp("physics")
    plug = tmp_path_factory.mktemp("plugins") / "plug.py"  # results bring no code with them
    plug.write_text(PLUGIN)
    for name in ("balls", "sea", "chain"):
        spec = {"name": f"{plug}:{name}", "params": {}}
        dim = build_target(spec).dim
        for place, sampler in enumerate(("good", "wide")):
            g = torch.Generator().manual_seed(place)
            x = (1 + 2 * place) * torch.randn(N, dim, generator=g, dtype=torch.float64)
            if sampler == "wide":
                x[7] = torch.nan
            record = Record(
                {
                    "target": spec,
                    "target_version": 1,
                    "sampler": {"name": sampler, "params": {}},
                    "seed": 0,
                    "device": "cpu",
                    "draws": N,
                    "budget": {"train": [100, 100], "draw": [0, 0], "measure": [0, 0]},
                },
                {"target": name, "sampler": sampler},
                Status.SPENT,
                "",
                cost={"train": [100, 100], "draw": [N, 0], "measure": [0, 0], "seconds": 1.0},
                env={},
                code={"version": "0", "commit": "abc", "dirty": False, "hash": "1"},
            )
            write_outcome(folder / "runs", record.id, Outcome(Draws(x), None, {}))
            curve = {
                "spend": torch.tensor([10, 100]),
                "x": torch.stack([3 * x[10:40], x[10:40]]).float(),
                "log_w": torch.full((2, 30), torch.nan),
            }
            write_arrays(folder / "runs" / f"{record.id}.curve.npz", curve)
            write_record(folder / "runs", record)
    score(folder, jobs=1)
    return folder


@pytest.fixture(scope="module")
def table(folder):
    return report(folder).read_text(encoding="utf-8")


def scores_of(folder, target, sampler):
    from tiltbench.records.store import records

    for record in records(folder / "runs"):
        if record.labels == {"target": target, "sampler": sampler}:
            return read_scores(folder / "runs", record.id)
    raise AssertionError("no such run")


def axes():
    return Figure().subplots()


def source(seed):
    return torch.Generator().manual_seed(seed)


def test_each_kind_of_target_has_its_own_pictures(folder, table):
    names = {path.name for path in (folder / "plots").iterdir()}
    assert {"balls.particles.png", "sea.lattice.png", "chain.lattice.png"} <= names
    assert not {"balls.lattice.png", "sea.particles.png", "chain.particles.png"} & names
    for name in names:
        assert (folder / "plots" / name).read_bytes().startswith(b"\x89PNG")


def test_a_target_of_another_kind_has_none(folder, tmp_path):
    from tiltbench.records.store import records

    path = tmp_path / "none.png"
    target = build_target({"name": "gmm9", "params": {}})
    every = records(folder / "runs")
    assert not particles(
        path, folder / "runs", target, every, dict.fromkeys(["good", "wide"], HUES[0])
    )
    assert not path.exists()


def test_metrics_of_the_kind_stand_in_the_table_and_others_are_not_mentioned(table):
    balls, sea = (table.split(f"## {name} · 100 calls")[1] for name in ("balls", "sea"))
    balls, sea = balls.split("\n## ")[0], sea.split("\n## ")[0]
    for name in ("config_w2", "distance_w2", "energy_w2"):
        assert f"{head(name)} |" in balls
    for name in ("magnetisation_err", "two_point_err", "energy_w2"):
        assert f"{head(name)} |" in sea
    assert "magnetisation" not in balls and "config_w2" not in sea
    assert "no particles" not in table and "not a lattice" not in table
    assert "### Particles and lattices" in table


def test_a_reference_too_small_for_a_floor_says_so(folder, table):
    """130 points: 80 draws can be scored, a floor would need 160."""
    stored = scores_of(folder, "balls", "good")["scores"]
    assert stored["energy_w2"]["value"] > 0 and "floor" not in stored["energy_w2"]
    assert "cannot be had of 130" in stored["energy_w2"]["no_floor"]
    assert "no_floor" not in stored["magnetisation_err"]
    assert "no floor: two sets of 80 exact draws cannot be had" in table
    wide = scores_of(folder, "balls", "wide")["scores"]["energy_w2"]
    assert wide == {"value": None, "reason": "1 of 80 draws are not finite"}
    assert "floor" in scores_of(folder, "sea", "good")["scores"]["two_point_err"]


def test_curves_of_particles_have_energies(folder):
    curve = scores_of(folder, "balls", "good")["curve"]
    first, last = curve["energy_w2"]
    assert first > 2 * last > 0
    assert curve["floor_energy_w2"]["n"] == 30
    assert "energy_w2" not in scores_of(folder, "sea", "good")["curve"]


def test_distances_and_curves_of_particles_are_config_w2(folder, table):
    metrics = {n: scores_of(folder, n, "good")["curve"]["metric"] for n in ("balls", "sea")}
    assert metrics == {"balls": "config_w2", "sea": "energy_distance"}
    frames = collect(folder)
    for name, metric in metrics.items():
        scores = frames.scores[frames.scores["target"] == name]
        cells = summaries(scores)
        assert next(n for n in DISTANCES if n in cells) == metric
        (mine,) = cells[metric].values()  # the other sampler has a draw of NaN
        known = scores[(scores["metric"] == metric) & scores["value"].notna()]["value"]
        assert mine.median == float(known.iloc[0])
    overview = table.split("## Overview")[1].split("##")[0]
    by_distance = overview.split("**Distance of the unweighted draws")[1]
    (row,) = (line for line in by_distance.splitlines() if line.startswith("| `good` |"))
    shown = dict(zip(frames.runs["target"].unique(), row.split(" | ")[1:], strict=False))
    for name, metric in metrics.items():
        mine = frames.scores[
            (frames.scores["target"] == name) & (frames.scores["metric"] == metric)
        ]
        value = float(mine["value"].dropna().iloc[0])
        assert number(value) in shown[name]


def test_histograms_are_shares_and_what_is_outside_is_stated():
    exact = torch.linspace(0, 1, 301, dtype=torch.float64)[:, None]
    draw = histogram(lambda x: x[:, 0], exact, exact)
    panel = axes()
    x = torch.cat([exact, torch.full((100, 1), 9.0), torch.full((1, 1), torch.inf)])
    draw(panel, x.double(), "#123456")
    filled, outline = panel.patches[:-1], panel.patches[-1]
    assert sum(bar.get_height() for bar in filled) == pytest.approx(301 / 402)
    assert panel.texts[0].get_text() == "25.1% outside"
    assert to_rgb(filled[0].get_facecolor()) == to_rgb("#123456")
    heights = np.unique(outline.get_xy()[:, 1])
    assert heights.max() < 1 and panel.get_ylim()[1] > heights.max()
    low, high = panel.get_xlim()
    assert low == pytest.approx(-1 / 3, abs=0.01) and high == pytest.approx(4 / 3, abs=0.01)


def test_histograms_without_exact_draws_share_the_window_of_all():
    typical = torch.linspace(-2, 2, 100, dtype=torch.float64)[:, None]
    draw = histogram(lambda x: x[:, 0], torch.empty(0, 1), [typical])
    panels = axes(), axes()
    for panel, x in zip(panels, (typical[:50], typical[50:]), strict=True):
        draw(panel, x, "#123456")
    assert panels[0].get_xlim() == panels[1].get_xlim()
    assert not panels[0].texts


def test_a_configuration_is_centred_and_far_particles_are_counted():
    typical = torch.randn(500, 12, generator=source(1), dtype=torch.float64)
    look = drawing(3, typical)
    x = torch.tensor([[0, 0, 1, 0, 0, -1, 1, 0, 0, -1, 0, 0]], dtype=torch.float64)[0]
    plain, moved, far = axes(), axes(), axes()
    look(plain, x, "#112233")
    look(moved, x + torch.tensor([7.0, -3.0, 2.0]).repeat(4), "#112233")
    places = [panel.collections[0].get_offsets() for panel in (plain, moved)]
    np.testing.assert_allclose(places[0], places[1], atol=1e-9)
    near = plain.collections[0].get_sizes()
    assert list(near) == sorted(near) and near[0] < near[-1]  # drawn from the back to the front
    look(far, x * torch.tensor([1.0] * 6 + [30.0] * 6), "#112233")
    assert far.texts[0].get_text() == "2 outside" and not plain.texts
    assert len(far.collections[0].get_offsets()) == 2


def test_no_disc_is_cut_by_the_edge():
    """The widest one, as near to the eye and to the edge as a disc may be."""
    typical = torch.randn(500, 12, generator=source(1), dtype=torch.float64)
    look, panel = drawing(3, typical), axes()
    window = 1.15 * float(np.quantile(typical.abs().numpy(), 0.999))
    look(panel, torch.tensor([1, 1, 1, -1, -1, -1] * 2) * window * 0.999, "#112233")
    discs, limit = panel.collections[0], panel.get_xlim()[1]
    radius = np.sqrt(discs.get_sizes()) / 2 * limit / (HALF * 72)  # in the units of the axes
    places = np.abs(discs.get_offsets()).max(1)
    assert len(places) == 4 and np.all(places + radius <= limit)
    assert np.max(places + radius) == pytest.approx(limit, rel=0.01)  # and no room is wasted


def test_a_finite_reference_shows_what_it_holds():
    def truth(held):
        def sample(n, g):
            if n > held:
                raise ValueError("too many")
            return torch.zeros(n, 3)

        return Truth("made up", sample=sample, held=held)

    def shown(known):
        target = type("Finite", (), {"truth": lambda self: known, "dim": 3})()
        return len(reference(target))

    assert [shown(truth(n)) for n in (5000, 1999, 600, 100)] == [2000, 1000, 500, 0]
    assert shown(Truth("unknown")) == 0


def test_draws_that_are_not_finite_are_counted(folder):
    from tiltbench.records.store import records

    mine = [r for r in records(folder / "runs") if r.labels["target"] == "sea"]
    samples = gathered(folder / "runs", mine)
    assert samples["good"].lost == 0 and len(samples["good"].x) == N
    assert samples["wide"].lost == 1 and len(samples["wide"].x) == N - 1


@pytest.mark.parametrize("n, places", [(0, [None] * 6), (2, [0, 1] + [None] * 4)])
def test_few_draws_leave_panels_empty(n, places, tmp_path):
    assert strips._spread(n) == places
    assert strips._spread(600)[0] == 0 and strips._spread(600)[-1] == 599
    shown = []
    strips.strips(
        tmp_path / "few.png",
        {"a": Sample(torch.zeros(n, 2, dtype=torch.float64), 0)},
        torch.empty(0, 2, dtype=torch.float64),
        [strips.Measure("nothing", lambda panel, x, colour: None)],
        ("draws", lambda panel, x, colour: shown.append(colour)),
        {"a": HUES[0]},
    )
    assert shown == [HUES[0]] * n and (tmp_path / "few.png").exists()
