"""What a generator of digits is worth: distances to held-out images beside their floor, what a
classifier sees, whether it copies; and sheets to look at."""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple

import matplotlib.image
import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.metrics._pairs import two_sample
from tiltbench.records.files import write_bytes
from tiltbench.targets.digits.digits import CLASSES, SIDE, Classifier, images, log_classes, split


class Quality(NamedTuple):
    """Means over the n images given; lengths are Euclidean in [-1, 1]^64."""

    energy_distance: float  # to the images held out
    confidence: float  # of the classifier in the digit it sees
    shares: list[float]  # of the ten digits
    nearest: float  # median distance to the nearest training image


def quality(x: Float[Tensor, "n 64"]) -> Quality:
    x = x.double().cpu()
    train, held_out = split(x)
    log_p = log_classes(x)
    return Quality(
        energy(x, held_out.x),
        float(log_p.exp().amax(-1).mean()),
        (torch.bincount(log_p.argmax(-1), minlength=CLASSES) / len(x)).tolist(),
        float(torch.cdist(x, train.x).amin(-1).median()),
    )


def energy(x: Float[Tensor, "n 64"], y: Float[Tensor, "m 64"]) -> float:
    """The energy distance, unbiased."""
    return two_sample(lambda distance: distance, x, y, None).value


def floor(repetitions: int = 20) -> tuple[float, float]:
    """Mean and sd of the energy distance between real images and real images, all 1,797 split at
    random as train and held out are."""
    x, g = images(torch.empty(0, dtype=torch.float64)).x, Generator().manual_seed(0)
    out = len(split(x)[1].x)
    energies = []
    for _ in range(repetitions):
        order = torch.randperm(len(x), generator=g)
        energies.append(energy(x[order[out:]], x[order[:out]]))
    return float(np.mean(energies)), float(np.std(energies, ddof=1))


@torch.no_grad()
def accuracy(classifier: Classifier) -> tuple[float, float]:
    """(share right, mean confidence) on the images held out."""
    held_out = split(torch.empty(0))[1]
    log_p = classifier(held_out.x).log_softmax(-1)
    right = (log_p.argmax(-1) == held_out.digit).double().mean()
    return float(right), float(log_p.exp().amax(-1).mean())


def sheet(x: Float[Tensor, "n 64"], path: Path, columns: int = 20, zoom: int = 5) -> None:
    """The first rows full of `columns` images as a PNG, dark ink on white, the same bytes twice."""
    rows = len(x) // columns
    each = x[: rows * columns].detach().cpu().reshape(rows, columns, SIDE, SIDE)
    framed = np.pad(each.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-1)
    whole = framed.transpose(0, 2, 1, 3).reshape(rows * (SIDE + 2), columns * (SIDE + 2))
    large = np.kron(whole, np.ones((zoom, zoom)))
    buffer = io.BytesIO()
    matplotlib.image.imsave(
        buffer,
        -large,
        cmap="gray",
        vmin=-1,
        vmax=1,
        format="png",
        metadata={"Software": "tiltbench"},
    )
    write_bytes(path, buffer.getvalue())
