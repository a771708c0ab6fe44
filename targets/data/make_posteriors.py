"""Writes the synthetic data of the posteriors with its provenance: each drawn from its own model.

    python targets/data/make_posteriors.py FOLDER

The arrays are frozen: rerunning this elsewhere must give them to 1e-12, or the files are kept.  The
models are those of posteriordb and of Inference Gym; none of their data is in here.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
from pathlib import Path

import numpy as np
from numpy.random import Generator


def ark(g: Generator) -> np.ndarray:
    """(200,) autoregression: alpha 0.1, beta (.5, -.3, .2, .1, .1), sigma 0.2, after 200 others."""
    beta, y = np.array([0.5, -0.3, 0.2, 0.1, 0.1]), [0.0] * 5
    for noise in 0.2 * g.standard_normal(400):
        y.append(float(0.1 + beta @ y[:-6:-1] + noise))
    return np.array(y[-200:])


def garch11(g: Generator) -> np.ndarray:
    """(200,) GARCH(1, 1): mu 5, alpha0 0.6, alpha1 0.3, beta1 0.5, first sd 0.5."""
    y, square = [], 0.5**2
    for noise in g.standard_normal(200):
        y.append(float(5 + np.sqrt(square) * noise))
        square = 0.6 + 0.3 * (y[-1] - 5) ** 2 + 0.5 * square
    return np.array(y)


def low_dim_gauss_mix(g: Generator) -> np.ndarray:
    """(1000,) of 0.4 N(-2, 1) + 0.6 N(1.5, 1.2)."""
    one = g.random(1000) < 0.4
    return np.where(one, -2.0, 1.5) + np.where(one, 1.0, 1.2) * g.standard_normal(1000)


def hmm_example(g: Generator) -> np.ndarray:
    """(100,) of two states with means 3 and 9, sd 1, that stay with probability 0.8 and 0.7."""
    state, states = 0, []
    for u in g.random(100):
        states.append(state)
        state = int(u < (0.2, 0.7)[state])
    return np.where(states, 9.0, 3.0) + g.standard_normal(100)


def nes1980(g: Generator) -> np.ndarray:
    """(600, 10) columns 1, ideology, race, three age groups, education, gender, income, party.

    Income goes with education and age; the response has sd 1.9."""
    n = 600
    age = g.choice(4, n, p=(0.3, 0.3, 0.3, 0.1))
    education = np.clip(np.round(2.6 + 0.9 * g.standard_normal(n) - 0.3 * (age == 3)), 1, 4)
    income = np.clip(np.round(0.8 + 0.7 * education + 0.8 * g.standard_normal(n)), 1, 5)
    ideology = np.clip(np.round(4 + 1.4 * g.standard_normal(n)), 1, 7)
    race, gender = (g.random(n) < 0.12) * 1.0, (g.random(n) < 0.55) * 1.0
    groups = [(age == group) * 1.0 for group in (1, 2, 3)]
    x = np.column_stack([np.ones(n), ideology, race, *groups, education, gender, income])
    beta = np.array([1.8, 0.48, -1.1, -0.2, -0.1, 0.2, 0.3, 0.0, 0.15])
    return np.column_stack([x, x @ beta + 1.9 * g.standard_normal(n)])


def diamonds(g: Generator) -> np.ndarray:
    """(26, 26) triangle, of QR, of 1, 24 centred columns and a response, of 5,000 rows.

    Neighbouring columns have correlation 0.95, and their sds go from 1 to 0.1 and back; b ~ N(0,
    0.3), intercept 8, sigma 0.13."""
    noise = g.standard_normal((5000, 24))
    x = np.empty_like(noise)
    x[:, 0] = noise[:, 0]
    for k in range(1, 24):
        x[:, k] = 0.95 * x[:, k - 1] + np.sqrt(1 - 0.95**2) * noise[:, k]
    x = x * 10.0 ** -np.abs(np.linspace(-1, 1, 24))
    x = x - x.mean(0)
    y = 8 + x @ (0.3 * g.standard_normal(24)) + 0.13 * g.standard_normal(5000)
    columns = np.column_stack([np.ones(5000), x, y])
    _, triangle = np.linalg.qr(columns)
    return triangle


def brownian_motion(g: Generator) -> np.ndarray:
    """(20,) of a path of 30 steps of sd 0.1, the first and last ten seen with noise of sd 0.15."""
    path = np.cumsum(0.1 * g.standard_normal(30))
    return np.concatenate([path[:10], path[20:]]) + 0.15 * g.standard_normal(20)


def item_response(g: Generator) -> np.ndarray:
    """(10, 40, 20) right answers, as 0 and 1, of 40 students a booklet to its 20 questions."""
    ability, difficulty = g.standard_normal((10, 40, 1)), g.standard_normal(100)
    asked = (10 * np.arange(10)[:, None] + np.arange(20)) % 100
    odds = 0.75 + ability - difficulty[asked][:, None, :]
    return (g.random(odds.shape) < 1 / (1 + np.exp(-odds))).astype(np.uint8)


def cox_process(g: Generator) -> np.ndarray:
    """(1600,) points in the cells of a unit square, 40 x 40 row by row.

    The logarithm of their intensity is Gaussian, with mean log(126) - 1.91 / 2 and covariance
    1.91 exp(-33 distance)."""
    cells = np.stack(np.meshgrid(*[np.arange(40) / 40] * 2, indexing="ij"), -1).reshape(-1, 2)
    apart = np.sqrt(np.square(cells[:, None] - cells).sum(-1))
    root = np.linalg.cholesky(1.91 * np.exp(-33 * apart))
    field = np.log(126) - 1.91 / 2 + root @ g.standard_normal(1600)
    return g.poisson(np.exp(field) / 1600).astype(np.uint8)


MAKERS = {  # the place of a name is part of its seed: new ones go last
    "arK": ark,
    "brownian_motion": brownian_motion,
    "diamonds": diamonds,
    "garch11": garch11,
    "hmm_example": hmm_example,
    "item_response": item_response,
    "low_dim_gauss_mix": low_dim_gauss_mix,
    "nes1980": nes1980,
    "cox_process": cox_process,
}
SEED = 2026


def generate(name: str) -> np.ndarray:
    return MAKERS[name](np.random.default_rng([SEED, list(MAKERS).index(name)]))


def main(folder: Path) -> None:
    for name, maker in MAKERS.items():
        buffer = io.BytesIO()
        np.save(buffer, generate(name))
        raw = buffer.getvalue()
        (folder / f"{name}.npy").write_bytes(raw)
        note = {
            "what": " ".join((maker.__doc__ or "").split()),
            "source": "synthetic: drawn from the model that the target states",
            "command": "python targets/data/make_posteriors.py targets/data",
            "seed": [SEED, list(MAKERS).index(name)],
            "numpy": np.__version__,
            "sha256": hashlib.sha256(raw).hexdigest(),
        }
        (folder / f"{name}.json").write_text(json.dumps(note, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
