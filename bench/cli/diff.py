"""`tiltbench diff`: what got better, worse or lost from one result set to another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tiltbench.cli.folders import results_folder
from tiltbench.cli.options import Names, names, option
from tiltbench.plan.errors import Refused
from tiltbench.plan.spec import METRICS


def diff(
    a: Annotated[str, option("before: a suite or folder, published ones too")],
    b: Annotated[str, option("after")],
    /,
    *,
    metrics: Annotated[
        Names, names("these only (default: all that know of the truth)", "M,N")
    ] = (),
    csv: Annotated[Path | None, option("write every comparison there as well", "FILE")] = None,
) -> int:
    """Compare two result sets, of two commits or machines, run by run: target, budget, sampler and
    seed.

    Exit code: 0 when nothing got worse, 1 when a score got worse or is missing, or a run is missing
    or no longer finishes, 2 for a wrong argument.

    A score is worse or better where a paired t test over common seeds is significant at 5 %, after
    Holm's correction over all comparisons.  Fewer metrics make the test more powerful.  Scores
    within the noise floor in both sets count as equal.  Scores below a floor, or with different
    floors, are not tested.
    """
    for name in metrics:
        METRICS.find(name.removesuffix("_weighted"))
    before, after = results_folder(a), results_folder(b)
    from tiltbench.report.diff import compare
    from tiltbench.report.diff_sentences import sentences

    try:
        comparison = compare(before, after, metrics)
    except FileNotFoundError as error:
        raise Refused(str(error)) from error
    print(sentences(comparison, (str(before), str(after))))
    if csv:
        comparison.frame().to_csv(csv, index=False)
    return 1 if comparison.worse else 0
