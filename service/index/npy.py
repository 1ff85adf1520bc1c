"""Items of an index as `NAME.npy`, a (n, dim) array. Beside it lie `NAME.jsonl` and `NAME.json`.

`NAME.jsonl` has one {"id", "metadata", "sha256"} a row; `NAME.json` names the model.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from service.index.items import Item, Record
from service.index.offline import Tell, there, whole
from service.index.reader import Reader
from service.index.schema import PARTIAL, Spec, place


def write(reader: Reader, spec: Spec, out: Path, tell: Tell) -> None:
    """Writes all items; one that was broken off goes on if it was of the very same items.

    Both files grow under names that tell what they are of; vectors first, so that no line is without one.
    """
    source = _digest(reader, spec)
    partials = [out.with_name(f".{out.stem}-{source}{suffix}{PARTIAL}") for suffix in (".npy", ".jsonl")]
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
            vectors.write(whole(record).vector)
            vectors.flush()
            lines.write(_line(record))
            tell(1)
    note = out.with_suffix(".json")
    note.write_bytes(orjson.dumps(asdict(spec)))
    for partial, target in zip(partials[::-1], (out.with_suffix(".jsonl"), out), strict=True):
        place(partial, target)


def _digest(reader: Reader, spec: Spec) -> str:
    """Tells the items from those of any other index, or of another state of this one, which may have the same sequence."""
    return hashlib.sha256(orjson.dumps([asdict(spec), reader.content()])).hexdigest()[:32]


def _done(lines: Any) -> int:
    """How many whole lines there are; what was torn off behind them is cut away."""
    lines.seek(0)
    data = lines.read()
    whole = data.rfind(b"\n") + 1
    lines.truncate(whole)
    lines.seek(0, os.SEEK_END)
    return int(data[:whole].count(b"\n"))


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
