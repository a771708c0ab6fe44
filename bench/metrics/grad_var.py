"""Variance of the loss gradient at the final parameters, absolute and relative (math.md 7)."""

from __future__ import annotations

import torch
from torch import Generator

from tiltbench.estimators import jackknife
from tiltbench.metric import Metric, Outcome, Unknown
from tiltbench.samplers.weights import Estimate
from tiltbench.targets.target import Target, Truth


def _covariance(target: Target, truth: Truth, outcome: Outcome, generator: Generator) -> Estimate:
    """tr Cov(g) of M mini-batch gradients, unbiased.  In the units of the loss: to be compared
    between methods that minimise the same functional only."""
    gram = _gram(outcome)
    norms, row, m = gram.diagonal(), gram.sum(1), len(gram)
    spread, _ = _split(gram.trace(), gram.sum(), m)
    spreads, _ = _split(gram.trace() - norms, gram.sum() - 2 * row + norms, m - 1)
    return Estimate(float(spread), jackknife(float(spread), spreads), m)


def _ratio(target: Target, truth: Truth, outcome: Outcome, generator: Generator) -> Estimate:
    """tr Cov(g) / |E g|^2 from the (M, M) Gram matrix of M independent mini-batch gradients, both
    unbiased:  tr Cov = (tr - sum/M) / (M-1),  |E g|^2 = (sum - tr) / (M (M-1)).

    Errors delete one batch at a time (a bootstrap would pair a batch with its own copy and so
    inflate |E g|^2).  A squared mean within two errors of zero gives no ratio."""
    gram = _gram(outcome)
    m, trace, total = len(gram), gram.trace(), gram.sum()
    norms, row = gram.diagonal(), gram.sum(1)
    spread, squared = _split(trace, total, m)
    spreads, squares = _split(trace - norms, total - 2 * row + norms, m - 1)
    error = jackknife(float(squared), squares)
    if float(squared) <= 2 * error:
        raise Unknown(
            f"the squared mean gradient {float(squared):.3g} +- {error:.2g} does not differ "
            f"significantly from zero by {m} batches; tr Cov = {float(spread):.3g}"
        )
    value = float(spread / squared)
    return Estimate(value, jackknife(value, spreads / squares), m)


def _gram(outcome: Outcome) -> torch.Tensor:
    gram = outcome.probes["gradient_gram"].double().cpu()
    if len(gram) < 3:
        raise Unknown(f"{len(gram)} mini-batch gradients: at least three are needed")
    if not bool(gram.isfinite().all()):
        raise Unknown("a gradient of the loss is not finite")
    return gram


def _split(trace: torch.Tensor, total: torch.Tensor, m: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(tr Cov, |E g|^2), unbiased."""
    return (trace - total / m) / (m - 1), (total - trace) / (m * (m - 1))


grad_var = Metric("grad_var", frozenset({"probe.gradient_gram"}), "lower", "1", "", _ratio)
"""tr Cov(g) / |E g|^2 of the loss gradient g at the final parameters: reported, not ranked"""

grad_cov = Metric("grad_cov", frozenset({"probe.gradient_gram"}), "lower", "1", "", _covariance)
"""tr Cov(g): reported, not ranked; known where grad_var is not"""
