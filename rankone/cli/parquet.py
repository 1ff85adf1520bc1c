"""Answers to a Parquet file, some rows at a time. Needs pyarrow, the extra `parquet`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, BinaryIO, Final

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from rankone.client import Neighbour, Prediction

_ROWS: Final = 1000
"""In memory at a time, and in a row group."""

_PREDICTION: Final = pa.struct([("label", pa.string()), ("index", pa.int32()), ("probability", pa.float64())])
_NEIGHBOUR: Final = pa.struct([("id", pa.string()), ("score", pa.float64()), ("metadata", pa.string())])


@contextmanager
def table(file: BinaryIO, column: str) -> Iterator[Callable[[str, Any], None]]:
    """Columns `path` and `column`; metadata of a neighbour is JSON in a string, as it has no schema."""
    rows: list[tuple[str, Any]] = []
    writer: pq.ParquetWriter | None = None

    def write(name: str, value: Any) -> None:
        rows.append((name, value))
        if len(rows) == _ROWS:
            flush()

    def flush() -> None:
        nonlocal writer
        schema = pa.schema([("path", pa.string()), (column, _type_of(column, rows[0][1]))])
        if writer is None:
            writer = pq.ParquetWriter(file, schema)
        names, values = zip(*rows, strict=True)
        columns = [pa.array(names), pa.array([_plain(value) for value in values], schema.field(1).type)]
        writer.write_table(pa.table(columns, schema=schema))
        rows.clear()

    try:
        yield write
    finally:
        if rows:
            flush()
        if writer is not None:
            writer.close()


def _type_of(column: str, value: Any) -> pa.DataType:
    if column == "embedding":
        return pa.list_(pa.float32(), len(value))
    return pa.list_(_PREDICTION if column == "predictions" else _NEIGHBOUR)


def _plain(value: Any) -> Any:
    return [_entry(entry) for entry in value] if isinstance(value, list) else value


def _entry(entry: Prediction | Neighbour) -> dict[str, Any]:
    plain = asdict(entry)
    return plain | {"metadata": orjson.dumps(entry.metadata).decode()} if isinstance(entry, Neighbour) else plain
