"""Reward, diversity and KL of fine-tuned digits beside the exact tilt: from the stored suite."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.metrics.diversity import spread
from tiltbench.pretrain.quality import sheet
from tiltbench.records.published import results
from tiltbench.records.record import read_outcome
from tiltbench.report.frame import Frames, frames_of
from tiltbench.samplers.weights import Estimate
from tiltbench.studies.common.stored import folder_of
from tiltbench.studies.frontier.claims import judged
from tiltbench.studies.frontier.exact import exact
from tiltbench.studies.frontier.figures import draw
from tiltbench.studies.frontier.hacking import hack
from tiltbench.studies.frontier.measured import Pair
from tiltbench.studies.frontier.methods import Truth, methods_of, tilts
from tiltbench.study import Answer, Study
from tiltbench.targets.digits.digits import log_classes
from tiltbench.targets.digits.pool import PART, draws
from tiltbench.targets.tilts.digits_class import DigitsClass

SUITE = "finetune_digits"
DIGIT = 3
COMPARED = 1_000  # draws of the base and of the exact tilts whose diversity is measured
SHOWN, SEED, COLUMNS = 1.0, 0, 20  # the strength and seed of the sheet, and digits in a row of it


def run(folder: Path, device: str) -> Answer:
    from pandas import DataFrame

    stored = folder_of(SUITE)
    frames = frames_of(results(stored))
    base = draws(torch.empty(0))
    with torch.no_grad():
        f = torch.cat([log_classes(part)[:, DIGIT] for part in base.split(PART)]).double()
    targets = tilts(frames, DIGIT)
    shown = shown_row(targets)
    truths = [_truth(target, f) for target in targets.values()]
    measured = list(methods_of(frames, targets, f))
    draw(folder / "frontier.png", measured, truths, f)
    rows = _sheet_rows(stored / "runs", frames, shown, targets[shown])
    sheet(torch.cat(list(rows.values())), folder / "sheet.png", COLUMNS)
    width = spread(targets[shown], base[:COMPARED].double(), None)
    words = (
        f"`{SUITE}`, log P = log P({DIGIT} | x), {frames.runs['seed'].nunique()} seed(s): means "
        "± the standard error over seeds or that of the draws, whichever is larger; the energy "
        "distance is the median. *Calls*: of the reward or its gradient, the larger of the two, in "
        "training + in drawing; the suite makes the former equal, guidance pays when it draws. "
        "*Path KL*: of "
        "the controlled paths to the base's; *gap*: of the paths to the optimum's; *KL by "
        "weights*: KL(p* | p_base) from the path weights. *Hacking*: nats of E log P above the "
        "tilt's, by how much KL(q | p_base) must at least exceed KL(p* | p_base) for that, and by "
        "how many standard deviations the energy distance exceeds its floor. *Exact tilt*: from "
        f"{len(f):,} weighted draws of the base, whose own E log P is {float(f.mean()):.2f} and "
        f"diversity {_format_estimate(width)}; its KL stands under *path KL*, which the optimum's "
        "is. *log Z error*: by path weights (Jarzynski), or the method's own. The rows of the "
        f"sheet, strength {SHOWN:g}, seed {SEED}: {', '.join(rows)}."
    )
    table = [
        row
        for truth in truths
        for row in (
            _truth_row(truth),
            *(
                _table_row((result, truth))
                for result in measured
                if result.strength == truth.strength
            ),
        )
    ]
    return Answer(DataFrame(table), words, judged(measured, truths))


def shown_row(targets: Mapping[str, DigitsClass]) -> str:
    """The label of the tilt of the sheet."""
    for label, target in targets.items():
        if target.strength == SHOWN:
            return label
    raise FileNotFoundError(
        f"the results of {SUITE} hold no digits_class of digit {DIGIT} at strength {SHOWN:g}: run "
        f"the whole suite, `tiltbench run --suite {SUITE}`"
    )


def _truth(target: DigitsClass, f: Float[Tensor, " n"]) -> Truth:
    sample = target.truth().sample
    assert sample is not None
    x = sample(COMPARED, Generator().manual_seed(0)).double()
    return Truth(target.strength, exact(f, target.strength), spread(target, x, None))


def _sheet_rows(
    runs: Path, frames: Frames, label: str, target: DigitsClass
) -> dict[str, Float[Tensor, "n 64"]]:
    """The base before, the exact tilt, and every method after; methods whose draws are not there
    (published results have none) are left out."""
    sample = target.truth().sample
    assert sample is not None
    rows = {
        "base": draws(torch.empty(0, dtype=torch.float64))[:COLUMNS],
        "exact tilt": sample(COLUMNS, Generator().manual_seed(1)).double(),
    }
    for record in sorted(frames.records, key=lambda record: record.labels["sampler"]):
        wanted = record.labels["target"] == label and record.spec["seed"] == SEED
        if wanted and record.status.finished and (runs / f"{record.id}.npz").is_file():
            x = read_outcome(runs, record.id).draws.x
            rows[record.labels["sampler"]] = x[:: max(len(x) // COLUMNS, 1)][:COLUMNS]
    return rows


def _truth_row(truth: Truth) -> dict[str, object]:
    return {
        "strength": truth.strength,
        "method": "exact tilt",
        "calls": "–",
        "E log P": _format_estimate(truth.exact.mean, 3),
        "hacking": "–",
        "path KL": _format_estimate(truth.exact.kl),
        "diversity": _format_estimate(truth.diversity),
        "log Z error": f"log Z {truth.exact.log_Z:.3f}",
        "ESS": truth.exact.ess,
    }


def _table_row(pair: Pair) -> dict[str, object]:
    result, (mean, sd) = pair[0], pair[0].floor
    return {
        "strength": result.strength,
        "method": result.method,
        "calls": f"{result.calls[0]:,} + {result.calls[1]:,}",
        "E log P": _format_estimate(result.log_p, 3),
        "hacking": str(hack(pair) or "–"),
        "path KL": _format_estimate(result.path_kl),
        "gap": _format_estimate(result.gap),
        "KL by weights": _format_estimate(result.tilt_kl),
        "diversity": _format_estimate(result.diversity),
        "energy distance": _format_estimate(result.distance, 4),
        "floor": f"{mean:.4f} ± {sd:.4f}",
        "log Z error": _format_estimate(result.log_Z_err),
        "ESS": result.ess,
    }


def _format_estimate(estimate: Estimate, digits: int = 2) -> str:
    return f"{estimate.value:.{digits}f} ± {estimate.se:.{digits}f}" if estimate.n else "–"


frontier = Study("frontier", "Reward, diversity and KL of fine-tuned digits", run)
