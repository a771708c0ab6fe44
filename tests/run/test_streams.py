"""One stream of random numbers a purpose."""

import numpy as np
import torch

from tiltbench.reference.evidence import PARTS, generator_of
from tiltbench.run.compute import BLOCK, Compute
from tiltbench.run.streams import STREAMS, generator


def test_parts_of_a_certificate_and_coins_of_audits_have_streams_of_their_own():
    """Tempering, islands and the choice of rows; and of steps to be audited no sampler is told."""
    parts = {generator_of(3, part).initial_seed() for part in PARTS}
    assert len(parts) == len(PARTS) == 3
    assert parts == {generator(3, "certify", part=k).initial_seed() for k in range(3)}
    compute = Compute(1e9, 3)
    compute.audited(2 * BLOCK)
    source = np.random.SeedSequence(3, spawn_key=(STREAMS["audit"], 2))
    assert np.array_equal(compute.coins[1], np.random.default_rng(source).random(BLOCK))


def test_no_two_purposes_share_a_stream():
    drawn = {
        tuple(torch.rand(2, generator=generator(0, purpose, part=part)).tolist())
        for purpose in STREAMS
        for part in (None, 0, 1)
    }
    assert len(drawn) == 3 * len(STREAMS)
