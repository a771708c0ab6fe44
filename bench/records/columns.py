"""Rows of JSON values as columns of a Parquet file, and back without loss.

A column for each key; null where a row lacks it.  A key whose values are of one simple type has a
column of that type, any other a column of JSON texts, whose name ends in `:json`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiltbench.records.files import replacing

if TYPE_CHECKING:
    from pyarrow import Table

TEXT = ":json"
MOST = 20_000_000  # rows of a file that is read: a small file may claim any number
SIMPLE = {int: "int64", float: "double", bool: "bool", str: "string"}
KINDS = {*SIMPLE.values(), *(f"list<{kind}>" for kind in SIMPLE.values())}

Row = dict[str, Any]


def write(
    path: Path,
    rows: Sequence[Mapping[str, Any]],
    typed: Mapping[str, str] | None = None,
    about: Any = None,
) -> None:
    """The rows as `path`.  `typed` (name: type, one of KINDS) are columns that are there whatever
    the rows hold; `about`, any JSON value, travels in the file's schema, see `read`.

    Raises ValueError where a value does not fit the type of its column."""
    import pyarrow
    from pyarrow import parquet

    typed = typed or {}
    names = dict.fromkeys([*typed, *(key for row in rows for key in row)])
    columns = {}
    for name in names:
        values = [row.get(name) for row in rows]
        kind = typed.get(name) or _kind([value for value in values if value is not None])
        if kind is None:
            texts = [None if value is None else json.dumps(value) for value in values]
            columns[name + TEXT] = pyarrow.array(texts, "string")
        else:
            try:
                columns[name] = pyarrow.array(values, _arrow(kind))
            except (pyarrow.ArrowException, TypeError) as error:
                raise ValueError(f"a value of {name} is not of type {kind}: {error}") from error
    table = pyarrow.table(columns).replace_schema_metadata({"tiltbench": json.dumps(about)})
    with replacing(path) as temporary:
        parquet.write_table(table, temporary, compression="zstd")


def read(path: Path, typed: Mapping[str, str] | None = None) -> tuple[list[Row], Any]:
    """(rows, each with the keys that are not null; what was written as `about`).

    Raises ValueError, naming the file, for anything that `write`, with the same `typed`, cannot
    have written.  Nothing in a
    file is executed: no type of a column is looked up, nor built from what the file says."""
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            if file.metadata.num_rows > MOST:
                raise ValueError(f"it claims {file.metadata.num_rows:,} rows")
            schema = file.schema_arrow
            kinds = {field.name: _plain(field.type) for field in schema}
            odd = [f"{n} is {k}" for n, k in kinds.items() if k not in KINDS]
            odd += [f"{n} is {kinds.get(n)}" for n, k in (typed or {}).items() if kinds.get(n) != k]
            odd += [f"{n} is {k}" for n, k in kinds.items() if n.endswith(TEXT) and k != "string"]
            if odd:
                raise ValueError(f"a column that is not as it must be: {odd[0]}")
            table = file.read()
        about = json.loads((schema.metadata or {})[b"tiltbench"])
        return list(_table_rows(table)), about
    except (OSError, KeyError, TypeError, ValueError, RecursionError, pyarrow.ArrowException) as e:
        reason = str(e).strip().partition("\n")[0] or type(e).__name__
        raise ValueError(
            f"{path} is not a readable table of published results ({reason}); take it from the "
            "repository again, or `tiltbench publish` the suite anew"
        ) from e


def _plain(kind: Any) -> str:
    """Arrow's type by its name in KINDS, where it has one."""
    return re.sub(r"^list<\w+: (\w+)>$", r"list<\1>", str(kind))


def _arrow(kind: str) -> Any:
    import pyarrow

    simple = {
        "int64": pyarrow.int64(),
        "double": pyarrow.float64(),
        "bool": pyarrow.bool_(),
        "string": pyarrow.string(),
    }
    inner = kind.removeprefix("list<").removesuffix(">")
    return simple[inner] if inner == kind else pyarrow.list_(simple[inner])


def _kind(values: Iterable[Any]) -> str | None:
    """The one simple type of all the values; None where they have none."""
    values = list(values)
    if values and all(type(value) is list for value in values):
        inner = _kind([v for value in values for v in value if v is not None] or [""])
        return f"list<{inner}>" if inner in SIMPLE.values() else None
    types = {type(value) for value in values}
    kind = SIMPLE.get(types.pop()) if len(types) == 1 else None
    if kind == "int64" and not all(-(2**63) <= value < 2**63 for value in values):
        return None
    if kind == "string" and not all(_utf8(value) for value in values):
        return None
    return kind


def _utf8(text: str) -> bool:
    """Whether it is text that a file can hold: JSON may have half a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _table_rows(table: Table) -> Iterable[Row]:
    columns = []
    for name in table.column_names:
        values = table.column(name).to_pylist()
        if name.endswith(TEXT):
            name = name.removesuffix(TEXT)
            values = [None if text is None else json.loads(text) for text in values]
        columns.append((name, values))
    for i in range(table.num_rows):
        yield {name: values[i] for name, values in columns if values[i] is not None}
