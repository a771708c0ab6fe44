"""Findings of a check: sentences, and the arithmetic behind the statistical ones."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import scipy.stats
import torch
from torch import Tensor

from tiltbench.samplers.weights import Estimate

RARE = 2 * scipy.stats.norm.sf(5)  # chance that a correct plug-in fails one statistical check


class Finding(NamedTuple):
    """One sentence about a plug-in; where it is not ok, what to do about it."""

    ok: bool
    what: str
    remedy: str = ""


def expect(ok: bool, good: str, bad: str, remedy: str) -> Finding:
    return Finding(True, good) if ok else Finding(False, bad, remedy)


class Snapshot:
    """Whether tensors that were lent to a function are still as they were.

    By their values, and by the count of writes that every tensor keeps, which also sees a write of
    equal values."""

    def __init__(self, *tensors: Tensor) -> None:
        self._tensors = tensors
        self._were = [(t._version, t.detach().clone()) for t in tensors]

    @property
    def changed(self) -> bool:
        return any(
            t._version != version or not torch.equal(t.detach().nan_to_num(), was.nan_to_num())
            for t, (version, was) in zip(self._tensors, self._were, strict=True)
        )


Steps = Iterable[tuple[str, Callable[[], Iterator[Finding]]]]


def until_broken(steps: Steps) -> list[Finding]:
    """The findings of all steps, in order, up to and with the first that is not ok: what follows
    builds on it.  An exception is a finding, named after its step."""
    findings: list[Finding] = []
    for what, step in steps:
        try:
            for finding in step():
                findings.append(finding)
                if not finding.ok:
                    return findings
        except Exception as error:
            message = " ".join(str(error).split())
            sentence = f"{what} raises {type(error).__name__}: {message}"
            return [*findings, Finding(False, sentence, "mend what the message names")]
    return findings


def is_frozen(thing: Any) -> bool:
    return dataclasses.is_dataclass(thing) and thing.__dataclass_params__.frozen  # type: ignore[union-attr]


def agrees(estimate: Estimate, truth: float, se: float = 0.0) -> bool:
    """Whether the two differ by no more than chance (RARE) allows, by Student's t."""
    gap, error = abs(estimate.value - truth), math.hypot(estimate.se, se)
    rounding = 1e-9 * max(1.0, abs(truth))
    return gap <= rounding + error * float(scipy.stats.t.isf(RARE / 2, max(estimate.n - 1, 1)))


def format_estimate(estimate: Estimate) -> str:
    return f"{estimate.value:.5g} +- {estimate.se:.2g}"
