"""`tiltbench export`: tidy scores as CSV or Parquet, or a trained control for torch alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tiltbench.cli.arguments import RESULTS
from tiltbench.cli.folders import readable_folder
from tiltbench.cli.options import Plugins, option, plugged

TRAINED = ".pt"


def export(
    results: Annotated[
        str, option("a suite that was run, or the folder of its results; for FILE.pt one run of it")
    ],
    file: Annotated[Path, option("FILE.csv or FILE.parquet of scores, FILE.pt of weights")],
    /,
    *,
    plugin: Plugins = (),
) -> int:
    """Write tidy scores as CSV or Parquet, one row a run and metric; or what a run has trained.

    FILE.pt is a state_dict, and FILE.py beside it a script that draws from it, with log-weights,
    and needs torch only: for perceptrons on Gaussian references.  The run is named as for `draw`.
    """
    if file.suffix == TRAINED:
        return _trained(results, file, plugin)
    from tiltbench.report.export import write_scores

    with plugged(plugin):
        rows = write_scores(readable_folder(results), file)
    print(f"{rows:,} scores in {file}")
    return 0


def _trained(run: str, file: Path, plugin: tuple[str, ...]) -> int:
    import sys

    from tiltbench.trained.chosen import chosen, title
    from tiltbench.trained.reload import load
    from tiltbench.trained.standalone import write

    with plugged(plugin):
        chosen_run = chosen(run, RESULTS)
        loaded = load(chosen_run.runs, chosen_run.record)
        if loaded.warning:
            print(f"warning: {loaded.warning}", file=sys.stderr)
        exported = write(loaded, file)
    print(f"{title(chosen_run.record)}: {exported.tensors} tensors in {exported.weights}")
    how = "its function draw takes log rho" if exported.guided else f"python {exported.script} 1000"
    print(f"{exported.script} draws from them with torch alone: {how}")
    return 0
