"""`tiltbench import`: score draws made elsewhere, in the same tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tiltbench.cli.arguments import RESULTS, natural, whole
from tiltbench.cli.options import Plugins, option, plugged
from tiltbench.cli.score import score_and_report
from tiltbench.engine.lock import alone
from tiltbench.plan.errors import Refused


def import_(
    file: Annotated[
        Path,
        option(
            "an .npz of x, (n, dim) or (chains, n, dim), and optionally log_w, group, log_Z, "
            "log_w_reverse; or an .npy that holds x"
        ),
    ],
    /,
    *,
    target: Annotated[str, option("as in `run --targets`", "T")],
    calls: Annotated[int, option("points the draws have cost", "N", whole)],
    grads: Annotated[
        int | None, option("gradients among them (default: as many)", "N", natural)
    ] = None,
    budget: Annotated[
        int | None,
        option("the budget to be compared at (default: the calls)", "N", whole),
    ] = None,
    name: Annotated[str | None, option("of the method (default: that of the file)", "NAME")] = None,
    seed: Annotated[int, option("number of the repetition (default 0)", "N", natural)] = 0,
    out: Annotated[str | None, option("results folder (default results/imported)", "DIR")] = None,
    plugin: Plugins = (),
) -> int:
    """Record, score and report draws made by other programs.

    Their calls are what you say, and every table marks them as self-reported.
    """
    from tiltbench.records.imported import import_draws, summary
    from tiltbench.targets.cost import Cost

    if not file.is_file():
        raise Refused(f"there is no file {file}; check the path of the draws")
    cost = Cost(calls, calls if grads is None else grads)
    folder = Path(out) if out else RESULTS / "imported"
    with plugged(plugin):
        with alone(folder):
            record = import_draws(
                file, target, cost, budget or calls, name or file.stem, seed, folder
            )
        print(summary(record))
        score_and_report(folder)
    return 0
