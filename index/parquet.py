"""Items of an index as a Parquet file: columns id, vector, metadata (JSON) and sha256. Its schema names the model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Final

import numpy as np
import orjson

from rankone.index.backup import Tell, there, whole
from rankone.index.database import PARTIAL, Spec, place
from rankone.index.errors import IndexProblem
from rankone.index.items import Item, Reader

_BATCH: Final = 512


def write(reader: Reader, spec: Spec, out: Path, tell: Tell) -> None:
    """Writes all items, some at a time; IndexProblem without pyarrow."""
    arrow, parquet = _pyarrow()
    element = arrow.float16() if spec.dtype == "float16" else arrow.float32()
    text, vector = arrow.string(), arrow.list_(element, spec.dim)
    columns = [("id", text), ("vector", vector), ("metadata", text), ("sha256", text)]
    schema = arrow.schema(columns, metadata={"rankone": orjson.dumps(asdict(spec))})
    partial = out.with_name(f".{out.name}{PARTIAL}")
    records = (whole(record) for _, record in reader.everything())
    with parquet.ParquetWriter(partial, schema) as writer:
        while batch := list(islice(records, _BATCH)):
            flat = np.frombuffer(b"".join(record.vector for record in batch), spec.stored)
            vectors = arrow.FixedSizeListArray.from_arrays(arrow.array(flat, element), spec.dim)
            texts = [[getattr(record, name) for record in batch] for name in ("id", "metadata", "sha256")]
            writer.write_batch(arrow.record_batch([texts[0], vectors, texts[1], texts[2]], schema=schema))
            tell(len(batch))
    place(partial, out)


def spec_of(source: Path) -> Spec | None:
    """What the file says of the index it came from."""
    text = (_pyarrow()[1].read_schema(there(source)).metadata or {}).get(b"rankone")
    return None if text is None else Spec(**orjson.loads(text))


def read(source: Path) -> Iterator[Item]:
    """All items, some at a time."""
    for batch in _pyarrow()[1].ParquetFile(source).iter_batches(_BATCH):
        flat = batch.column("vector").flatten().to_numpy(zero_copy_only=False)
        columns = (batch.column(name).to_pylist() for name in ("id", "metadata", "sha256"))
        rows = flat.reshape(batch.num_rows, -1)
        for item_id, metadata, sha256, vector in zip(*columns, rows, strict=True):
            yield Item(item_id, vector, orjson.loads(metadata), sha256)


def _pyarrow() -> tuple[ModuleType, ModuleType]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise IndexProblem("Parquet needs pyarrow: install rankone[parquet]") from error
    return pyarrow, pyarrow.parquet
