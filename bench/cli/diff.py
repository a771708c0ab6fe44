"""`tiltbench diff`: what got better, worse or lost from one result set to another."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence

from tiltbench.cli.folders import results_folder
from tiltbench.cli.words import listed
from tiltbench.plan.errors import Refused
from tiltbench.plan.spec import METRICS


def diff(options: Namespace, arguments: Sequence[str]) -> int:
    metrics = listed(options.metrics, "--metrics")
    for name in metrics:
        METRICS.find(name.removesuffix("_weighted"))
    a, b = results_folder(options.a), results_folder(options.b)
    from tiltbench.report.diff import compare
    from tiltbench.report.diff_sentences import sentences

    try:
        found = compare(a, b, metrics)
    except FileNotFoundError as error:
        raise Refused(str(error)) from error
    print(sentences(found, (str(a), str(b))))
    if options.csv:
        found.frame().to_csv(options.csv, index=False)
    return 1 if found.worse else 0
