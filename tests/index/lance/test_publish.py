"""Publishing: again, interrupted, with more files, and with files that do not belong together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankone.__main__ import run
from rankone.index import IndexConflict, IndexProblem, Item, Spec
from rankone.index.source import Remote, reading
from tests.index.conftest import DIM, SPEC
from tests.index.lance.conftest import Write, items, queries, quiet
from tests.index.oracle import unit

lance = pytest.importorskip("lance", reason="pylance, of rankone[lance], is not installed")
from rankone.index.lance.index import LanceIndexes  # noqa: E402
from rankone.index.lance.publish import publish  # noqa: E402

GROUP = 2 * 50 * DIM * 2
"""Bytes of two files of 50 items."""


@pytest.fixture
def files(write: Write) -> list[Path]:
    return [write(f"part-{number}", items(50, 50 * number, seed=number)) for number in range(6)]


@pytest.fixture
def indexes(root: str) -> Iterator[LanceIndexes]:
    indexes = LanceIndexes(root)
    yield indexes
    indexes.close()


def ids(root: str) -> list[str]:
    with reading(Remote(f"lance:{root}", "mine")) as (reader, _):
        reader.check()
        assert all(record.is_intact for _, record in reader.everything())
        return [item.id for item in reader.summaries()]


def expected(count: int) -> list[str]:
    return [item.id for number in range(count) for item in items(50, 50 * number, seed=number)]


def test_the_same_files_are_published_once(root: str, files: list[Path], indexes: LanceIndexes) -> None:
    first = publish(files, root, "mine", quiet)
    assert publish(files, root, "mine", quiet) == first
    assert ids(root) == expected(6)


def test_more_files_are_added_and_a_reader_keeps_its_version(
    root: str, files: list[Path], indexes: LanceIndexes
) -> None:
    told: list[int] = []
    publish(files[:3], root, "mine", told.append)
    before = indexes.open("mine")
    answers = before.search(queries(), 5)
    publish(files, root, "mine", told.append, keep_days=0)
    assert (sum(told), len(before)) == (150 + 150 + 150, 150)  # the first three were there already
    assert indexes.open("mine") is before
    assert before.search(queries(), 5) == answers
    indexes.refresh()
    after = indexes.open("mine")
    assert len(after) == 300
    assert ids(root) == expected(6)
    found = lance.dataset(f"{root}/mine.lance").describe_indices()
    assert {one.name: one.num_rows_indexed for one in found} == {"id": 300, "sequence": 300, "vector": 300}
    assert [hit.id for hit in after.search(unit(50, DIM, seed=4)[1:2], 1)[0]] == [items(50, 200, seed=4)[1].id]


def test_other_files_replace_what_was_there(root: str, files: list[Path]) -> None:
    publish(files[:3], root, "mine", quiet)
    publish(files[1:3], root, "mine", quiet)
    assert ids(root) == expected(3)[50:]
    os.utime(files[1], ns=(1, 1))  # as if it had been written again
    told: list[int] = []
    publish(files[1:3], root, "mine", told.append)
    assert told[0] == 0
    assert ids(root) == expected(3)[50:]


@pytest.mark.parametrize("survived", [120, 299])
def test_a_killed_publication_leaves_the_version_before_and_goes_on(
    root: str, files: list[Path], indexes: LanceIndexes, survived: int
) -> None:
    publish([files[0]], root, "mine", quiet)
    before = indexes.open("mine").search(queries(), 5)
    script = f"""
import os, signal
from pathlib import Path
from rankone.index.lance.publish import publish
done = 0
def tell(count):
    global done
    done += count
    if done >= {survived}:
        os.kill(os.getpid(), signal.SIGKILL)
publish([Path(name) for name in {[str(file) for file in files]}], {root!r}, "mine", tell, group_bytes={GROUP})
"""
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    indexes.refresh()
    assert (len(indexes.open("mine")), indexes.open("mine").search(queries(), 5)) == (50, before)
    told: list[int] = []
    publish(files, root, "mine", told.append, group_bytes=GROUP)
    assert told[0] == {120: 50, 299: 250}[survived]  # what was committed is not written again
    assert ids(root) == expected(6)
    indexes.refresh()
    assert len(indexes.open("mine")) == 300


def test_two_publications_at_once_publish_nothing_that_is_mixed(root: str, files: list[Path]) -> None:
    publish(files[:1], root, "mine", quiet)
    others = iter([files[:3]])

    def interfere(count: int) -> None:
        if count and (other := next(others, None)):
            publish(other, root, "mine", quiet)

    with pytest.raises(IndexConflict, match="another process publishes"):
        publish(files[:2], root, "mine", interfere)
    assert ids(root) == expected(3)  # those of the other
    publish(files[:2], root, "mine", quiet)
    assert ids(root) == expected(2)


def test_files_that_do_not_belong_together_are_refused(
    root: str, files: list[Path], write: Write, tmp_path: Path
) -> None:
    publish(files[:1], root, "mine", quiet)
    stranger = write("stranger", items(5), Spec("b" * 64, DIM))
    bare = tmp_path / "bare.parquet"
    pq.write_table(pq.read_table(files[0]).replace_schema_metadata(None), bare)
    long = tmp_path / "long.parquet"
    table = pq.read_table(files[1])
    vectors = table["vector"].combine_chunks()
    doubled = pa.FixedSizeListArray.from_arrays(pa.array(2 * vectors.flatten().to_numpy()), DIM)
    pq.write_table(table.set_column(1, table.schema.field(1), doubled), long)
    odd = write("odd", [Item("a", unit(1, 12)[0], {})], replace(SPEC, dim=12))
    (tmp_path / "torn.parquet").write_bytes(files[0].read_bytes()[:500])
    nothing = write("nothing", [])
    for given, kind, words in (
        ([*files[:1], stranger], IndexConflict, "different models or lengths"),
        ([bare], IndexProblem, "does not say which model made it"),
        ([files[0], long], IndexProblem, r"long.parquet: the vector of .* is no embedding"),
        ([odd], IndexProblem, "a multiple of 8 numbers, not 12"),
        ([tmp_path / "torn.parquet"], IndexProblem, "torn.parquet cannot be read"),
        ([tmp_path / "gone.parquet"], IndexProblem, "gone.parquet cannot be read"),
        ([files[0], files[1], files[0]], IndexConflict, "the id .* is in these files twice"),
        ([nothing], IndexProblem, "no items"),
        ([], IndexProblem, "no items"),
    ):
        with pytest.raises(kind, match=words):
            publish(given, root, "mine", quiet)
        assert ids(root) == expected(1)
    with pytest.raises(IndexProblem, match="cannot name an index"):
        publish(files, root, "No Name", quiet)
    lance.write_dataset(pq.read_table(bare), f"{root}/other.lance")
    with pytest.raises(IndexConflict, match="was not made by `rankone index publish`"):
        publish(files, root, "other", quiet)


def test_the_command_takes_folders(
    root: str, files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    assert run("index", ["publish", f"lance:{root}", "mine", str(folder)]) != 0
    assert "no Parquet files" in capsys.readouterr().err
    for file in files[:2]:
        file.rename(folder / file.name)
    assert run("index", ["publish", f"lance:{root}", "mine", str(folder), str(files[2])]) == 0
    assert "150 items of mine are published in version" in capsys.readouterr().out
    assert ids(root) == expected(3)
    assert run("index", ["publish", root, "mine", str(folder)]) != 0
    assert "name lance:FOLDER or lance:s3://bucket/path" in capsys.readouterr().err


def test_old_versions_are_removed(root: str, files: list[Path]) -> None:
    """All but the one that is published, however old."""
    publish(files[:2], root, "mine", quiet, keep_days=0)
    (size,) = {sum(file.stat().st_size for file in Path(root).rglob("*.lance") if file.is_file())}
    publish(files[2:3], root, "mine", quiet, keep_days=0)
    publish(files[4:6], root, "mine", quiet, keep_days=0)
    assert sum(file.stat().st_size for file in Path(root).rglob("*.lance") if file.is_file()) <= 1.5 * size
    with closing(LanceIndexes(root)) as indexes:
        assert len(indexes.open("mine")) == 100
