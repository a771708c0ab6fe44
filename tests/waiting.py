"""Waiting for events: a limit that a busy machine does not reach, and that a hang does."""

import time

HANG = 900.0  # seconds


def wait_for(what):
    """Until what() is true.  Raises AssertionError where it hangs."""
    end = time.monotonic() + HANG
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
