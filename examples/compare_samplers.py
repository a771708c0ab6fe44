"""A target of your own, three samplers, a table and a picture: all from Python.

python examples/compare_samplers.py --budget 40000 --out results/crescents
"""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch

from tiltbench.api import cells, run, score
from tiltbench.records.record import read_outcome
from tiltbench.targets.target import Density, Truth

SIDE = 4.0  # all the mass lies well inside [-SIDE, SIDE]^2


@dataclass(frozen=True)
class Crescents(Density):
    """rho(x) = exp(-8 (|x| - 2)^2) (exp(-8 (x_1 - 2)^2) + exp(-8 (x_1 + 2)^2)): two crescents."""

    name = "crescents"
    dim = 2
    scale = 1.4

    def log_rho(self, x):
        off = x.norm(dim=-1) - 2
        sides = torch.stack([x[..., 0] - 2, x[..., 0] + 2], -1)
        return -8 * off**2 + torch.logsumexp(-8 * sides**2, -1)

    def truth(self):
        """log Z by the trapezoidal rule, which converges fast for smooth laws that vanish at the
        edge; exact draws by rejection."""
        line = torch.linspace(-SIDE, SIDE, 2001, dtype=torch.float64)
        log_rho = self.log_rho(torch.cartesian_prod(line, line))
        log_Z = float(log_rho.logsumexp(0)) + 2 * math.log(float(line[1] - line[0]))
        top = float(log_rho.max())

        def sample(n, generator):
            here = {"generator": generator, "device": generator.device, "dtype": torch.float64}
            draws = torch.empty(0, 2, device=generator.device, dtype=torch.float64)
            while len(draws) < n:
                x = SIDE * (2 * torch.rand(50 * n, 2, **here) - 1)
                accepted = torch.rand(len(x), **here).log() < self.log_rho(x) - top
                draws = torch.cat([draws, x[accepted]])
            return draws[:n]

        return Truth("quadrature, 1e-9", log_Z=log_Z, sample=sample)


def main():
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--budget", type=int, default=40_000)
    options.add_argument("--out", type=Path, default=Path("results/crescents"))
    args = options.parse_args()

    samplers = ["smc", "mala", "pis"]
    runs = run(cells([Crescents()], samplers, args.budget, seeds=[0], draws=500), args.out)
    scores = score(args.out)
    columns = ["energy_distance", "w2", "log_Z_err", "ess_model", "ess_target"]
    table = scores.pivot_table("value", "sampler", "metric")
    print(table.reindex(columns=columns).round(3).to_string())

    figure, axes = plt.subplots(1, len(samplers), figsize=(9, 3.2), sharex=True, sharey=True)
    line = torch.linspace(-SIDE, SIDE, 200)
    height = Crescents().log_rho(torch.cartesian_prod(line, line)).reshape(200, 200).T
    for axis, sampler in zip(axes, samplers, strict=True):
        first = runs[runs["sampler"] == sampler].iloc[0]
        x = read_outcome(args.out / "runs", first["id"]).draws.x
        axis.contour(line, line, height.exp(), levels=4, colors="0.6", linewidths=0.8)
        axis.plot(x[:, 0], x[:, 1], ".", markersize=2)
        axis.set(title=f"{sampler}, {first['values']:,} values", aspect="equal")
    figure.tight_layout()
    figure.savefig(args.out / "draws.png", dpi=120)
    print(f"picture: {args.out / 'draws.png'}")


if __name__ == "__main__":
    main()
