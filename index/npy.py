"""Items of an index as `NAME.npy`, a (n, dim) array. Beside it lie `NAME.jsonl` and `NAME.json`.

`NAME.jsonl` has one {"id", "metadata", "sha256"} a row; `NAME.json` names the model.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
import orjson

from rankone.index.backup import Tell, there, whole
from rankone.index.database import PARTIAL, Spec, place
from rankone.index.items import Item, Reader, Record, Row

_BATCH: Final = 512


def write(reader: Reader, spec: Spec, out: Path, tell: Tell) -> None:
    """Writes all items; one that was broken off, be it by a power cut, goes on if it was of the very same items.

    The files grow under names that tell what they are of.
    """
    source = _digest(reader, spec)
    partials = [out.with_name(f".{out.stem}-{source}{suffix}{PARTIAL}") for suffix in (".npy", ".jsonl", ".json")]
    width = spec.dim * spec.stored.itemsize
    header = _npy_header(spec, reader.count())
    with partials[0].open("a+b") as vectors, partials[1].open("a+b") as lines:
        done = _done(vectors, lines, len(header), width)
        if done == 0:
            vectors.write(header)
        tell(done)
        _append(islice(reader.everything(), done, None), vectors, lines, tell)
    partials[2].write_bytes(orjson.dumps(asdict(spec)))
    for partial, target in zip(partials[::-1], (out.with_suffix(".json"), out.with_suffix(".jsonl"), out), strict=True):
        place(partial, target)


def _digest(reader: Reader, spec: Spec) -> str:
    """Tells the items from those of any other index, or of another state of this one, which may have the same sequence."""
    return hashlib.sha256(orjson.dumps([asdict(spec), reader.content()])).hexdigest()[:32]


def _done(vectors: BinaryIO, lines: BinaryIO, header: int, width: int) -> int:
    """How many items are whole in both files; what is behind them is cut away, and nothing is made longer."""
    num_vectors = (vectors.seek(0, os.SEEK_END) - header) // width
    done = end = 0
    lines.seek(0)
    for line in islice(lines, max(0, num_vectors)):
        if not line.endswith(b"\n") or b"\0" in line:  # torn off; or its place is there, and what stood in it is not
            break
        done, end = done + 1, end + len(line)
    lines.truncate(end)
    vectors.truncate(header + done * width if done else 0)
    return done


def _append(rows: Iterator[Row], vectors: BinaryIO, lines: BinaryIO, tell: Tell) -> None:
    """Some items at a time. No line is written before its vector is on disk: lines count what is done."""
    waiting: list[bytes] = []
    try:
        for _, record in rows:
            vectors.write(whole(record).vector)
            waiting.append(_line(record))
            tell(1)
            if len(waiting) == _BATCH:
                _flush(vectors, lines, waiting)
    finally:
        _flush(vectors, lines, waiting)


def _flush(vectors: BinaryIO, lines: BinaryIO, waiting: list[bytes]) -> None:
    vectors.flush()
    os.fsync(vectors.fileno())
    data = b"".join(waiting)
    waiting.clear()  # first: an interruption may leave lines out, and must not have them written twice
    lines.write(data)
    lines.flush()


def _npy_header(spec: Spec, count: int) -> bytes:
    buffer = io.BytesIO()
    shape = (count, spec.dim)
    np.lib.format.write_array_header_2_0(buffer, {"descr": spec.stored.str, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def _line(record: Record) -> bytes:
    entry = {"id": record.id, "metadata": orjson.Fragment(record.metadata), "sha256": record.sha256}
    return orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE)


def spec_of(source: Path) -> Spec | None:
    """What the file beside it says of the index it came from, if there is one."""
    note = there(source).with_suffix(".json")
    return Spec(**orjson.loads(note.read_bytes())) if note.exists() else None


def read(source: Path) -> Iterator[Item]:
    """All items, one at a time."""
    vectors = np.load(source, mmap_mode="r", allow_pickle=False)
    with there(source.with_suffix(".jsonl")).open("rb") as lines:
        entries = map(orjson.loads, lines)
        for vector, entry in zip(vectors, entries, strict=True):
            yield Item(entry["id"], np.asarray(vector), entry.get("metadata", {}), entry.get("sha256"))
