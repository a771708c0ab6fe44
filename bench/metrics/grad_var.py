"""Relative variance of the loss gradient at the final parameters (math.md 7)."""

from __future__ import annotations

import torch
from torch import Generator

from tiltbench.estimators import jackknife
from tiltbench.metric import Metric, Unknown
from tiltbench.record import Outcome
from tiltbench.samplers.weights import Estimate
from tiltbench.targets.target import Target, Truth


def _ratio(target: Target, truth: Truth, outcome: Outcome, generator: Generator) -> Estimate:
    """tr Cov(g) / |E g|^2 from the (M, M) Gram matrix of M independent mini-batch gradients, both
    unbiased:  tr Cov = (tr - sum/M) / (M-1),  |E g|^2 = (sum - tr) / (M (M-1)).

    Errors delete one batch at a time (a bootstrap would pair a batch with its own copy and so
    inflate |E g|^2).  A squared mean within two errors of zero gives no ratio."""
    gram = outcome.probes["gradient_gram"].double().cpu()
    m = len(gram)
    if m < 3:
        raise Unknown(f"{m} mini-batch gradients: at least three are needed")
    if not bool(gram.isfinite().all()):
        raise Unknown("a gradient of the loss is not finite")
    trace, total = gram.trace(), gram.sum()
    own, row = gram.diagonal(), gram.sum(1)
    spread, squared = _split(trace, total, m)
    spreads, squares = _split(trace - own, total - 2 * row + own, m - 1)
    error = jackknife(float(squared), squares)
    if float(squared) <= 2 * error:
        raise Unknown(
            f"the squared mean gradient {float(squared):.3g} +- {error:.2g} is not told from zero "
            f"by {m} batches; tr Cov = {float(spread):.3g}"
        )
    value = float(spread / squared)
    return Estimate(value, jackknife(value, spreads / squares), m)


def _split(trace: torch.Tensor, total: torch.Tensor, m: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(tr Cov, |E g|^2), unbiased."""
    return (trace - total / m) / (m - 1), (total - trace) / (m * (m - 1))


grad_var = Metric("grad_var", frozenset({"probe.gradient_gram"}), "lower", "1", "", _ratio)
"""tr Cov(g) / |E g|^2 of the loss gradient g at the final parameters: reported, not ranked"""
