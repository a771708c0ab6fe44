"""`tiltbench check`: the contract of a plug-in."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence


def check(options: Namespace, arguments: Sequence[str]) -> int:
    from tiltbench.check.contract import check as findings

    bad = 0
    for name in options.names:
        for finding in findings(name):
            bad += not finding.ok
            mark, remedy = ("ok ", "") if finding.ok else ("BAD", f"  -> {finding.remedy}")
            print(f"{mark} {name}: {finding.what}{remedy}")
    return 1 if bad else 0
