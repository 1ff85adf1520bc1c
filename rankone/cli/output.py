"""Answers to a file, as they come: `.npy`, `.json`, `.jsonl` or `.parquet`; else to standard output.

A file is whole or not there: what came before a failure is written to another one, NAME.partial.SUFFIX, and said.
Every form is a context manager that gives a function, to be called with the name and the value of one image after another.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import orjson
from rich.console import Console
from rich.progress import Progress

from rankone.cli.errors import say
from rankone.model.errors import RankoneError
from rankone.model.files import sync

Write = Callable[[str, Any], None]

_JSON: Final = orjson.OPT_SERIALIZE_NUMPY
_ROWS: Final = 1000
"""Of a Parquet file in memory at a time, and in a row group."""


class InputError(RankoneError, ValueError):
    """Paths that hold no image that can be used, an output file of a kind that is not written, or a filter that is no JSON."""


@contextmanager
def progress(doing: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """A bar on standard error; what it yields is called with the number that were done since."""
    with Progress(console=Console(stderr=True), transient=True) as bar:
        yield partial(bar.advance, bar.add_task(doing, total=total))


def writing(out: Path | None, column: str) -> AbstractContextManager[Write]:
    """Writes values to `out` by its suffix, under the name `column` where the form has names.

    Raises:
        InputError: a suffix that is not written, or a folder that is not there.
        ModuleNotFoundError: pyarrow is missing.
    """
    if out is None and sys.stdout is None:
        raise InputError("standard output is closed: give a file to write to (--out)")
    if out is None:
        return _lines(sys.stdout.buffer, column)
    if out.suffix not in _FORMS or (out.suffix == ".npy" and column != "embedding"):
        suffixes = [suffix for suffix in _FORMS if suffix != ".npy" or column == "embedding"]
        raise InputError(f"{out}: answers are written to {', '.join(suffixes[:-1])} or {suffixes[-1]} files")
    if not out.parent.is_dir():
        raise InputError(f"{out}: there is no folder {out.parent}")
    with suppress(FileNotFoundError):
        out.lstat()  # a name that no file can have fails now, and not after the last answer
    if out.suffix == ".parquet":
        import pyarrow.parquet  # noqa: F401 - missing, it is named now, and not after the first answers
    return _file(out, column)


@contextmanager
def _file(out: Path, column: str) -> Iterator[Write]:
    temporary, num_rows = out.with_name(f".{out.name[:32]}.{os.getpid()}.partial"), 0  # a longer name might be too long

    def counted(name: str, value: Any) -> None:
        nonlocal num_rows
        write(name, value)
        num_rows += 1

    try:
        with temporary.open("wb") as file, _FORMS[out.suffix](file, column) as write:
            yield counted
        _publish(temporary, out)
    except OSError:  # of the disk: what was written is not complete
        raise
    except BaseException:
        if num_rows:
            partial = out.with_name(f"{out.stem}.partial{out.suffix}")
            _publish(temporary, partial)
            say(f"{partial} holds the {num_rows} answers that came before:")
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _publish(temporary: Path, out: Path) -> None:
    sync(temporary)
    temporary.replace(out)
    sync(out.parent)


@contextmanager
def _lines(file: BinaryIO, column: str) -> Iterator[Write]:
    def write(name: str, value: Any) -> None:
        file.write(orjson.dumps({"path": name, column: value}, option=_JSON | orjson.OPT_APPEND_NEWLINE))

    try:
        yield write
    finally:
        file.flush()


@contextmanager
def _list(file: BinaryIO, column: str) -> Iterator[Write]:
    separator = b"[\n"

    def write(name: str, value: Any) -> None:
        nonlocal separator
        file.write(separator + orjson.dumps({"path": name, column: value}, option=_JSON))
        separator = b",\n"

    try:
        yield write
    finally:
        file.write(b"\n]\n")


@contextmanager
def _array(file: BinaryIO, _: str) -> Iterator[Write]:
    """One row an image, whose name goes to standard output. The header leaves room for the number of rows to grow."""
    num_rows, dim = 0, 0

    def write(name: str, value: Any) -> None:
        nonlocal num_rows, dim
        if num_rows == 0:
            dim = len(value)
            file.write(_header(0, dim))
        file.write(np.asarray(value, "<f4").tobytes())
        num_rows += 1
        print(name)

    try:
        yield write
    finally:
        file.seek(0)
        file.write(_header(num_rows, dim))


def _header(num_rows: int, dim: int) -> bytes:
    buffer = io.BytesIO()
    about = {"descr": "<f4", "fortran_order": False, "shape": (num_rows, dim)}
    np.lib.format.write_array_header_1_0(buffer, about)
    return buffer.getvalue()


@contextmanager
def _table(file: BinaryIO, column: str) -> Iterator[Write]:
    """Columns `path` and `column`, some rows at a time; metadata of a neighbour is JSON in a string, as it has no schema."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    entries = {
        "predictions": [("label", pa.string()), ("index", pa.int32()), ("probability", pa.float64())],
        "neighbours": [("id", pa.string()), ("score", pa.float64()), ("metadata", pa.string())],
    }
    rows: list[dict[str, Any]] = []
    writer: pq.ParquetWriter | None = None

    def write(name: str, value: Any) -> None:
        rows.append({"path": name, column: value if column == "embedding" else [*map(_flat, value)]})
        if len(rows) == _ROWS:
            flush()

    def flush() -> None:
        nonlocal writer
        if writer is None:
            is_vector = column == "embedding"
            kind = pa.list_(pa.float32(), len(rows[0][column])) if is_vector else pa.list_(pa.struct(entries[column]))
            writer = pq.ParquetWriter(file, pa.schema([("path", pa.string()), (column, kind)]))
        writer.write_table(pa.Table.from_pylist(rows, writer.schema))
        rows.clear()

    try:
        yield write
    finally:
        if rows:
            flush()
        if writer is not None:
            writer.close()


def _flat(entry: Any) -> dict[str, Any]:
    plain = asdict(entry)
    return {**plain, "metadata": orjson.dumps(plain["metadata"]).decode()} if "metadata" in plain else plain


_FORMS: Final[dict[str, Callable[[BinaryIO, str], AbstractContextManager[Write]]]] = {
    ".npy": _array,
    ".json": _list,
    ".jsonl": _lines,
    ".parquet": _table,
}
