"""What a checkout of posteriordb holds, read as data only: nothing in it is executed.

    posterior_database/posteriors/NAME.json                          names of model, data, draws
    posterior_database/data/data/DATA.json.zip                       the data
    posterior_database/reference_posteriors/draws/draws/DRAWS.json.zip   the draws, where there are

Whatever is not as it should be raises Refused, with one sentence that names the file and what to
do.  An archive must hold one file; it is unpacked in memory, up to LARGEST bytes.
"""

from __future__ import annotations

import json
import math
import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

LARGEST = 64 * 2**20  # bytes of an unpacked file
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
COMPONENT = re.compile(r"(?P<name>\w+)\[(?P<index>[0-9]{1,6}(,[0-9]{1,6})*)\]")
AGAIN = "take it anew from posteriordb"


class Refused(ValueError):
    """A database that cannot be read; the message says what is wrong, and what to do."""


class Raw(NamedTuple):
    """The data of a posterior as its JSON says it, and the file that it is from."""

    values: Mapping[str, Any]
    file: str

    def whole(self, key: str) -> int:
        """A positive whole number, such as a length."""
        value = self._value(key)
        self.must(type(value) is int and 0 < value < 10**7, key, "it must be a positive number")
        return int(value)

    def array(self, key: str, *shape: int) -> Float[Tensor, ...]:
        """Finite numbers of that shape, float64."""
        value = self._value(key)
        array = _numbers([value] if shape == (1,) and not isinstance(value, list) else value)
        if array is None or array.shape != shape:
            has = f"shape {array.shape}" if array is not None else "no even shape of numbers"
            self.must(False, key, f"it has {has}, and must have {shape}")
        return torch.from_numpy(array)

    def positive(self, key: str, *shape: int) -> Float[Tensor, ...]:
        """The same of numbers above 0."""
        array = self.array(key, *shape)
        self.must(bool((array > 0).all()), key, "it must be positive")
        return array

    def must(self, condition: bool, key: str, what: str) -> None:
        """Raises Refused where the condition fails."""
        if not condition:
            raise Refused(f"{key} in {self.file} is not data of this model: {what}; {AGAIN}")

    def _value(self, key: str) -> Any:
        self.must(key in self.values, key, "it is missing")
        return self.values[key]


class Stored(NamedTuple):
    """A posterior of the database."""

    model: str
    data: Raw
    draws: dict[str, Float[Tensor, "chains draws *size"]] | None


def read(folder: Path, name: str) -> Stored:
    """The posterior `name` of the folder posterior_database of a checkout.

    Raises Refused where it is not there, or is not what it should be."""
    if not (folder / "posteriors").is_dir():
        raise Refused(
            f"{folder} is no posterior_database: name the folder of that name in a checkout of "
            "posteriordb"
        )
    about = folder / "posteriors" / f"{_name(name, 'name')}.json"
    if not about.is_file():
        raise Refused(f"{folder} has no posterior {name}: its file {about.name} is missing")
    with _contained(folder, about).open("rb") as file:
        entry = _table(_json(file.read(LARGEST + 1), about.name), about.name)
    model, data, draws = (
        entry.get(key) for key in ("model_name", "data_name", "reference_posterior_name")
    )
    if not (isinstance(model, str) and isinstance(data, str)):
        _damaged(about.name, "it names no model and no data")
    values = _unpacked(folder, Path("data", "data", f"{_name(data, about.name)}.json.zip"))
    raw = Raw(_table(values, f"{data}.json"), f"{data}.json.zip")
    if draws is None:
        return Stored(model, raw, None)
    place = Path("reference_posteriors", "draws", "draws", f"{_name(draws, about.name)}.json.zip")
    if not (folder / place).exists():
        return Stored(model, raw, None)
    return Stored(model, raw, _chains(_unpacked(folder, place), place.name))


def _name(name: Any, where: str) -> str:
    """The name of a file of the database, which leads nowhere else."""
    if not isinstance(name, str) or not NAME.fullmatch(name) or ".." in name:
        raise Refused(f"{name!r} in {where} is no name of the database: letters, digits and -_.+")
    return name


def _contained(folder: Path, path: Path) -> Path:
    """The file, which no link may lead out of the folder."""
    if not path.resolve().is_relative_to(folder.resolve()):
        raise Refused(f"{path.name} is a link out of {folder}: put the file itself there")
    return path


def _unpacked(folder: Path, place: Path) -> Any:
    """What the one JSON file of an archive says."""
    path = folder / place
    if not path.is_file():
        raise Refused(f"{folder} has no {place}: {AGAIN}")
    try:
        with zipfile.ZipFile(_contained(folder, path)) as archive:
            inside = archive.infolist()
            if len(inside) != 1 or inside[0].filename != path.stem:
                raise Refused(f"{path.name} must hold the one file {path.stem}: {AGAIN}")
            with archive.open(inside[0]) as file:
                text = file.read(LARGEST + 1)  # whatever size the archive states
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        _damaged(path.name, " ".join(str(error).split()))
    return _json(text, path.name)


def _json(text: bytes, file: str) -> Any:
    if len(text) > LARGEST:
        raise Refused(f"{file} unpacks to more than {LARGEST >> 20} MB, more than any posterior")
    try:
        return json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, or too deep
        _damaged(file, " ".join(str(error).split()))


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no finite number")


def _table(value: Any, file: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        _damaged(file, "it holds no names with values")
    return dict(value)


def _damaged(file: str, what: str) -> NoReturn:
    raise Refused(f"{file} is damaged ({what}): {AGAIN}")


def _numbers(value: Any) -> np.ndarray | None:
    """The float64 array of nested lists of finite numbers; None where they are none."""
    flat = [value]
    while flat and isinstance(flat[0], list):
        if not all(isinstance(one, list) for one in flat):
            return None
        flat = [item for one in flat for item in one]
    if not flat or not all(type(one) in (int, float) for one in flat):
        return None
    try:
        array = np.asarray(value, dtype=np.float64)
    except (ValueError, OverflowError):  # ragged, or an integer beyond all floats
        return None
    return array if bool(np.isfinite(array).all()) else None


def _chains(value: Any, file: str) -> dict[str, Tensor]:
    """By parameter (chains, draws) or (chains, draws, size): `b[1]`, `b[2]`, ... become b."""
    if not (isinstance(value, list) and value and all(isinstance(one, dict) for one in value)):
        _damaged(file, "it holds no list of chains")
    names = list(value[0])
    chains: dict[str, np.ndarray] = {}
    for name in names:
        numbers = _numbers([chain.get(name) for chain in value])
        if numbers is None or numbers.ndim != 2 or numbers.shape[1] < 2:
            _damaged(file, f"the draws of {name} are not one number each, as many in every chain")
        chains[name] = numbers
    if len({one.shape for one in chains.values()}) != 1:
        _damaged(file, "parameters differ in their number of draws")
    return {name: torch.from_numpy(one) for name, one in _gathered(chains, file).items()}


def _gathered(chains: Mapping[str, np.ndarray], file: str) -> dict[str, np.ndarray]:
    whole: dict[str, np.ndarray] = {}
    parts: dict[str, dict[int, np.ndarray]] = {}
    for name, numbers in chains.items():
        component = COMPONENT.fullmatch(name)
        if component is None:
            whole[name] = numbers
        elif component["index"].isdigit():  # those of matrices are of no model here
            parts.setdefault(component["name"], {})[int(component["index"])] = numbers
    for name, numbered in parts.items():
        if sorted(numbered) != list(range(1, len(numbered) + 1)):
            _damaged(file, f"the components of {name} are not 1 to {len(numbered)}")
        whole[name] = np.stack([numbered[k] for k in sorted(numbered)], -1)
    return whole


def scale_of(x: Float[Tensor, "n d"]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and sd of every column."""
    mean, sd = x.mean(0).tolist(), x.std(0).tolist()
    if not all(math.isfinite(s) and s > 0 for s in sd):
        raise Refused("a parameter does not move")
    return tuple(mean), tuple(sd)
