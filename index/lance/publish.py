"""Publishes the items of Parquet files, such as those of a job, as a version of a Lance dataset with an index of its vectors.

Files are appended in groups, and each commit names its files. So a publication that was interrupted continues after the last
commit, and new files at the end of the list are added to what is there. Readers see nothing until the tag is moved, at the end.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import lance
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from rankone.index.backup import Tell
from rankone.index.errors import IndexConflict, IndexProblem
from rankone.index.items import Record, record_of
from rankone.index.lance import store
from rankone.index.lance.filters import document_of
from rankone.index.spec import Spec, check_name
from rankone.index.transfer import check_vectors, parquet_spec, read_parquet

GROUP_BYTES: Final = 4 << 30
"""Of vectors, that are appended at once: what a publication that was broken off does again at most."""
_DONE: Final = "rankone.done"
"""A property of a commit, and in the end of the dataset: a digest of the files whose items it holds."""
_BATCH: Final = 512
_LOOK_BACK: Final = 10
"""Commits since the last that appended something: those of the indexes."""


class _File(NamedTuple):
    path: Path
    spec: Spec
    rows: int
    identity: bytes


def publish(
    files: Sequence[Path], root: str, name: str, tell: Tell, *, keep_days: float = 7, group_bytes: int = GROUP_BYTES
) -> store.Published:
    """Makes the items of these files, in their order, the published version of an index in a folder or an object store.

    Files are known by name, size and time of change. If they are published already, nothing is done. `tell` is called with the
    number of items that have been written since. Versions that are not published, and are older than `keep_days`, are removed.

    Raises:
        IndexConflict: the files are of several models, an id is in them twice, or another process publishes this index too.
        IndexProblem: a file cannot be read or says nothing of its model, or a vector in it is no embedding.
        IndexUnavailable: the store cannot be written.
    """
    check_name(name)
    known = [_look_at(path) for path in files]
    spec = _common_spec(known)
    chain = list(accumulate((one.identity for one in known), lambda before, own: hashlib.sha256(before + own).digest()))
    notes = [digest.hex() for digest in chain]
    totals = list(accumulate(one.rows for one in known))
    where = store.address(root, name)
    with store.faults(where):
        head = lance.dataset(where) if name in store.names(root) else None
        if head is not None and store.SPEC not in (head.schema.metadata or {}):
            raise IndexConflict(f"{where} was not made by `rankone index publish`: name another index")
        done = 0 if head is None else _num_done(head, notes, totals)
        tell(totals[done - 1] if done else 0)
        while done < len(known):
            first, done = done, _end_of_group(known, done, spec, group_bytes)
            mode = "append" if first else "create" if head is None else "overwrite"
            head = _write(
                where, known[first:done], totals[first - 1] if first else 0, spec, notes[done - 1], mode, tell
            )
        assert head is not None
        if not _is_tagged(head):
            _tag(_complete(head, notes[-1], totals[-1]))
            head.cleanup_old_versions(timedelta(days=keep_days), error_if_tagged_old_versions=False)
    return store.published(root, name)


def _look_at(path: Path) -> _File:
    try:
        spec, rows, about = parquet_spec(path), pq.read_metadata(path).num_rows, path.stat()
    except (OSError, pa.ArrowException) as error:
        raise IndexProblem(f"{path} cannot be read: {error}") from error
    if spec is None:
        raise IndexProblem(f"{path} does not say which model made it: `rankone index import` takes it, with --bundle")
    identity = orjson.dumps([path.name, about.st_size, about.st_mtime_ns])
    return _File(path, replace(spec, kind="compact"), rows, hashlib.sha256(identity).digest())


def _common_spec(files: Sequence[_File]) -> Spec:
    if not any(file.rows for file in files):
        raise IndexProblem("there are no items to publish")
    spec = files[0].spec
    for file in files:
        if file.spec != spec:
            raise IndexConflict(
                f"{file.path} and {files[0].path} are of different models or lengths: publish them under two names"
            )
    if spec.dim % 8:
        raise IndexProblem(f"an index in Lance has vectors of a multiple of 8 numbers, not {spec.dim:,}")
    return spec


def _num_done(head: Any, notes: Sequence[str], totals: Sequence[int]) -> int:
    """How many of the files are in the dataset, if it holds nothing else; 0 if it is to be written anew."""
    commits = (commit for commit in head.get_transactions(_LOOK_BACK) if commit is not None)
    found = [commit.transaction_properties[_DONE] for commit in commits if _DONE in commit.transaction_properties]
    note = found[0] if found else head.config().get(_DONE)
    done = notes.index(note) + 1 if note in notes else 0
    return done if done and head.count_rows() == totals[done - 1] else 0


def _end_of_group(files: Sequence[_File], first: int, spec: Spec, group_bytes: int) -> int:
    """Where the files from `first` on end that are appended at once."""
    end, size = first, 0
    while end < len(files) and (end == first or size < group_bytes):
        size += files[end].rows * spec.dim * spec.stored.itemsize
        end += 1
    return end


def _write(where: str, files: Sequence[_File], before: int, spec: Spec, note: str, mode: str, tell: Tell) -> Any:
    """Writes the items of files behind the first `before`, all or none; returns the new version."""
    failed: list[Exception] = []

    def batches() -> Iterator[pa.RecordBatch]:
        number = before
        try:
            for file in files:
                items = read_parquet(file.path)
                while batch := list(islice(items, _BATCH)):
                    check_vectors(batch, spec.dim, file.path)
                    yield _table(number, [(record_of(item, spec), item.metadata) for item in batch], spec)
                    number += len(batch)
                    tell(len(batch))
        except Exception as error:  # of which Lance would make a text
            failed.append(error)
            raise

    schema = _schema(spec)
    try:
        return lance.write_dataset(batches(), where, schema, mode, transaction_properties={_DONE: note})
    except Exception as error:
        cause = failed[0] if failed else error
        if not failed or isinstance(cause, IndexProblem):
            raise cause from None
        raise IndexProblem(f"{files[0].path} or a file after it cannot be read: {cause}") from cause


def _schema(spec: Spec) -> pa.Schema:
    element = pa.float16() if spec.dtype == "float16" else pa.float32()
    text, data = pa.string(), pa.binary()
    columns = [("sequence", pa.int64()), ("id", text), ("metadata", text), ("document", pa.json_()), ("sha256", text)]
    columns += [("vector", pa.list_(element, spec.dim)), ("thumbnail", data), ("checksum", data)]
    return pa.schema(columns, metadata={store.SPEC: orjson.dumps(spec.__dict__)})


def _table(before: int, rows: Sequence[tuple[Record, Any]], spec: Spec) -> pa.RecordBatch:
    records = [record for record, _ in rows]
    numbers = range(before + 1, before + 1 + len(rows))
    documents = pa.array([orjson.dumps(document_of(metadata)).decode() for _, metadata in rows], pa.json_())
    flat = np.frombuffer(b"".join(record.vector for record in records), spec.stored)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(flat), spec.dim)
    ids, metadata, sums, thumbnails, checksums = (
        [getattr(record, name) for record in records] for name in ("id", "metadata", "sha256", "thumbnail", "checksum")
    )
    columns = [numbers, ids, metadata, documents, sums, vectors, thumbnails, checksums]
    return pa.record_batch(columns, schema=_schema(spec))


def _complete(head: Any, note: str, count: int) -> Any:
    """Completes the indexes and checks that no item is missing or there twice; returns the version to publish."""
    indexed = {index.name: index.num_rows_indexed for index in head.describe_indices()}
    for column in ("id", "sequence"):
        if column not in indexed:
            head.create_scalar_index(column, "BTREE", name=column)
    if 2 * indexed.get("vector", 0) < count:  # its partitions are of another size
        head.create_index("vector", "IVF_RQ", name="vector", metric="dot", num_bits=1, replace=True)
    head.optimize.optimize_indices()
    head.update_config({_DONE: note})
    made = lance.dataset(head.uri, version=head.version)
    if made.count_rows() != count or lance.dataset(head.uri).version != made.version:
        raise IndexConflict(f"another process publishes {head.uri} too; run this again when it has ended")
    _check_ids(made)
    return made


def _check_ids(made: Any) -> None:
    """Raises IndexConflict if an id is there twice."""
    hashes = np.fromiter((hash(item_id) for item_id in _ids(made)), np.int64, made.count_rows())
    hashes.sort()
    suspects = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
    counts = Counter(item_id for item_id in _ids(made) if hash(item_id) in suspects) if suspects else {}
    if twice := next((item_id for item_id, count in counts.items() if count > 1), None):
        raise IndexConflict(f"the id {twice!r} is in these files twice: an id names one item")


def _ids(made: Any) -> Iterator[str]:
    for batch in made.scanner(["id"]).to_batches():
        yield from batch.column("id").to_pylist()


def _is_tagged(head: Any) -> bool:
    tag = head.tags.list().get(store.TAG)
    return tag is not None and tag["version"] == head.version


def _tag(made: Any) -> None:
    """The moment from which readers see the version."""
    (made.tags.update if store.TAG in made.tags.list() else made.tags.create)(store.TAG, made.version)
