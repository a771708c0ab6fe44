"""Fine-tunes the flow of digits towards one of the ten, and draws with three noises.

    python examples/finetuning/digits.py FOLDER

Adjoint matching of a copy of the network, 40 batches of 48 paths.  Writes table.md and the sheets
before.png and after.png; one thread, the same numbers twice.
"""

import sys
from pathlib import Path

import torch

from tiltbench.pretrain.quality import quality, sheet
from tiltbench.samplers.diffusion import Diffusion
from tiltbench.samplers.losses.adjoint_matching import adjoint_matching
from tiltbench.samplers.networks.adapter import Adapter
from tiltbench.samplers.redraw import by_noise, by_ode
from tiltbench.samplers.weights import ess, log_mean_exp
from tiltbench.targets.bases.interpolant import Ancestral, Regularised
from tiltbench.targets.bases.process import Uncontrolled
from tiltbench.targets.bases.references import Brownian
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import pose
from tiltbench.targets.tilts.digits_class import DigitsClass

BATCHES, PATHS, DRAWS = 40, 48, 1000


def table_row(name, draws, problem):
    """Rewards of the draws as they are, and what their weights say where they have some."""
    figures = quality(draws.x)
    cells = [
        name,
        f"{float(problem.reward(draws.x).mean()):.2f}",
        f"{figures.shares[3]:.3f}",
    ]
    cells.append(f"{figures.nearest:.2f}")
    if draws.log_w is None:
        return f"| {' | '.join(cells)} | - | - |"
    cells += [f"{log_mean_exp(draws.log_w):.3f}", f"{ess(draws.log_w):.3f}"]
    return f"| {' | '.join(cells)} |"


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    g = torch.Generator().manual_seed(0)
    problem = pose(DigitsClass(digit=3), Brownian())
    sampler = Diffusion(adjoint_matching, model=Adapter(), paths=PATHS, batches=BATCHES, lr=3e-4)
    state = sampler.init(problem, Cost(BATCHES * PATHS, BATCHES * PATHS), g)
    while not sampler.done(state):
        state = sampler.step(problem, state, g)
    still, shape = Uncontrolled(), (DRAWS, problem.dim)
    before = by_noise(problem, still, Ancestral(), DRAWS, g)
    after = by_noise(problem, state.model, Ancestral(), DRAWS, g)
    rows = {
        "base, memoryless SDE": before,
        "fine-tuned, memoryless SDE": after,
        "fine-tuned, less noise (Regularised, h = .1)": by_noise(
            problem, state.model, Regularised(h=0.1), DRAWS, g
        ),
        "fine-tuned, ODE": by_ode(problem.base, state.model, shape, g),
    }
    lines = [
        "| draws | mean reward | share of threes | nearest training image | log Z | ESS |",
        "|---|---|---|---|---|---|",
        *(table_row(name, draws, problem) for name, draws in rows.items()),
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    sheet(before.x[:60], folder / "before.png")
    sheet(after.x[:60], folder / "after.png")
    print("\n".join(lines))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
