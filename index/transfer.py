"""Items of an index to files and back, item by item whatever the size.

`NAME.npy` is an array (n, dim). Beside it, `NAME.jsonl` has one {"id", "metadata", "sha256"} a row, with its "thumbnail" in
base64 where the item has one, and `NAME.json` names the model. `NAME.parquet` has columns id, vector, metadata (JSON), sha256
and thumbnail, and names the model in its schema.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import orjson

from rankone.index.backend import AnyReader
from rankone.index.backup import Tell, require_exists, require_intact
from rankone.index.database import PARTIAL, publish
from rankone.index.errors import IndexConflict, IndexProblem
from rankone.index.items import Item, Record
from rankone.index.source import Source, filling, reading
from rankone.index.spec import Spec

_BATCH: Final = 512
_NORM_TOLERANCE: Final = 1e-2


def export(source: Source, out: Path, tell: Tell) -> int:
    """Writes all items of one state of the index to a new .npy or .parquet file; returns their number.

    An interrupted export to .npy is resumed if the items are still exactly the same.

    Raises:
        IndexConflict: `out` exists already.
        IndexProblem: another kind of file, or pyarrow is missing.
        IndexDamaged: an item is damaged.
    """
    if out.exists():
        raise IndexConflict(f"{out} is there already; name another file")
    write = _write_npy if _is_npy(out) else _write_parquet
    with reading(source) as (reader, spec):
        write(reader, spec, out, tell)
        return reader.count()


def load_items(file: Path, target: Source, spec: Spec | None, tell: Tell) -> int:
    """Adds the items of an exported file to the index `target`, which is made if needed; returns the number of new items.

    Items that are stored already with the same content are skipped, so an interrupted import can be run again. `spec` says
    whose embeddings these are if the file does not.

    Raises:
        IndexConflict: the index belongs to another model.
        IndexProblem: the file cannot be read, a vector in it is no embedding, or another process uses the folder.
    """
    found = (_npy_spec if _is_npy(file) else parquet_spec)(require_exists(file)) or spec
    if found is None:
        raise IndexProblem(f"{file} does not say which model made it: name the bundle")
    items = (_read_npy if _is_npy(file) else read_parquet)(file)
    added = 0
    with filling(target, found) as index:
        try:
            while batch := list(islice(items, _BATCH)):
                check_vectors(batch, index.spec.dim, file)
                if new := index.missing(batch):
                    index.put(new)
                added += len(new)
                tell(len(batch))
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise IndexProblem(f"{file} cannot be read: {error}") from error
    return added


def _is_npy(path: Path) -> bool:
    if path.suffix not in (".npy", ".parquet"):
        raise IndexProblem(f"{path}: items are written to and read from .npy or .parquet files")
    return path.suffix == ".npy"


def check_vectors(items: list[Item], dim: int, source: Path) -> None:
    """Raises IndexProblem if a vector is no embedding of `dim` numbers."""
    for item in items:
        vector = np.asarray(item.vector, np.float64)
        norm = float(np.linalg.norm(vector))
        if vector.shape != (dim,) or not np.isfinite(norm) or (norm and abs(norm - 1) > _NORM_TOLERANCE):
            raise IndexProblem(f"{source}: the vector of {item.id!r} is no embedding of {dim} numbers and length 1")


def _write_npy(reader: AnyReader, spec: Spec, out: Path, tell: Tell) -> None:
    """The files grow under names that contain a digest of the items, so that only an export of the same items is resumed."""
    digest = hashlib.sha256(orjson.dumps(asdict(spec)))
    for item in reader.summaries():
        digest.update(repr(item.checksum).encode())
    stem = f".{out.stem}-{digest.hexdigest()[:32]}"
    vectors, lines, note = (out.with_name(f"{stem}{end}{PARTIAL}") for end in (".npy", ".jsonl", ".json"))
    layout = {"descr": spec.stored.str, "fortran_order": False, "shape": (reader.count(), spec.dim)}
    np.lib.format.write_array_header_2_0(header := io.BytesIO(), layout)
    with vectors.open("a+b") as vector_file, lines.open("a+b") as line_file:
        done = _cut_to_whole_items(vector_file, line_file, len(header.getvalue()), spec.dim * spec.stored.itemsize)
        if done == 0:
            vector_file.write(header.getvalue())
        tell(done)
        records = (require_intact(record) for _, record in islice(reader.everything(), done, None))
        while batch := list(islice(records, _BATCH)):
            vector_file.write(b"".join(record.vector for record in batch))
            vector_file.flush()
            os.fsync(vector_file.fileno())  # before the lines, which count what is done
            line_file.write(b"".join(map(_line, batch)))
            line_file.flush()
            tell(len(batch))
    note.write_bytes(orjson.dumps(asdict(spec)))
    publish(note, out.with_suffix(".json"))
    publish(lines, out.with_suffix(".jsonl"))
    publish(vectors, out)


def _cut_to_whole_items(vectors: BinaryIO, lines: BinaryIO, header_bytes: int, vector_bytes: int) -> int:
    """Truncates both files after the last item that is complete in both; returns how many there are."""
    num_vectors = (vectors.seek(0, os.SEEK_END) - header_bytes) // vector_bytes
    done = end = 0
    lines.seek(0)
    for line in islice(lines, max(0, num_vectors)):
        if not line.endswith(b"\n") or b"\0" in line:  # torn; or a power cut kept its length, but not its content
            break
        done, end = done + 1, end + len(line)
    lines.truncate(end)
    vectors.truncate(header_bytes + done * vector_bytes if done else 0)
    return done


def _line(record: Record) -> bytes:
    entry = {"id": record.id, "metadata": orjson.Fragment(record.metadata), "sha256": record.sha256}
    if record.thumbnail is not None:
        entry["thumbnail"] = base64.b64encode(record.thumbnail).decode()
    return orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE)


def _npy_spec(source: Path) -> Spec | None:
    note = source.with_suffix(".json")
    return Spec(**orjson.loads(note.read_bytes())) if note.exists() else None


def _read_npy(source: Path) -> Iterator[Item]:
    vectors = np.load(source, mmap_mode="r", allow_pickle=False)
    with require_exists(source.with_suffix(".jsonl")).open("rb") as lines:
        for vector, entry in zip(vectors, map(orjson.loads, lines), strict=True):
            small = base64.b64decode(entry["thumbnail"], validate=True) if "thumbnail" in entry else None
            yield Item(entry["id"], np.asarray(vector), entry.get("metadata", {}), entry.get("sha256"), small)


def _write_parquet(reader: AnyReader, spec: Spec, out: Path, tell: Tell) -> None:
    arrow = _pyarrow()
    element = arrow.float16() if spec.dtype == "float16" else arrow.float32()
    text, vector = arrow.string(), arrow.list_(element, spec.dim)
    columns = [("id", text), ("vector", vector), ("metadata", text), ("sha256", text), ("thumbnail", arrow.binary())]
    schema = arrow.schema(columns, metadata={"rankone": orjson.dumps(asdict(spec))})
    partial = out.with_name(f".{out.name}{PARTIAL}")
    records = (require_intact(record) for _, record in reader.everything())
    with arrow.parquet.ParquetWriter(partial, schema) as writer:
        while batch := list(islice(records, _BATCH)):
            flat = np.frombuffer(b"".join(record.vector for record in batch), spec.stored)
            vectors = arrow.FixedSizeListArray.from_arrays(arrow.array(flat, element), spec.dim)
            ids, *others = ([getattr(r, name) for r in batch] for name in ("id", "metadata", "sha256", "thumbnail"))
            writer.write_batch(arrow.record_batch([ids, vectors, *others], schema=schema))
            tell(len(batch))
    publish(partial, out)


def parquet_spec(source: Path) -> Spec | None:
    """What the file says of the index that its items are of, if it does."""
    text = (_pyarrow().parquet.read_schema(source).metadata or {}).get(b"rankone")
    return None if text is None else Spec(**orjson.loads(text))


def read_parquet(source: Path) -> Iterator[Item]:
    """The items in the file, some at a time."""
    for batch in _pyarrow().parquet.ParquetFile(source).iter_batches(_BATCH):
        flat = batch.column("vector").flatten().to_numpy(zero_copy_only=False)
        ids, metadata, sums = (batch.column(name).to_pylist() for name in ("id", "metadata", "sha256"))
        rows = flat.reshape(batch.num_rows, -1)
        has_thumbnails = "thumbnail" in batch.schema.names  # older exports have none
        small = batch.column("thumbnail").to_pylist() if has_thumbnails else [None] * batch.num_rows
        for item_id, text, sha256, vector, thumbnail in zip(ids, metadata, sums, rows, small, strict=True):
            yield Item(item_id, vector, orjson.loads(text), sha256, thumbnail)


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise IndexProblem("Parquet needs pyarrow: install rankone[parquet]") from error
    return pyarrow
