"""Writes gmm40.npy and gmm40_cells.npy with their provenance.

    python targets/data/make_gmm40.py FOLDER

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

VARIANCE = math.log1p(math.e) ** 2


def means() -> Tensor:
    """(40, 2) float64: (U[0, 1] - 1/2) 80 in float32 from torch's CPU generator, seed 0."""
    return ((torch.rand(40, 2, generator=torch.Generator().manual_seed(0)) - 0.5) * 80).double()


def cells(mean: Tensor) -> Tensor:
    """(40,) masses of the Voronoi cells of `mean` under the mixture, error below 1e-12.

    A cell cuts every vertical line in an interval [low, high](x), so its mass is
    int dx sum_j w_j phi_j(x) [Phi_j(high) - Phi_j(low)].  Between the abscissae of the points that
    are equally far from three means the integrand is smooth: Gauss-Legendre on each such piece.
    """
    sd = math.sqrt(VARIANCE)
    i, j, k = torch.tensor(list(combinations(range(len(mean)), 3))).T
    a, b = mean[j] - mean[i], mean[k] - mean[i]
    square_a, square_b = a.square().sum(-1), b.square().sum(-1)
    cross = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    corner = mean[i, 0] + (b[:, 1] * square_a - a[:, 1] * square_b) / (2 * cross)
    reach = 40 + 9 * sd
    even = torch.linspace(-reach, reach, 200, dtype=torch.float64)
    edges = torch.cat([even, corner[corner.abs() < reach]]).sort().values
    node, weight = (torch.as_tensor(v) for v in np.polynomial.legendre.leggauss(8))
    half = edges.diff()[:, None] / 2
    x = ((edges[:-1, None] + half) + half * node).flatten()
    w = (half * weight).flatten()
    strips = zip(x.split(512), w.split(512), strict=True)
    return torch.stack([_strip(*strip, mean, sd) for strip in strips]).sum(0)


def _strip(x: Tensor, w: Tensor, mean: Tensor, sd: float) -> Tensor:
    step = mean - mean[:, None]  # (40, 40, 2): from i to k
    size = mean.square().sum(-1)
    level = (size - size[:, None]) / 2 - x[:, None, None] * step[..., 0]  # y step_y <= level
    bound = level / step[..., 1]
    high = torch.where(step[..., 1] > 0, bound, torch.inf).amin(-1)
    low = torch.where(step[..., 1] < 0, bound, -torch.inf).amax(-1)
    cdf = torch.special.ndtr
    inside = cdf((high[..., None] - mean[:, 1]) / sd) - cdf((low[..., None] - mean[:, 1]) / sd)
    inside = inside.clamp(min=0)  # (x, cell, component); an empty interval has high < low
    phi = torch.exp(-((x[:, None] - mean[:, 0]) ** 2) / (2 * VARIANCE)) / (
        sd * math.sqrt(2 * math.pi)
    )
    return torch.einsum("x,xj,xij->i", w, phi, inside) / len(mean)


def write(folder: Path, name: str, array: Tensor, what: str) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array.numpy())
    raw = buffer.getvalue()
    (folder / f"{name}.npy").write_bytes(raw)
    note = {
        "what": what,
        "command": "python targets/data/make_gmm40.py targets/data",
        "torch": torch.__version__.partition("+")[0],
        "sha256": hashlib.sha256(raw).hexdigest(),
    }
    (folder / f"{name}.json").write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")


def main(folder: Path) -> None:
    mean = means()
    what = (means.__doc__ or "").partition(": ")[2]
    write(folder, "gmm40", mean, f"(40, 2) means of gmm40: {what}")
    write(
        folder,
        "gmm40_cells",
        cells(mean),
        "(40,) masses of the nearest-mean cells of gmm40 (weights 1/40, sd softplus(1)), by "
        "piecewise Gauss-Legendre quadrature, error below 1e-12",
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
