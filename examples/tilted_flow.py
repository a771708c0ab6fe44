"""A reward on a flow whose density is known: log Z from both sides, and where the sides cross.

python examples/tilted_flow.py --budget 40000 --out results/tilted_flow
"""

import argparse
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch

from tiltbench.api import cells, run
from tiltbench.estimators import bar, elbo, eubo, jarzynski, reverse
from tiltbench.records.record import read_outcome
from tiltbench.targets.bases.mixture_flow import MixtureFlow
from tiltbench.targets.target import Tilt, Truth

SLOPE = (1.0, 0.6)


@dataclass(frozen=True)
class Triangle(Tilt):
    """r(x) = SLOPE . x on a rectified flow to three Gaussians: p* is a mixture, too."""

    name = "triangle"
    dim = 2
    scale = 1.5

    @cached_property
    def base(self):
        means = ((-1.5, -1.0), (1.5, -1.0), (0.0, 1.6))
        return MixtureFlow((0.5, 0.3, 0.2), means, (0.2, 0.3, 0.25))

    @cached_property
    def tilted(self):
        """(log Z, p*): weights w_i exp(c . m_i + v_i |c|^2 / 2), means m_i + v_i c."""
        return self.base.law.tilted_linear(torch.tensor(SLOPE, dtype=torch.float64))

    def reward(self, x):
        return x @ torch.tensor(SLOPE, dtype=x.dtype, device=x.device)

    def truth(self):
        log_Z, law = self.tilted
        return Truth("closed form", log_Z=log_Z, sample=law.sample)


def main():
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--budget", type=int, default=40_000)
    options.add_argument("--out", type=Path, default=Path("results/tilted_flow"))
    args = options.parse_args()

    methods = ["log_variance", "adjoint_matching"]
    runs = run(cells([Triangle()], methods, args.budget, seeds=[0], draws=2_000), args.out)
    print(f"log Z = {Triangle().truth().log_Z:.4f}, exactly")

    figure, axes = plt.subplots(1, len(methods), figsize=(8, 3), sharex=True)
    for axis, method in zip(axes, methods, strict=True):
        (name,) = runs.loc[runs["sampler"] == method, "id"]
        outcome = read_outcome(args.out / "runs", name)
        ahead, back = outcome.draws.log_w, outcome.log_w_reverse
        estimates = {
            "bounds": (elbo(ahead), eubo(back)),
            "forward and reverse": (jarzynski(ahead), reverse(back)),
            "both sides at once (Bennett)": (bar(ahead, back),),
        }
        print(method)
        for what, sides in estimates.items():
            listed = ", ".join(f"{e.value:.4f} +- {e.se:.4f}" for e in sides)
            print(f"  {what}: {listed}")
        low, high = np.quantile(torch.cat([ahead, back]), [0.005, 0.995])
        bins = np.linspace(low, high, 50)
        axis.hist(ahead, bins, density=True, alpha=0.6, label="forward")
        axis.hist(back, bins, density=True, alpha=0.6, label="from exact draws")
        axis.axvline(Triangle().truth().log_Z, color="k", linewidth=1)
        axis.set(title=method, xlabel="log w")
    axes[0].legend()  # Crooks: the two densities cross where log w = log Z
    figure.tight_layout()
    figure.savefig(args.out / "weights.png", dpi=120)
    print(f"picture: {args.out / 'weights.png'}")


if __name__ == "__main__":
    main()
