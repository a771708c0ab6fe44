"""What losses that need the Gaussian kernels of a base's own chain share."""

from __future__ import annotations

from tiltbench.samplers.sampler import Unsupported
from tiltbench.targets.bases.process import Additive, Process


def additive(process: Process, loss: str) -> Additive:
    """The process; raises Unsupported where it is the chain of an escort."""
    if not isinstance(process, Additive):
        raise Unsupported(f"{loss} steers a base's own chain: leave recipe=Base")
    return process
