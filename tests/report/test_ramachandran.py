"""Pictures of molecules: contours on the torus, panels and the page, from fabricated runs."""

import math
from dataclasses import dataclass

import pytest
import torch
from matplotlib.image import imread

from tiltbench.metric import Outcome
from tiltbench.plan.spec import build_target
from tiltbench.records.record import Record, Status, write_outcome
from tiltbench.report.page.views import decoded, laws, views
from tiltbench.report.pictures.ramachandran import SPREAD, log_density, plane, ramachandran, torus
from tiltbench.samplers.sampler import Draws
from tiltbench.targets.target import Density, Truth

CENTRE = (3.0, -1.0)  # near the cut


@dataclass(frozen=True)
class Ring(Density):
    """Two angles about CENTRE, as real numbers."""

    name = "ring"
    dim = 2
    width: float = 0.3

    def torsions(self):
        return {
            "phi": lambda x: torch.atan2(x[:, 0].sin(), x[:, 0].cos()),
            "psi": lambda x: torch.atan2(x[:, 1].sin(), x[:, 1].cos()),
        }

    def log_rho(self, x):
        away = x - torch.tensor(CENTRE, dtype=x.dtype)
        return -away.square().sum(-1) / (2 * self.width**2)

    def truth(self):
        def sample(n, g):
            xi = torch.randn(n, 2, generator=g, dtype=torch.float64)
            return torch.tensor(CENTRE, dtype=torch.float64) + self.width * xi

        return Truth("closed form", sample=sample)


def test_contours_are_those_of_the_smoothed_law_across_the_cut():
    """A Gaussian of width w smoothed by one of width s is one of sqrt(w^2 + s^2)."""
    target = Ring()
    smoothed = log_density(
        plane(target, target.truth().sample(50_000, torch.Generator().manual_seed(1)))
    )
    at = torch.linspace(-math.pi, math.pi, len(smoothed), dtype=torch.float64)
    away = [(at - c + math.pi).remainder(2 * math.pi) - math.pi for c in CENTRE]
    squared = away[1][:, None] ** 2 + away[0][None] ** 2  # psi by rows
    expected = -squared / (2 * (target.width**2 + SPREAD**2))
    near = expected > -3
    assert near.sum() > 100
    assert (smoothed - expected)[near].abs().max() < 0.15
    assert torch.equal(smoothed[0], smoothed[-1]) and torch.equal(smoothed[:, 0], smoothed[:, -1])
    assert smoothed[~near].max() < -2


def test_only_targets_with_two_torsions_have_the_picture(tmp_path):
    gmm = build_target({"name": "gmm9"})
    assert torus(gmm) is None
    assert not ramachandran(tmp_path / "x.png", tmp_path, gmm, [], {})
    unknown = type("Unknown", (Ring,), {"truth": lambda self: Truth("unknown")})()
    assert torus(unknown).grid is None and len(torus(unknown).exact) == 0


def test_a_panel_for_the_exact_draws_and_one_a_sampler(tmp_path):
    target = Ring()
    spec = {"sampler": {"name": "one"}, "seed": 0, "target": {"name": "ring"}}
    record = Record(spec, {"sampler": "one", "target": "ring"}, Status.SPENT)
    x = target.truth().sample(100, torch.Generator().manual_seed(2))
    x[3] = math.nan
    write_outcome(tmp_path, record.id, Outcome(Draws(x), None, {}))
    path = tmp_path / "ring.ramachandran.png"
    assert ramachandran(path, tmp_path, target, [record], {"one": "#0072b2"})
    seen = imread(path)
    assert seen.shape[1] > 200 and seen[..., :3].std() > 0.01


def test_the_page_shows_torsions_instead_of_coordinates(capsys):
    target = Ring()
    x = target.truth().sample(100, torch.Generator().manual_seed(3))
    content = views(target, {"one": Outcome(Draws(x), None, {})})
    assert not capsys.readouterr().err
    assert content["plane"]["low"] == pytest.approx([-math.pi] * 2)
    assert len(content["plane"]["contours"]) == 3 and all(content["plane"]["contours"])
    assert "phi across" in content["plane"]["what"] and "free energy" in content["plane"]["what"]
    places = torch.tensor(decoded(content["plane"]["runs"]["one"]["points"]))
    expected = (plane(target, x) + math.pi) / (2 * math.pi)
    assert torch.allclose(places, expected.to(places), atol=1e-3)
    assert [law.title for law in laws(target)][1:] == ["phi (rad)", "psi (rad)"]
