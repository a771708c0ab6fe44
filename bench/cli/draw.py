"""`tiltbench draw`: draw more from what a finished run has trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tiltbench.cli.arguments import RESULTS, chosen_device, natural, whole
from tiltbench.cli.options import Device, Plugins, option, plugged
from tiltbench.plan.errors import Refused
from tiltbench.records.command import command


def draw(
    run: Annotated[
        str,
        option("FOLDER/ID, ID or a file of the run; a folder of many says which there are", "RUN"),
    ],
    /,
    *,
    draws: Annotated[int, option("how many (default 1,000)", "N", whole)] = 1_000,
    seed: Annotated[int, option("of these draws, not of the run (default 0)", "N", natural)] = 0,
    device: Device = "auto",
    out: Annotated[Path | None, option("default ID-draws.npz", "FILE.npz")] = None,
    plugin: Plugins = (),
) -> int:
    """Draw more from what a finished run has trained, with weights where the sampler has them.

    The same seed gives the same draws, to the bit on one kind of machine, and never the run's own.
    FILE.npz holds x, (n, dim), log_w and, where draws depend on each other, group; `tiltbench
    import` scores it.
    """
    if out is not None and out.suffix != ".npz":
        raise Refused(f"draws are written as .npz, not as {out.name}; end the name in .npz")
    if out is not None and not out.parent.is_dir():
        raise Refused(f"there is no folder {out.parent} for {out.name}; make it, or name another")
    import sys

    from tiltbench.records.files import write_arrays
    from tiltbench.records.record import draw_arrays
    from tiltbench.samplers.weights import ess, log_mean_exp
    from tiltbench.trained.chosen import chosen, title
    from tiltbench.trained.reload import load

    with plugged(plugin):
        chosen_run = chosen(run, RESULTS)
        loaded = load(chosen_run.runs, chosen_run.record, chosen_device(device))
        if loaded.warning:
            print(f"warning: {loaded.warning}", file=sys.stderr)
        sample = loaded.draw(draws, seed)
    record, file = chosen_run.record, out or Path(f"{chosen_run.record.id}-draws.npz")
    arrays, n, calls = draw_arrays(sample), len(sample.x), loaded.calls
    write_arrays(file, arrays)
    fewer = "" if n == draws else f" where {draws:,} were asked for: the run holds no more"
    print(f"{title(record)}: {n:,} draws{fewer}")
    if sample.log_w is not None:
        print(
            f"log Z {log_mean_exp(sample.log_w):.4g} by their weights, ess {ess(sample.log_w):.1%}"
        )
    print(f"{calls.values:,} values and {calls.grads:,} gradients of the target were called")
    shapes = ", ".join(f"{name} {tuple(array.shape)}" for name, array in arrays.items())
    print(f"{file}: {shapes}")
    words = ["import", str(file), "--target", record.labels["target"]]
    words += ["--calls", str(max(*record.cost["train"], 1)), "--name", record.labels["sampler"]]
    print(f"to score them: {command(words)}")
    return 0
