"""Draws that fail in one known way: exact ones are first, and no failure is at the floor.

The published study has 1,000 draws and more targets; modes drawn in by a tenth show there only.
"""

import pytest

from tiltbench.report.ranks import DISTANCE, LOG_Z
from tiltbench.studies.planted_failures import study
from tiltbench.studies.planted_failures.planted import CASES, EXACT
from tiltbench.studies.planted_failures.study import NOISE, ranked
from tiltbench.study import conduct

TOO_FINE = "contracted modes"


@pytest.fixture(scope="module")
def cases():
    return ranked({"gmm9": 250}, [0])


@pytest.fixture
def plane(cases):
    return {row.case: row for row in cases}


def test_the_page_shows_every_case_and_what_it_measured(cases, monkeypatch, tmp_path):
    monkeypatch.setattr(study, "ranked", lambda targets, seeds: cases)
    page = conduct(study.planted_failures, tmp_path, "cpu").read_text()
    assert page.count("| gmm9 |") == len(cases) and "nearest to exact draws" in page
    assert "and no failure is at the floor | supported" in page


def test_exact_draws_are_first_and_every_failure_is_behind_them(plane):
    assert set(plane) == set(CASES) - {"overlapping particles"}
    exact = plane.pop(EXACT)
    assert exact.rank == 1 and exact.judged.level
    del plane[TOO_FINE]
    assert all(row.rank > 1 and row.judged.doublings > 0.5 for row in plane.values())


def test_each_failure_is_seen_in_its_group(plane):
    seen = {case: row.judged.worst.group for case, row in plane.items()}
    assert seen["weights off by 5 nats"] == seen["heavy-tailed weights"] == LOG_Z
    assert seen["contracted"] == seen["Gaussian blob"] == seen["untrained"] == "energies"
    assert plane["one mode lost"].judged.of("modes").doublings > 0
    assert plane["contracted"].judged.lacking == (LOG_Z,)


def test_a_small_distance_hides_neither_energies_nor_log_z(plane):
    """As pis on many_well: first by its distance once, energies 92 nats and log Z 27 off."""
    row = plane[NOISE]
    assert row.judged.of(DISTANCE).doublings < 1 and row.rank > 5
    assert row.judged.of(LOG_Z).doublings > 8 and row.judged.of("energies").doublings > 3


def test_overlapping_particles_are_seen_by_energies_alone():
    rows = {row.case: row for row in ranked({"dw4": 60}, [0])}
    two = rows["overlapping particles"]
    assert two.judged.of(DISTANCE).doublings == 0 and two.judged.worst.metric == "energy_w2"
    assert rows[EXACT].rank == 1 < two.rank
