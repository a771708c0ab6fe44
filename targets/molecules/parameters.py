"""The parameters of a molecule's energy as a file holds them: arrays, each checked when read."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Parameters:
    """Of n atoms, float64 and int64, in nm, rad, kJ/mol and e.

    Raises ValueError where an array has not the shape, the atoms or the numbers that it must."""

    bonds: Int[Tensor, "m 2"]
    bond_values: Float[Tensor, "m 2"]  # length, stiffness k of k/2 (r - r0)^2
    angles: Int[Tensor, "m 3"]  # the corner in the middle
    angle_values: Float[Tensor, "m 2"]  # angle, stiffness
    torsions: Int[Tensor, "m 4"]
    torsion_values: Float[Tensor, "m 3"]  # n, gamma, k of k (1 + cos(n phi - gamma))
    pair_values: Float[Tensor, "P 3"]  # q_i q_j, sigma, eps of i < j in the order of triu_indices
    positions: Float[Tensor, "n 3"]  # a conformation, where a simulation may start
    born: Float[Tensor, "n 3"] | None = None  # q, rho = R - 0.009, radius of the descreening sphere
    solvent: Float[Tensor, " 7"] | None = None  # the coefficients of psi, psi^2 and psi^3, the
    # dielectric constants of the molecule and of the solvent, 4 pi times the surface tension in
    # kJ/mol/nm^2, Coulomb's constant in kJ nm/mol/e^2

    @property
    def atoms(self) -> int:
        return round((1 + (1 + 8 * len(self.pair_values)) ** 0.5) / 2)

    def in_vacuum(self) -> Parameters:
        return replace(self, born=None, solvent=None)

    def __post_init__(self) -> None:
        n = self.atoms
        if len(self.pair_values) != n * (n - 1) // 2 or n < 2:
            raise ValueError(
                f"{len(self.pair_values)} rows of pair_values are those of no molecule: "
                "give every pair of atoms i < j one, excluded ones zeros"
            )
        for name, columns in COLUMNS.items():
            array = getattr(self, name)
            if array is None and name in SOLVENT:
                continue
            if tuple(array.shape[1:]) != columns[1:] or (columns[0] and len(array) != columns[0]):
                raise ValueError(
                    f"{name} has the shape {tuple(array.shape)}; it must be "
                    f"({', '.join([str(columns[0] or 'm'), *map(str, columns[1:])])})"
                )
            if not array.double().isfinite().all():
                raise ValueError(f"{name} holds a number that is not finite: every one must be")
        for name in ("bonds", "angles", "torsions"):
            array, values = getattr(self, name), getattr(self, f"{name[:-1]}_values")
            if len(array) != len(values):
                raise ValueError(f"{len(array)} {name} have {len(values)} rows of parameters")
            if len(array) and not (0 <= int(array.min()) and int(array.max()) < n):
                raise ValueError(f"{name} name atoms that are not among the {n}, counted from 0")
        given = [getattr(self, name) is not None for name in SOLVENT]
        if any(given) != all(given):
            raise ValueError(f"a solvent needs both {' and '.join(SOLVENT)}")
        for name in ("positions", "born"):
            array = getattr(self, name)
            if array is not None and len(array) != n:
                raise ValueError(f"{name} has {len(array)} rows for {n} atoms")

    def save(self, path: Path, about: dict[str, object]) -> None:
        """PATH.npz, and beside it PATH.json: `about`, and the SHA-256 of the arrays."""
        buffer = io.BytesIO()
        arrays = {f.name: getattr(self, f.name) for f in fields(self)}
        np.savez(buffer, **{k: v.numpy() for k, v in arrays.items() if v is not None})
        path.write_bytes(buffer.getvalue())
        note = {**about, "sha256": hashlib.sha256(buffer.getvalue()).hexdigest()}
        path.with_suffix(".json").write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")


SOLVENT = ("born", "solvent")
COLUMNS = {
    "bonds": (0, 2),
    "bond_values": (0, 2),
    "angles": (0, 3),
    "angle_values": (0, 2),
    "torsions": (0, 4),
    "torsion_values": (0, 3),
    "pair_values": (0, 3),
    "positions": (0, 3),
    "born": (0, 3),
    "solvent": (7,),
}


def read(path: Path) -> Parameters:
    """The file that `save` wrote, kept while it does not change.

    Raises ValueError where it is missing, damaged, or not the file that the JSON beside it
    describes."""
    try:
        written = path.stat().st_mtime_ns
    except OSError:
        raise ValueError(
            f"there is no {path.name}, which holds the parameters of the molecule: "
            "put it beside the target's file, or convert the molecule again"
        ) from None
    return _read(path, written)


@lru_cache(maxsize=32)
def _read(path: Path, written: int) -> Parameters:
    raw, note = path.read_bytes(), path.with_suffix(".json")
    remedy = f"restore {path.name} and {note.name}, or convert the molecule again"
    try:
        stated = json.loads(note.read_text(encoding="utf-8"))["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{note.name} does not say the SHA-256 of {path.name}: {remedy}"
        ) from error
    if hashlib.sha256(raw).hexdigest() != stated:
        raise ValueError(f"{path.name} is not the file that {note.name} describes: {remedy}")
    with np.load(io.BytesIO(raw), allow_pickle=False) as stored:
        arrays = {name: torch.from_numpy(stored[name]) for name in stored.files}
    with torch.inference_mode(False):
        return Parameters(**arrays)
