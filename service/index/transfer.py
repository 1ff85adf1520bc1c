"""Items of an index to files and back: a .npy array with JSON Lines beside it, or Parquet. Item by item, whatever the size.

Beside `NAME.npy`, a (n, dim) array, lie `NAME.jsonl`, one {"id", "metadata", "sha256"} a row, and `NAME.json`, which names the
model. A Parquet file has columns id, vector, metadata (JSON) and sha256, and names the model in its schema. Thumbnails stay
behind.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
import orjson

from service.index.errors import IndexConflict, IndexDamaged, IndexProblem
from service.index.index import Index
from service.index.items import Item, Record
from service.index.lock import FolderLock
from service.index.offline import Tell, reading
from service.index.reader import Reader
from service.index.schema import PARTIAL, Spec, make, place

_BATCH: Final = 512
_NORM_TOLERANCE: Final = 1e-2


def export(path: Path, out: Path, tell: Tell) -> int:
    """Writes all items of one state of the index; returns how many. `out` is a .npy or .parquet file that is not there.

    One that was broken off goes on where it stopped if it was a .npy file and nothing was stored in the index since.

    Raises:
        IndexConflict: `out` is there already.
        IndexProblem: another kind of file; no pyarrow.
        IndexDamaged: an item is.
    """
    if out.exists():
        raise IndexConflict(f"{out} is there already; name another file")
    with reading(path) as (reader, spec):
        write = {".npy": _write_npy, ".parquet": _write_parquet}.get(out.suffix)
        if write is None:
            raise IndexProblem(f"{out}: items are written to .npy or .parquet files")
        write(reader, spec, out, tell)
        return reader.count()


def load_items(source: Path, path: Path, spec: Spec | None, tell: Tell) -> int:
    """Adds the items of an exported file to the index at `path`, made if it is not there; returns how many were new.

    Items that are there with the same content are passed over, so one that was broken off goes on. Needs the folder for itself.
    `spec` says whose embeddings these are where the file does not.

    Raises:
        IndexConflict: the index is of another model.
        IndexProblem: a file that cannot be read, or holds what is no embedding; the folder is in use.
    """
    found = _spec_beside(source) or spec
    if found is None:
        raise IndexProblem(f"{source} does not say which model made it: name the bundle")
    lock = FolderLock(path.parent)
    try:
        if not path.exists():
            make(path, found)
        index = Index(path)
        try:
            index.spec.check_serves(found.fingerprint)
            return _add(index, source, tell)
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise IndexProblem(f"{source} cannot be read: {error}") from error
        finally:
            index.close()
    finally:
        lock.release()


def _add(index: Index, source: Path, tell: Tell) -> int:
    added = 0
    items = (_read_parquet if source.suffix == ".parquet" else _read_npy)(source)
    while batch := list(islice(items, _BATCH)):
        _check(batch, index.spec.dim, source)
        new = [item for item in batch if not index.holds(item)]
        if new:
            index.put(new)
        added += len(new)
        tell(len(batch))
    return added


def _check(items: Sequence[Item], dim: int, source: Path) -> None:
    for item in items:
        vector = np.asarray(item.vector, np.float64)
        norm = float(np.linalg.norm(vector))
        if vector.shape != (dim,) or not np.isfinite(norm) or (norm and abs(norm - 1) > _NORM_TOLERANCE):
            raise IndexProblem(f"{source}: the vector of {item.id!r} is no embedding of {dim} numbers and length 1")


def _write_npy(reader: Reader, spec: Spec, out: Path, tell: Tell) -> None:
    """Both files grow under names that tell the state of the index; vectors first, so that no line is without one."""
    partials = [out.with_name(f".{out.stem}-{reader.state()}{suffix}{PARTIAL}") for suffix in (".npy", ".jsonl")]
    width = spec.dim * np.dtype(spec.stored).itemsize
    header = _npy_header(spec, reader.count())
    with ExitStack() as files:
        vectors, lines = (files.enter_context(path.open("a+b")) for path in partials)
        done = _done(lines)
        vectors.truncate(0 if done == 0 else len(header) + done * width)
        if done == 0:
            vectors.write(header)
        tell(done)
        for _, record in islice(reader.everything(), done, None):
            vectors.write(_whole(record).vector)
            vectors.flush()
            lines.write(_line(record))
            tell(1)
    note = out.with_suffix(".json")
    note.write_bytes(orjson.dumps(asdict(spec)))
    for partial, target in zip(partials[::-1], (out.with_suffix(".jsonl"), out), strict=True):
        place(partial, target)


def _done(lines: Any) -> int:
    """How many whole lines there are; what was torn off behind them is cut away."""
    lines.seek(0)
    data = lines.read()
    whole = data.rfind(b"\n") + 1
    lines.truncate(whole)
    lines.seek(0, os.SEEK_END)
    return int(data[:whole].count(b"\n"))


def _npy_header(spec: Spec, count: int) -> bytes:
    import io

    buffer = io.BytesIO()
    shape = (count, spec.dim)
    np.lib.format.write_array_header_2_0(buffer, {"descr": spec.stored.str, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def _line(record: Record) -> bytes:
    entry = {"id": record.id, "metadata": orjson.Fragment(record.metadata), "sha256": record.sha256}
    return orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE)


def _whole(record: Record) -> Record:
    if not record.is_whole:
        raise IndexDamaged(f"the item {record.id!r} is damaged on disk: add it again, or restore a backup")
    return record


def _write_parquet(reader: Reader, spec: Spec, out: Path, tell: Tell) -> None:
    arrow, parquet = _pyarrow()
    element = arrow.float16() if spec.dtype == "float16" else arrow.float32()
    text, vector = arrow.string(), arrow.list_(element, spec.dim)
    columns = [("id", text), ("vector", vector), ("metadata", text), ("sha256", text)]
    schema = arrow.schema(columns, metadata={"rankone": orjson.dumps(asdict(spec))})
    partial = out.with_name(f".{out.name}{PARTIAL}")
    records = (_whole(record) for _, record in reader.everything())
    with parquet.ParquetWriter(partial, schema) as writer:
        while batch := list(islice(records, _BATCH)):
            flat = np.frombuffer(b"".join(record.vector for record in batch), spec.stored)
            vectors = arrow.FixedSizeListArray.from_arrays(arrow.array(flat, element), spec.dim)
            texts = [[getattr(record, name) for record in batch] for name in ("id", "metadata", "sha256")]
            writer.write_batch(arrow.record_batch([texts[0], vectors, texts[1], texts[2]], schema=schema))
            tell(len(batch))
    place(partial, out)


def _spec_beside(source: Path) -> Spec | None:
    """What an exported file says of the index it came from."""
    if source.suffix == ".parquet":
        metadata = _pyarrow()[1].read_schema(_there(source)).metadata or {}
        text = metadata.get(b"rankone")
    elif source.suffix == ".npy":
        note = _there(source).with_suffix(".json")
        text = note.read_bytes() if note.exists() else None
    else:
        raise IndexProblem(f"{source}: items are read from .npy or .parquet files")
    return None if text is None else Spec(**orjson.loads(text))


def _read_npy(source: Path) -> Iterator[Item]:
    vectors = np.load(source, mmap_mode="r", allow_pickle=False)
    with _there(source.with_suffix(".jsonl")).open("rb") as lines:
        entries = map(orjson.loads, lines)
        for vector, entry in zip(vectors, entries, strict=True):
            yield Item(entry["id"], np.asarray(vector), entry.get("metadata", {}), entry.get("sha256"))


def _read_parquet(source: Path) -> Iterator[Item]:
    for batch in _pyarrow()[1].ParquetFile(source).iter_batches(_BATCH):
        flat = batch.column("vector").flatten().to_numpy(zero_copy_only=False)
        columns = (batch.column(name).to_pylist() for name in ("id", "metadata", "sha256"))
        rows = flat.reshape(batch.num_rows, -1)
        for item_id, metadata, sha256, vector in zip(*columns, rows, strict=True):
            yield Item(item_id, vector, orjson.loads(metadata), sha256)


def _there(path: Path) -> Path:
    if not path.exists():
        raise IndexProblem(f"{path} is not there")
    return path


def _pyarrow() -> tuple[ModuleType, ModuleType]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise IndexProblem("Parquet needs pyarrow: install rankone[parquet]") from error
    return pyarrow, pyarrow.parquet
