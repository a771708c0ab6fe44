"""The commands that exchange files with the world: import, export, new."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from tiltbench.lock import alone
from tiltbench.results_commands import readable_folder, score_and_report
from tiltbench.words import RESULTS, Refused, seeds, whole


def import_(options: Namespace, arguments: Sequence[str]) -> int:
    from tiltbench.imported import import_draws, summary
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


def export(options: Namespace, arguments: Sequence[str]) -> int:
    from tiltbench.exported import write_scores

    rows = write_scores(readable_folder(options.results), Path(options.file))
    print(f"{rows:,} scores in {options.file}")
    return 0


def new(options: Namespace, arguments: Sequence[str]) -> int:
    from tiltbench.skeletons import write_skeleton

    for path in write_skeleton(options.kind, options.name, Path(options.out)):
        print(path)
    print(f"next: tiltbench check {Path(options.out) / options.name}.py")
    return 0


COMMANDS = {"import": import_, "export": export, "new": new}
