"""The study of memory and time: an allocation of known size, and verdicts on made-up slopes."""

import pytest
import torch

from tiltbench.studies.memory import study
from tiltbench.studies.memory.study import (
    CUT,
    LEAN,
    NO_TRAINING,
    NOISED,
    ON_PATHS,
    THROUGH,
    Footprint,
)

MB = 2**20 // 4  # float32


def test_the_peak_is_what_is_held_at_once():
    """4 MB, which are freed; then 1, 2, 2 and the 2 of a sum."""

    def work():
        first = torch.empty(4 * MB)
        del first
        held = torch.empty(MB)
        return held, torch.empty(2 * MB) + torch.empty(2 * MB)[:1]

    assert study.peak(work) == pytest.approx(7, abs=0.01)


def test_a_row_is_one_batch_and_one_step():
    assert study.stated("ddpo", ON_PATHS) == f"ddpo[paths={study.PATHS},repeats=1,memory=1]"
    assert study.stated(CUT, THROUGH).endswith(f"[last=10],paths={study.PATHS},repeats=1,memory=1]")
    assert study.stated("guidance", NO_TRAINING) == "guidance"


SLOPES = {"adjoint": 1, "entropy": 20, CUT: 1, "ddpo": 20, "nft": 1, "guidance": 0, "grows": 1}
KINDS = {
    "adjoint": LEAN,
    "entropy": THROUGH,
    CUT: THROUGH,
    "ddpo": ON_PATHS,
    "nft": NOISED,
    "guidance": NO_TRAINING,
    "grows": LEAN,
}


@pytest.mark.parametrize(
    "changed, slope, refuted",
    [
        (None, 0, None),
        ("adjoint", 20, 0),
        ("entropy", 1, 1),
        (CUT, 20, 2),
        ("ddpo", 1, 3),
        ("nft", 20, 4),
        ("guidance", 20, 4),
        ("grows", None, 5),
    ],
)
def test_verdicts(changed, slope, refuted):
    """Slopes in units of a path; `grows` takes four times as long on twice the steps."""
    k = study.STEPS
    footprints = []
    for name, kind in KINDS.items():
        mb = slope if name == changed and slope is not None else SLOPES[name]
        power = 2 if name == changed and slope is None else 1
        footprints.append(Footprint(name, kind, [mb * s for s in k], [s**power for s in k]))
    verdicts = [str(claim.verdict) for claim in study.claims(footprints, 1.0)]
    assert verdicts == ["refuted" if i == refuted else "supported" for i in range(6)]
