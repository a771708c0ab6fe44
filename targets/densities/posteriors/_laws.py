"""Logarithms of the densities that priors and likelihoods are made of, constants included."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

HALF_LOG_TWO_PI = math.log(2 * math.pi) / 2


def normal(y: Tensor, mean: Tensor | float, sd: Tensor | float) -> Tensor:
    """log N(y; mean, sd^2)."""
    return -((y - mean) / sd).square() / 2 - _log(sd) - HALF_LOG_TWO_PI


def lognormal(y: Tensor, mean: Tensor | float, sd: Tensor | float) -> Tensor:
    """The density of y > 0 whose logarithm is N(mean, sd^2)."""
    return normal(y.log(), mean, sd) - y.log()


def student(y: Tensor, freedom: float, centre: float, width: float) -> Tensor:
    """Student's t about `centre`, stretched by `width`."""
    z = (y - centre) / width
    constant = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)
    constant -= math.log(freedom * math.pi) / 2 + math.log(width)
    return constant - (freedom + 1) / 2 * (z.square() / freedom).log1p()


def cauchy(y: Tensor, centre: float, width: float) -> Tensor:
    """Student's t of one degree of freedom."""
    return student(y, 1.0, centre, width)


def least_squares(rows: Tensor) -> dict[str, Tensor]:
    """What a Gaussian likelihood needs of rows (x, y) (n, k + 1), the first column being 1: their
    number, the fit (k), a root (k, k) of the Gram matrix of x, and the sum of squares about the
    fit.  By orthogonal triangles, of which the rows may already be one: sums of squares about 0
    would lose digits.  Raises ValueError where the rows do not determine the fit."""
    k = rows.shape[1] - 1
    if len(rows) <= k or int(torch.linalg.matrix_rank(rows[:, :-1].double())) < k:
        raise ValueError(
            f"{len(rows)} rows do not determine the {k} coefficients of a regression: give more "
            "rows, and no column that the others make up"
        )
    triangle = torch.linalg.qr(rows.double(), mode="r").R
    root, across = triangle[:-1, :-1], triangle[:-1, -1:]
    fit = torch.linalg.solve_triangular(root, across, upper=True)[:, 0]
    count, rest = triangle[0, 0].square(), triangle[-1, -1].square()
    return {"count": count, "fit": fit, "root": root.T, "rest": rest}


def poisson(count: Tensor, log_mean: Tensor) -> Tensor:
    """log of the chance of a count whose mean is exp(log_mean)."""
    return count * log_mean - log_mean.exp() - (count + 1).lgamma()


def natural(log_weight: Tensor, mean: Tensor, sd: Tensor) -> Tensor:
    """(*b, 3) coefficients of log(weight N(y; mean, sd^2)), a polynomial of y: times `powers`."""
    precision = sd**-2
    level = log_weight - precision * mean.square() / 2 - sd.log() - HALF_LOG_TWO_PI
    return torch.stack([level, precision * mean, -precision / 2], -1)


def powers(y: Tensor) -> Tensor:
    """1, y and y^2, (3, n)."""
    return torch.stack([torch.ones_like(y), y, y.square()])


def recursion(first: Tensor, pushes: Tensor, share: Tensor) -> Tensor:
    """s_0 = first, s_t = pushes_t + share s_(t-1): (*b, n + 1) of a number, pushes (*b, n) and
    share (*b)."""
    states = [first.expand(share.shape)]
    for push in pushes.unbind(-1):
        states.append(push + share * states[-1])
    return torch.stack(states, -1)


def lagged(y: Tensor, lags: int) -> Tensor:
    """The rows 1, y_(t-1), ..., y_(t-lags), y_t of an autoregression."""
    before = [y[lags - k : len(y) - k] for k in range(1, lags + 1)]
    return torch.stack([torch.ones_like(y[lags:]), *before, y[lags:]], -1)


def fitted(rows: Mapping[str, Tensor]) -> tuple[list[float], list[float]]:
    """Where `regression` is large, for flat priors: means and sds of the coefficients and of log
    sd, from `least_squares` of the rows."""
    sd = float((rows["rest"] / rows["count"]).sqrt())
    widths = sd * torch.cholesky_inverse(rows["root"]).diagonal().sqrt()
    half = float((2 * rows["count"]).rsqrt())
    return [*rows["fit"].tolist(), math.log(sd)], [*widths.tolist(), half]


def regression(rows: Mapping[str, Tensor], coefficients: Tensor, sd: Tensor) -> Tensor:
    """sum_n log N(y_n; x_n . coefficients, sd^2) from `least_squares` of the rows; coefficients
    (*b, k), sd (*b)."""
    squares = ((coefficients - rows["fit"]) @ rows["root"]).square().sum(-1) + rows["rest"]
    return -squares / (2 * sd.square()) - rows["count"] * (_log(sd) + HALF_LOG_TWO_PI)


def _log(sd: Tensor | float) -> Tensor | float:
    return sd.log() if isinstance(sd, Tensor) else math.log(sd)
