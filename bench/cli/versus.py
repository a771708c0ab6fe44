"""`tiltbench versus`: which samplers are nearer to a target whose truth is unknown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tiltbench.cli.arguments import chosen_device, whole
from tiltbench.cli.folders import Results, filled
from tiltbench.cli.options import Device, Plugins, option, plugged
from tiltbench.plan.errors import Refused

if TYPE_CHECKING:
    from tiltbench.records.record import Record
    from tiltbench.report.board import Board
    from tiltbench.trained.versus import Compared

SIGNIFICANT = 2.0  # standard errors from which on one of two is nearer


def versus(
    results: Results,
    /,
    *,
    draws: Annotated[int, option("of each run (default 1,000)", "N", whole)] = 1_000,
    device: Device = "auto",
    plugin: Plugins = (),
) -> int:
    """Compare every two samplers of RESULTS on targets of unknown truth: by how many nats one is
    nearer, in the KL divergence of its paths from those of the target, from draws and weights of
    both.

    Samplers need a weight for each path, and reverse paths, as trained controls have them; others
    have a dash with its reason.  A mode that both miss is not noticed.  RESULTS/versus.json is
    written, and the tables and the page that `tiltbench report` makes show it.
    """
    if draws < 2:
        raise Refused(f"--draws {draws} tells no error; write 2 or more, such as 1000")
    with plugged(plugin):
        folder = filled(results)
        from tiltbench.records.files import write_json
        from tiltbench.report.board import boards
        from tiltbench.report.frame import collect
        from tiltbench.report.nearer import FILE, stored_comparison

        frames = collect(folder)
        chosen = [board for board in boards(frames) if board.unknown]
        if not chosen:
            raise Refused(
                f"no target of {folder} is of unknown truth: where one is known, eubo_gap says in "
                "the table how near each sampler is; score the runs first where they are not"
            )
        rows = []
        for board in chosen:
            mine = set(board.of(frames.runs)["id"])
            records = [r for r in frames.records if r.id in mine and r.status.finished]
            comparison = _compared(folder / "runs", records, draws, chosen_device(device))
            rows.append(stored_comparison(board, records, comparison, folder / "runs"))
            print(_summary(board, comparison))
        write_json(folder / FILE, rows)
    print(f"{folder / FILE}: `tiltbench report {results}` shows it in the tables")
    return 0


def _compared(runs: Path, records: Sequence[Record], draws: int, device: str) -> Compared:
    from tiltbench.trained.reload import load
    from tiltbench.trained.versus import compared

    loaded: dict[str, list[Any]] = {}
    why: dict[str, str] = {}
    for record in sorted(records, key=lambda r: (r.labels["sampler"], r.spec["seed"])):
        name = record.labels["sampler"]
        try:
            loaded.setdefault(name, []).append(load(runs, record, device))
        except Refused as error:
            why[name] = str(error)
    result = compared({name: same for name, same in loaded.items() if name not in why}, draws)
    result.why = {**why, **result.why}
    return result


def _summary(board: Board, comparison: Compared) -> str:
    """A line a pair, and one for what cannot be compared."""
    lines = [f"{board.target}, {board.allowed}"]
    for (one, two), by in comparison.nearer.items():
        first, second = (one, two) if by.value >= 0 else (two, one)
        apart = f"{abs(by.value):.3g} ± {by.se:.1g} nats"
        lines.append(
            f"  {first} is nearer than {second} by {apart}"
            if abs(by.value) > SIGNIFICANT * by.se
            else f"  {first} and {second} do not differ significantly: {apart}"
        )
    lines += [f"  –  {name}: {reason}" for name, reason in comparison.why.items()]
    return "\n".join(lines)
