"""The console command `tiltbench`: its words, and which file does the work of each.

Nothing below imports torch until a command needs it, so that `--help` and `list` answer at once.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

RUN_END = """\
Exit code: 0 when every cell finished (a cell whose method does not apply to its target is a dash
with a reason, not a failure), 1 when some failed, 2 for a wrong argument, 130 after Ctrl-C.
Cells already recorded are not run again; failed ones only with --retry, those of other code only
with --stale, all with --force."""

DIFF_END = """\
Exit code: 0 when nothing got worse, 1 when a score got worse or is gone, a run is gone or no longer
finishes, 2 for a wrong argument.  Worse and better are what a paired t test over common seeds tells
apart at 5 % after Holm's correction over all comparisons; fewer metrics make it sharper.  Scores at
the floor in both sets are a tie; those below a floor, or with other floors, are not tested."""

FUNCTIONS = {
    "list": ("list", "show_list"),
    "import": ("import_", "import_"),
    "score": ("score", "score_again"),
    "report": ("report", "report_again"),
}


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="tiltbench",
        description="Benchmark samplers of tilted densities at equal, enforced cost.",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    plugins = argparse.ArgumentParser(add_help=False)
    plugins.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="FILE.py",
        help="use what this file names (metrics, losses, targets, samplers) by its own name; "
        "may be repeated",
    )

    add = commands.add_parser("list", help="what there is, one line each", parents=[plugins])
    add.add_argument("kind", choices=["targets", "samplers", "metrics", "suites", "studies"])

    add = commands.add_parser(
        "run",
        parents=[plugins],
        help="run cells, score them and report",
        description="Run a suite, or the product of targets, samplers and seeds; score; report.",
        epilog=RUN_END,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add.add_argument(
        "--suite", metavar="NAME|FILE.toml", help="a suite; see `tiltbench list suites`"
    )
    add.add_argument(
        "--targets",
        metavar="A,B",
        help="names, name[key=value], or path/to/file.py; with --suite: only these of its targets",
    )
    add.add_argument(
        "--samplers",
        metavar="C,D",
        help="the same for samplers, e.g. log_variance[reference=Stationary,model=Guided],smc",
    )
    add.add_argument("--budget", metavar="N", help="training points, e.g. 1e6 (default 40,000)")
    add.add_argument("--draws", metavar="N", help="draws to score (default 1,000)")
    add.add_argument("--seeds", metavar="0:5|0,3", help="a range or a list (default 0:3)")
    add.add_argument("--out", metavar="DIR", help="results folder (default results/SUITE)")
    add.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME.KEY=A,B",
        help="a parameter of a target or sampler; several values span a grid; may be repeated",
    )
    engine_options(add)
    add.add_argument(
        "--shard", metavar="I/N", help="the I-th of N parts of the cells, for arrays of jobs"
    )
    add.add_argument("--time-limit", metavar="S", help="seconds a cell may take")
    add.add_argument(
        "--memory-limit", metavar="MB", help="memory a cell may take beyond that of its start"
    )
    add.add_argument("--dry-run", action="store_true", help="print the cells and stop")
    add.add_argument("--retry", action="store_true", help="run failed cells again")
    add.add_argument("--stale", action="store_true", help="run cells recorded by other code again")
    add.add_argument("--force", action="store_true", help="run every cell again")

    _tune(commands, plugins)

    add = commands.add_parser("status", help="how far a suite has come")
    add.add_argument("results", nargs="?", metavar="SUITE|DIR", help="default: all in results/")

    for name, what in {
        "score": "compute the metrics of recorded runs again, from their draws on disk",
        "report": "write the tables, plots and page of scored runs again",
    }.items():
        add = commands.add_parser(
            name, parents=[plugins], help=what, description=what.capitalize() + "."
        )
        add.add_argument("results", metavar="SUITE|DIR")
        if name == "score":
            add.add_argument("--force", action="store_true", help="also runs already scored")
            add.add_argument(
                "--draws",
                metavar="ARCHIVE.tar",
                help="of a published set: score it again from these, and compare",
            )
            add.add_argument(
                "--out",
                metavar="DIR",
                help="with --draws: where to (default results/SUITE-rescored)",
            )
        else:
            add.add_argument(
                "--out",
                metavar="DIR",
                help="where to (default: the folder itself; of a published set "
                "results/SUITE-published)",
            )

    add = commands.add_parser(
        "floor", help="what exact samples score: measure the shipped noise floors again"
    )
    add.add_argument("names", nargs="*", metavar="NAME", help="targets; default: every one")
    add.add_argument("--targets", metavar="A,B", help="the same, as `run` takes them")
    add.add_argument("--draws", metavar="N,M", default="250,500,600,1000,2000", help="sample sizes")

    add = commands.add_parser(
        "study", help="answer a question with a table and pictures; see `tiltbench list studies`"
    )
    add.add_argument("names", nargs="+", metavar="NAME|all")
    add.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    add.add_argument("--out", metavar="DIR", help="default results/studies; NAME is added to it")
    add.add_argument("--jobs", default="auto", help="studies at a time (default: one a core)")

    add = commands.add_parser(
        "reference",
        help="long chains that must pass tests before a target's truth rests on them",
        description="Parallel tempering from dispersed starts, R-hat, virial test, halves, log Z "
        "in two ways.  Where a target has no exact truth, what passes is stored: with the package, "
        "or beside path/to/file.py.  Exact truths are compared with the chains.",
        epilog="Exit code: 0 when every test passes, 1 when one fails, 2 for a wrong argument.",
    )
    add.add_argument(
        "names", nargs="+", metavar="NAME|path/to/file.py", help="a target, as in `run --targets`"
    )
    add.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME.KEY=A",
        help="a parameter of a target; may be repeated",
    )
    add.add_argument("--seed", default="0", metavar="N")
    add.add_argument(
        "--points",
        metavar="N",
        help="of tempering, and again of SMC (default 12 million and 300,000 a dimension)",
    )
    add.add_argument(
        "--ladders", metavar="N", help="independent ladders of temperatures, 4 or more (default 32)"
    )
    add.add_argument(
        "--out", metavar="DIR", help="write here, certified or not, and nothing anywhere else"
    )
    add.add_argument("--jobs", default="auto", help="targets at a time (default: one a core)")

    add = commands.add_parser(
        "base",
        help="train a small pretrained model, the base of fine-tuning targets, and measure it",
        description="Train a network on real images, minutes on one core, and write checkpoint, "
        "provenance and a sheet of samples; or draw from the flow that ships (--kind draws) what "
        "the truth of the tilts is weighed from.  Those that ship lie in targets/data.",
    )
    add.add_argument("name", choices=["digits"])
    add.add_argument("--kind", choices=["flow", "ddpm", "classifier", "draws"], default="flow")
    add.add_argument("--steps", metavar="N", help="of the optimiser (default: as those that ship)")
    add.add_argument("--out", metavar="DIR", help="default results/base")

    add = commands.add_parser(
        "check", help="the contract tests on a registered name or a plug-in file"
    )
    add.add_argument("names", nargs="+", metavar="NAME|path/to/file.py")

    _exchange(commands, plugins)

    add = commands.add_parser(
        "diff",
        help="what got better, worse or lost from one result set to another",
        description="Compare two result sets, of two commits or machines, run by run: target, "
        "budget, sampler and seed.",
        epilog=DIFF_END,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add.add_argument("a", metavar="A", help="before: SUITE or DIR (published ones too)")
    add.add_argument("b", metavar="B", help="after")
    add.add_argument(
        "--metrics", metavar="M,N", help="these only (default: all that know of the truth)"
    )
    add.add_argument("--csv", metavar="FILE", help="write every comparison there as well")

    add = commands.add_parser(
        "publish",
        help="copy what belongs in git to results/published/",
        description="Write records, scores and curves as Parquet files, table.md, and the pictures "
        "that README.md or docs/ show, to results/published/SUITE; and the draws, which do not "
        "belong in git, as one archive, whose SHA-256 is kept.",
    )
    add.add_argument("results", metavar="SUITE|DIR")
    add.add_argument(
        "--draws", metavar="ARCHIVE.tar", help="of the draws (default results/SUITE-draws.tar)"
    )
    return top


def engine_options(add: argparse.ArgumentParser) -> None:
    """Where cells run: see tiltbench.cli.engine."""
    add.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    add.add_argument(
        "--jobs", default="auto", help="cells at a time (default: one a core, or as the GPUs hold)"
    )
    add.add_argument("--engine", choices=["local", "ray"], default="local", help="where cells run")
    add.add_argument(
        "--ray-address",
        metavar="HOST:PORT|auto|local",
        help="the Ray cluster to join (default auto: that of this machine), or a new local one",
    )
    add.add_argument("--gpus", metavar="0,1", help="the GPUs to use (default: all visible)")
    add.add_argument(
        "--gpu-share", metavar="F", help="of a GPU that a cell gets (default 1: one cell at a time)"
    )


def _tune(commands: Any, plugins: argparse.ArgumentParser) -> None:
    add = commands.add_parser(
        "tune",
        parents=[plugins],
        help="give every method of a suite the same random search, scored without the truth",
        description="Run trials of every method, choose one for all targets by its mean rank, and "
        "write a copy of the suite with what was chosen.  Trial 0 is the method as it is.  Trials "
        "on record are not run again.",
    )
    add.add_argument("suite", metavar="NAME|FILE.toml", help="a suite; it is not changed")
    add.add_argument("--trials", default="16", metavar="N", help="of every method (default 16)")
    add.add_argument("--targets", metavar="A,B", help="choose for these of its targets only")
    add.add_argument("--samplers", metavar="C,D", help="tune these of its samplers only")
    add.add_argument("--seed", default="0", metavar="N", help="of the search (default 0)")
    add.add_argument("--write", metavar="FILE.toml", help="default: SUITE_tuned.toml")
    add.add_argument("--out", metavar="DIR", help="records (default results/SUITE-tuning)")
    engine_options(add)


def _exchange(commands: Any, plugins: argparse.ArgumentParser) -> None:
    """Files from and for the world outside."""
    add = commands.add_parser(
        "new",
        help="write a target, loss or metric that works, with its test, to start from",
        description="Write NAME.py and test_NAME.py: they pass as they are; change them step by "
        "step.",
    )
    add.add_argument("kind", choices=["target", "loss", "metric"])
    add.add_argument("name", metavar="NAME", help="small letters, digits and _")
    add.add_argument("--out", metavar="DIR", default=".", help="default: this folder")

    add = commands.add_parser(
        "import",
        parents=[plugins],
        help="score draws made elsewhere, in the same tables",
        description="Record, score and report draws made by other programs.  Their calls are what "
        "you say, and every table marks them as self-reported.",
    )
    add.add_argument(
        "file",
        metavar="DRAWS.npz",
        help="x, (n, dim) or (chains, n, dim); optionally log_w, group, log_Z, log_w_reverse; or "
        "an .npy that holds x",
    )
    add.add_argument("--target", required=True, metavar="T", help="as in `run --targets`")
    add.add_argument("--calls", required=True, metavar="N", help="points the draws have cost")
    add.add_argument("--grads", metavar="N", help="gradients among them (default: as many)")
    add.add_argument(
        "--budget", metavar="N", help="the allowance to be compared at (default: the calls)"
    )
    add.add_argument("--name", metavar="NAME", help="of the method (default: that of the file)")
    add.add_argument("--seed", default="0", metavar="N", help="number of the repetition")
    add.add_argument("--out", metavar="DIR", help="results folder (default results/imported)")

    add = commands.add_parser(
        "export",
        parents=[plugins],
        help="tidy scores as CSV or Parquet, one row a run and metric",
    )
    add.add_argument("results", metavar="SUITE|DIR")
    add.add_argument("file", metavar="FILE.csv|FILE.parquet")


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 success, 1 a failed cell or check, 2 a wrong argument, 130 Ctrl-C."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_args(arguments)

    from tiltbench.plan.errors import BadSpec, Refused
    from tiltbench.targets.registry import UnknownName

    try:
        with _plugged(getattr(options, "plugin", [])):
            return _command(options.command)(options, arguments)
    except (BadSpec, UnknownName, Refused) as error:
        print(f"tiltbench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("tiltbench: stopped; everything recorded is kept.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `tiltbench list targets | head`
        sys.stderr.close()
        return 0
    except OSError as error:
        if not _concerns(error, getattr(options, "out", None)):
            raise
        print(
            f"tiltbench: {error.filename} cannot be used ({error.strerror}); name another folder "
            "with --out",
            file=sys.stderr,
        )
        return 2


def _command(name: str) -> Callable[[argparse.Namespace, Sequence[str]], int]:
    """What does the work: `tiltbench.cli.NAME.NAME`, imported when it is asked for."""
    file, function = FUNCTIONS.get(name, (name, name))
    found: Callable[[argparse.Namespace, Sequence[str]], int] = getattr(
        importlib.import_module(f"tiltbench.cli.{file}"), function
    )
    return found


def _concerns(error: OSError, out: str | None) -> bool:
    """Whether it is of the folder `out`, of what lies in it, or of what it lies in."""
    if not out or not error.filename:
        return False
    folder, place = Path(out), Path(error.filename)
    return folder in (place, *place.parents) or place in folder.parents


def _plugged(files: Sequence[str]) -> AbstractContextManager[None]:
    if not files:
        return nullcontext()
    from tiltbench.plan.plugins import plugged

    return plugged(files)


if __name__ == "__main__":
    sys.exit(main())
