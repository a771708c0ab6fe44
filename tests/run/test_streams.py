"""One stream of random numbers a purpose."""

import torch

from tiltbench.run.streams import STREAMS, generator


def test_no_two_purposes_share_a_stream():
    drawn = {
        tuple(torch.rand(2, generator=generator(0, purpose, part=part)).tolist())
        for purpose in STREAMS
        for part in (None, 0, 1)
    }
    assert len(drawn) == 3 * len(STREAMS)
