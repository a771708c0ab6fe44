"""`tiltbench base`: train a small pretrained model, the base of fine-tuning targets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tiltbench.cli.arguments import RESULTS, whole
from tiltbench.cli.options import Typed, option
from tiltbench.plan.errors import Refused
from tiltbench.records.command import command

if TYPE_CHECKING:
    from tiltbench.targets.bases.pretrained import Pretrained

SHOWN, SAMPLED = 200, 1438  # images on a sheet; sampled to be measured, as many as were trained on


def base(
    name: Annotated[Literal["digits"], option("what to train on")],
    /,
    *,
    kind: Annotated[
        Literal["flow", "ddpm", "classifier", "draws"], option("what to train (default flow)")
    ] = "flow",
    steps: Annotated[
        int | None, option("of the optimiser (default: as those that ship)", "N", whole)
    ] = None,
    out: Annotated[str | None, option("default results/base", "DIR")] = None,
    typed: Typed,
) -> int:
    """Train a network on real images, minutes on one core, and write checkpoint, provenance and a
    sheet of samples.  With --kind draws: draw from the flow that ships; weighted by exp r, these
    draws are the truth of its tilts.

    The networks and draws that ship are in targets/data.
    """
    import torch

    from tiltbench.records.provenance import code_identity

    folder = Path(out) if out else RESULTS / "base"
    folder.mkdir(parents=True, exist_ok=True)  # or fails before minutes of training
    torch.set_num_threads(1)  # sums in one order: the same bytes twice
    now = code_identity()
    note = {
        "command": command(typed),
        "commit": now["commit"],
        "torch": torch.__version__.partition("+")[0],
        "licence": "that of this package; trained on data/digits.npy (CC BY 4.0)",
    }
    kinds = {"flow": _field, "ddpm": _field, "classifier": _classifier, "draws": _draws}
    print(kinds[kind](kind, steps, folder, note))
    return 0


def _classifier(kind: str, steps: int | None, out: Path, note: dict[str, Any]) -> str:
    from tiltbench.pretrain.quality import accuracy
    from tiltbench.pretrain.train import CLASSIFIER_STEPS, store, train_classifier

    network = train_classifier(steps or CLASSIFIER_STEPS)
    right, sure = accuracy(network)
    message = f"{right:.1%} of the images held out are classified rightly, confidence {sure:.3f}"
    path = store(network, out, "digits_classifier", {**note, "held out": message})
    return f"{message}\n{path}"


def _field(kind: str, steps: int | None, out: Path, note: dict[str, Any]) -> str:
    from tiltbench.pretrain.quality import sheet
    from tiltbench.pretrain.train import BLOCKS, FIELD_STEPS, WIDTH, doubt_of, store, train_field
    from tiltbench.records.files import write_bytes
    from tiltbench.targets.digits.digits import DDPM, FLOW, wrapped

    chosen = {"flow": FLOW, "ddpm": DDPM}[kind]
    network = train_field(chosen, steps or FIELD_STEPS)
    doubt = doubt_of(network, chosen)
    base = wrapped(chosen, network, doubt)
    table, x = measured(base)
    shape = {"width": WIDTH, "blocks": BLOCKS}
    path = store(network, out, chosen.stored, {**note, **shape, "quality": table, "doubt": doubt})
    picture, page = path.with_suffix(".png"), path.with_suffix(".md")
    sheet(x[:SHOWN], picture)
    write_bytes(page, f"{table}\n".encode())
    return f"{table}\n{path}\n{page}\n{picture}"


def _draws(kind: str, steps: int | None, out: Path, note: dict[str, Any]) -> str:
    from tiltbench.pretrain.train import store_draws

    if steps:
        raise Refused("--steps is of the optimiser, and drawing trains nothing: leave it out")
    return f"{store_draws(out, note)}"


def measured(base: Pretrained) -> tuple[str, Any]:
    """(a Markdown table, the draws of the memoryless chain)."""
    import torch

    from tiltbench.pretrain.quality import floor, quality
    from tiltbench.samplers.redraw import by_ode
    from tiltbench.targets.bases.process import Uncontrolled, simulate
    from tiltbench.targets.digits.digits import DIM, split

    g = torch.Generator().manual_seed(2)
    real, held_out = split(torch.empty(0, dtype=torch.float64))
    still, shape = Uncontrolled(), (SAMPLED, DIM)
    with torch.no_grad():
        noisy = simulate(base, still, shape, g).x[-1]
    rows = {
        f"memoryless SDE, {base.steps} steps": noisy,
        f"ODE, {base.steps} steps": by_ode(base, still, shape, g).x,
        "images trained on": real.x,
        "images held out": held_out.x,
    }
    mean, sd = floor()
    lines = [
        f"Energy distance to the images held out; between real and real {mean:.4f} +- {sd:.4f}.",
        "",
        "| | energy distance | confidence | rarest and commonest digit | nearest training image |",
        "|---|---|---|---|---|",
    ]
    for name, x in rows.items():
        figures = quality(x)
        near = "0 by definition" if x is held_out.x else f"{figures.energy_distance:.4f}"
        lines.append(
            f"| {name} | {near} | {figures.confidence:.3f} | "
            f"{min(figures.shares):.3f}, {max(figures.shares):.3f} | {figures.nearest:.2f} |"
        )
    return "\n".join(lines), noisy
