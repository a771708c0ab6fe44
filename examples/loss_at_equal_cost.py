"""A new loss against an old one at equal cost: paired seeds, a test, and learning curves.

python examples/loss_at_equal_cost.py --budget 40000 --out results/log_cosh
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import scipy.stats

from tiltbench.api import cells, run
from tiltbench.report.frame import collect
from tiltbench.samplers.loss import path_space


def roughness(log_w, model):
    """E log cosh(log w - mean): the variance for small spreads, |log w - mean| for outliers.

    Least, and stationary, where all log-weights agree, which is the optimal control."""
    off = log_w - log_w.mean().detach()
    return (off.abs() + (-2 * off.abs()).exp().log1p()).mean()  # log 2 cosh, no overflow


log_cosh = path_space("log_cosh", roughness)  # price: one value a path, like log-variance


def main():
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--budget", type=int, default=40_000)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--out", type=Path, default=Path("results/log_cosh"))
    args = options.parse_args()

    seeds = range(args.seeds)
    todo = cells(["gmm9"], ["log_variance", log_cosh], args.budget, seeds, draws=500, curve=250)
    run(todo, args.out)
    results = collect(args.out)
    print(results.runs.groupby("sampler")[["values", "grads"]].max().to_string(), "\n")

    for metric in ("energy_distance", "mode_tv", "eubo_gap"):
        rows = results.scores[results.scores["metric"] == metric]
        by_seed = rows.pivot(index="seed", columns="sampler", values="value")
        test = scipy.stats.ttest_rel(by_seed["log_cosh"], by_seed["log_variance"])
        medians = by_seed.median()
        print(
            f"{metric}: log_cosh {medians['log_cosh']:.3g}, log_variance "
            f"{medians['log_variance']:.3g}; paired t over {len(by_seed)} seeds, "
            f"p = {test.pvalue:.2g}"
        )

    figure, axis = plt.subplots(figsize=(5, 3.4))
    colours = {"log_variance": "C0", "log_cosh": "C1"}
    for row in results.runs.itertuples():
        curve = results.curves[row.id]
        axis.plot(curve["spend"], curve["distance"], ".-", color=colours[row.sampler])
    for name, colour in colours.items():
        axis.plot([], [], color=colour, label=name)
    axis.set(xscale="log", xlabel="values in training", ylabel="energy distance", title="gmm9")
    axis.legend()
    figure.tight_layout()
    figure.savefig(args.out / "curves.png", dpi=120)
    print(f"picture: {args.out / 'curves.png'}")


if __name__ == "__main__":
    main()
