"""Writes student_mixture.npy and student_mixture_cells.npy with their provenance.

    python targets/data/make_student_mixture.py FOLDER

The means are frozen: rerunning this on another torch must give the same bytes, or the file is kept.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def means() -> Tensor:
    """(10, 2) float64: (U[0, 1] - 1/2) 20 in float64 from torch's CPU generator, seed 161.

    The first seed whose closest two means are 4 apart: the components are to be told apart."""
    g = torch.Generator().manual_seed(161)
    return (torch.rand(10, 2, generator=g, dtype=torch.float64) - 0.5) * 20


def cells(mean: Tensor) -> Tensor:
    """(10,) masses of the nearest-mean cells of the mixture, error below 1e-11.

    A cell cuts every vertical line in an interval [low, high](x), so its mass is
    int dx sum_j w_j t(x - m_j0) [T(high - m_j1) - T(low - m_j1)].  Between the abscissae of the
    points that are equally far from three means the integrand is smooth: Gauss-Legendre on each
    such piece, and on pieces that double out to 1e5, beyond which the mass is 1e-15.
    """
    i, j, k = torch.tensor(list(combinations(range(len(mean)), 3))).T
    a, b = mean[j] - mean[i], mean[k] - mean[i]
    square_a, square_b = a.square().sum(-1), b.square().sum(-1)
    cross = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    corner = mean[i, 0] + (b[:, 1] * square_a - a[:, 1] * square_b) / (2 * cross)
    near = torch.linspace(-20, 20, 161, dtype=torch.float64)
    far = 20 * 2 ** torch.linspace(0, 12.3, 124, dtype=torch.float64)
    edges = torch.cat([-far, near, far, corner[corner.abs() < far[-1]]]).unique()
    node, weight = (torch.as_tensor(v) for v in np.polynomial.legendre.leggauss(16))
    half = edges.diff()[:, None] / 2
    x, w = ((edges[:-1, None] + half) + half * node).flatten(), (half * weight).flatten()
    step = mean - mean[:, None]  # (10, 10, 2): from i to k
    size = mean.square().sum(-1)
    level = (size - size[:, None]) / 2 - x[:, None, None] * step[..., 0]  # y step_y <= level
    bound = level / step[..., 1]
    high = torch.where(step[..., 1] > 0, bound, torch.inf).amin(-1)
    low = torch.where(step[..., 1] < 0, bound, -torch.inf).amax(-1)
    inside = _cdf(high[..., None] - mean[:, 1]) - _cdf(low[..., None] - mean[:, 1])
    inside = inside.clamp(min=0)  # (x, cell, component); an empty interval has high < low
    t = 6 * math.sqrt(3) / (math.pi * (3 + (x[:, None] - mean[:, 0]).square()).square())
    return torch.einsum("x,xj,xij->i", w, t, inside) / len(mean)


def _cdf(x: Tensor) -> Tensor:
    """Of Student's t with 3 degrees of freedom."""
    y = x / math.sqrt(3)
    return 0.5 + (torch.atan(y) + 1 / (y + 1 / y)) / math.pi  # 1 / (y + 1/y) is 0 at infinity


def write(folder: Path, name: str, array: Tensor, what: str) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array.numpy())
    raw = buffer.getvalue()
    (folder / f"{name}.npy").write_bytes(raw)
    note = {
        "what": what,
        "command": "python targets/data/make_student_mixture.py targets/data",
        "torch": torch.__version__.partition("+")[0],
        "sha256": hashlib.sha256(raw).hexdigest(),
    }
    (folder / f"{name}.json").write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")


def main(folder: Path) -> None:
    mean = means()
    write(folder, "student_mixture", mean, "means of student_mixture: " + _summary(means.__doc__))
    write(folder, "student_mixture_cells", cells(mean), _summary(cells.__doc__))


def _summary(doc: str | None) -> str:
    return (doc or "").partition("\n")[0]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
