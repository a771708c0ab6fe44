"""`tiltbench check`: the contract tests on a registered name or a plug-in file."""

from __future__ import annotations

from typing import Annotated

from tiltbench.cli.options import option


def check(names: Annotated[tuple[str, ...], option("names, or path/to/file.py")], /) -> int:
    """Test what the suite relies on in a target, loss, sampler or metric, and say what is broken.

    Exit code: 0 when every test passes, 1 when one fails, 2 for a wrong argument.
    """
    from tiltbench.check.contract import check as findings

    bad = 0
    for name in names:
        for finding in findings(name):
            bad += not finding.ok
            mark, remedy = ("ok ", "") if finding.ok else ("BAD", f"  -> {finding.remedy}")
            print(f"{mark} {name}: {finding.what}{remedy}")
    return 1 if bad else 0
