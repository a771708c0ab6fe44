"""The targets of recorded runs, built again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tiltbench.plan.spec import build_target
from tiltbench.records.located import located
from tiltbench.records.record import Record
from tiltbench.targets.target import Target


def targets_of(records: Sequence[Record], runs: Path) -> dict[str, Target]:
    """By label; targets that cannot be rebuilt here (a plug-in that has moved) are left out."""
    targets: dict[str, Target] = {}
    for record in records:
        label = record.labels["target"]
        if label not in targets:
            try:
                target = build_target(located(record, runs))
                target.truth()
                targets[label] = target
            except Exception:  # the scores of its runs say why
                continue
    return targets
