"""Seconds that count: never those of the calendar, which can be set back."""

from __future__ import annotations

import time

import torch


class Clock:
    """Wall seconds with the device synchronised at both ends; it can be stopped and started."""

    def __init__(self, device: str) -> None:
        self.device, self.total = device, 0.0
        self.start()

    def start(self) -> None:
        self._synchronise()
        self.since: float | None = time.perf_counter()

    def stop(self) -> None:
        self._synchronise()
        if self.since is not None:
            self.total += time.perf_counter() - self.since
            self.since = None

    def go_on_from(self, seconds: float) -> None:
        """As if it had been stopped at `seconds` and started just now."""
        self.total = seconds
        self.start()

    @property
    def seconds(self) -> float:
        return self.total + (time.perf_counter() - self.since if self.since is not None else 0.0)

    def _synchronise(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()
