"""`tiltbench import`: draws made elsewhere, in the same tables."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from tiltbench.cli.score import score_and_report
from tiltbench.cli.words import RESULTS, seeds, whole
from tiltbench.engine.lock import alone
from tiltbench.plan.errors import Refused


def import_(options: Namespace, arguments: Sequence[str]) -> int:
    from tiltbench.records.imported import import_draws, summary
    from tiltbench.targets.cost import Cost

    file = Path(options.file)
    if not file.is_file():
        raise Refused(f"there is no file {file}; check the path of the draws")
    calls = whole(options.calls, "--calls")
    grads = calls if options.grads is None else _count(options.grads)
    budget = calls if options.budget is None else whole(options.budget, "--budget")
    out = Path(options.out) if options.out else RESULTS / "imported"
    name, seed = options.name or file.stem, seeds(options.seed)[0]
    with alone(out):
        record = import_draws(file, options.target, Cost(calls, grads), budget, name, seed, out)
    print(summary(record))
    score_and_report(out)
    return 0


def _count(text: str) -> int:
    return 0 if text == "0" else whole(text, "--grads")
