"""Indexes on disk without, and beside, a service: verified, copied, taken elsewhere, looked through for duplicates."""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pytest

from rankone.index import Index, IndexConflict, IndexDamaged, IndexProblem, Item, Spec, UnknownIndex
from rankone.index.backup import back_up, file_of, restore
from rankone.index.database import create_file, locked
from rankone.index.offline import find_duplicates
from rankone.index.source import damaged_rows
from rankone.index.spec import Dtype
from rankone.index.transfer import export, load_items
from tests.index.conftest import DIM, SPEC
from tests.index.oracle import unit


def silent(*_: int) -> None:
    """Tells nobody."""


def items(count: int) -> list[Item]:
    """Every other one with a thumbnail, where the index keeps them."""
    return [
        Item(f"{i:03}", v, {"n": i, "é": [None]}, f"{i:064}", bytes([i % 256, 255]) if i % 2 else None)
        for i, v in enumerate(unit(count, DIM))
    ]


def everything(path: Path) -> list[tuple[str, dict[str, object], str | None, bytes, bytes | None]]:
    index = Index(path)
    page = index.page(10_000)
    found = [(item.id, item.metadata, item.sha256, item.vector.tobytes(), item.thumbnail) for _, item in page]
    index.close()
    return found


def damage(path: Path, sequence: int) -> None:
    connection = sqlite3.connect(path)
    connection.execute("UPDATE vectors SET vector = zeroblob(length(vector)) WHERE sequence = ?", (sequence,))
    connection.commit()
    connection.close()


def test_a_backup_beside_the_writer_is_of_one_state_and_whole(index: Index, path: Path, tmp_path: Path) -> None:
    """Changes go on while it is taken; what was there before it began is in it, whole, and it opens anywhere."""
    index.put(items(900))
    told: list[int] = []

    def tell(left: int, total: int) -> None:
        told.append(left)
        index.put([Item("later", unit(1, DIM)[0])])
        index.delete(["000"])

    assert back_up(path, tmp_path / "backup", tell) == 900
    assert told[-1] == 0
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith((".backup", "backup"))] == ["backup"]
    (tmp_path / "elsewhere").mkdir()
    assert restore(tmp_path / "backup", tmp_path / "elsewhere" / "new.sqlite", silent) == 900
    copied = everything(tmp_path / "elsewhere" / "new.sqlite")
    assert [entry[0] for entry in copied] == [f"{i:03}" for i in range(900)]
    index.close()
    assert everything(path)[1:-1] == copied[2:]


def test_a_backup_is_not_made_of_what_is_damaged_nor_over_another(index: Index, path: Path, tmp_path: Path) -> None:
    index.put(items(20))
    index.close()
    back_up(path, tmp_path / "good", silent)
    with pytest.raises(IndexConflict, match="good is there already"):
        back_up(path, tmp_path / "good", silent)
    damage(path, 7)
    with pytest.raises(IndexDamaged, match="1 items are damaged: 006"):
        back_up(path, tmp_path / "bad", silent)
    shutil.copy(tmp_path / "good", tmp_path / "cut")
    with (tmp_path / "cut").open("r+b") as file:
        file.truncate(file.seek(0, 2) // 2)
    with pytest.raises(IndexDamaged):
        restore(tmp_path / "cut", tmp_path / "new.sqlite", silent)
    left = {entry.name for entry in tmp_path.iterdir() if not entry.name.startswith("default.sqlite-")}
    assert left == {"good", "cut", "default.sqlite", ".lock"}


def test_a_backup_that_cannot_be_written_is_told_and_leaves_nothing(index: Index, path: Path, tmp_path: Path) -> None:
    """No folder to write to, and no room."""
    index.put(items(900))
    with pytest.raises(IndexProblem, match="none/backup cannot be written"):
        back_up(path, tmp_path / "none" / "backup", silent)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size // 2, hard))
    try:
        with pytest.raises(IndexProblem, match="backup cannot be written"):
            back_up(path, tmp_path / "backup", silent)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not [entry.name for entry in tmp_path.iterdir() if "backup" in entry.name]
    assert back_up(path, tmp_path / "backup", silent) == 900


def test_the_log_of_a_killed_process_is_not_taken_for_that_of_what_is_restored(path: Path, tmp_path: Path) -> None:
    """The file of an index was removed by hand, as one that is damaged is, and its log is there still."""
    killed, folder = Index(path), tmp_path / "left"
    killed.put(items(20))
    back_up(path, tmp_path / "backup", silent)
    killed.delete([f"{i:03}" for i in range(10)])
    killed.put([Item(f"new-{i}", vector) for i, vector in enumerate(unit(20, DIM))])
    folder.mkdir()
    shutil.copy(path.with_name(f"{path.name}-wal"), folder)
    killed.close()
    assert restore(tmp_path / "backup", folder / path.name, silent) == 20
    assert [entry[0] for entry in everything(folder / path.name)] == [f"{i:03}" for i in range(20)]


def test_commands_that_write_need_the_folder_for_themselves(path: Path, tmp_path: Path) -> None:
    back_up(path, tmp_path / "backup", silent)
    export(path, tmp_path / "e.npy", silent)
    with locked(tmp_path):
        with pytest.raises(IndexProblem, match="another process is using it"):
            restore(tmp_path / "backup", tmp_path / "new.sqlite", silent)
        with pytest.raises(IndexProblem, match="another process is using it"):
            load_items(tmp_path / "e.npy", tmp_path / "new.sqlite", None, silent)


def test_damaged_rows_are_named_and_a_torn_file_is_refused(index: Index, path: Path) -> None:
    index.put(items(200))
    index.close()
    assert damaged_rows(path, silent) == []
    damage(path, 5)
    damage(path, 9)
    assert damaged_rows(path, silent) == ["004", "008"]
    with path.open("r+b") as file:
        file.truncate(file.seek(0, 2) // 2)
    with pytest.raises(IndexDamaged, match="restore it from a backup"):
        damaged_rows(path, silent)


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
@pytest.mark.parametrize(("dtype", "thumbnails"), [("float16", False), ("float16", True), ("float32", True)])
def test_items_go_out_and_come_back_the_same(tmp_path: Path, suffix: str, dtype: Dtype, thumbnails: bool) -> None:
    path, out, other = tmp_path / "a.sqlite", tmp_path / f"out{suffix}", tmp_path / "b.sqlite"
    create_file(path, replace(SPEC, dtype=dtype, thumbnails=thumbnails))
    index = Index(path)
    index.put(items(700))
    told: list[int] = []
    assert export(path, out, told.append) == 700
    assert sum(told) == 700
    index.close()
    assert load_items(out, other, None, silent) == 700
    assert everything(other) == everything(path)
    assert load_items(out, other, None, silent) == 0
    assert sum(small is not None for *_, small in everything(other)) == (350 if thumbnails else 0)
    with pytest.raises(IndexConflict, match="is there already"):
        export(path, out, silent)
    if suffix == ".npy":
        assert np.load(out).shape == (700, DIM)
        assert orjson.loads(out.with_suffix(".jsonl").read_bytes().splitlines()[3])["metadata"] == {"n": 3, "é": [None]}


class Stopped:
    """Breaks an export off after so many items, a few of which are written at a time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, num_items: int) -> None:
        monkeypatch.setattr("rankone.index.transfer._BATCH", 20)
        self._left = num_items

    def __call__(self, count: int) -> None:
        self._left -= count
        if self._left <= 0:
            raise KeyboardInterrupt


def same_files(tmp_path: Path) -> bool:
    """An export that was resumed is one that was not interrupted, to the byte."""
    pairs = ((tmp_path / f"out{end}", tmp_path / f"whole{end}") for end in (".npy", ".jsonl", ".json"))
    return all(out.read_bytes() == whole.read_bytes() for out, whole in pairs)


@pytest.mark.parametrize(
    ("lost", "done"),
    [
        ("nothing", 200),
        ("vectors", 110),
        ("half a vector", 199),
        ("header", 0),
        ("all vectors", 0),
        ("lines", None),
        ("content of lines", None),
    ],
)
def test_an_export_that_broke_off_goes_on_with_what_a_power_cut_left(
    index: Index, path: Path, tmp_path: Path, lost: str, done: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of either file the tail may be lost, and of the lines what is in it while its length is kept."""
    index.put(items(300))
    export(path, tmp_path / "whole.npy", silent)
    with pytest.raises(KeyboardInterrupt):
        export(path, tmp_path / "out.npy", Stopped(monkeypatch, 200))
    (vectors,), (lines,) = tmp_path.glob(".out-*.npy.partial"), tmp_path.glob(".out-*.jsonl.partial")
    size, text = vectors.stat().st_size, lines.read_bytes()
    kept = {"vectors": size - 90 * 2 * DIM, "half a vector": size - DIM, "header": 50, "all vectors": 0}
    with vectors.open("r+b") as file:
        file.truncate(kept.get(lost, size))
    changed = {
        "nothing": text + b'{"id": "torn',
        "lines": text[: len(text) // 2],
        "content of lines": text[:4000] + bytes(len(text) - 4000 - 100) + text[-100:],
    }
    lines.write_bytes(changed.get(lost, text))
    told: list[int] = []
    export(path, tmp_path / "out.npy", told.append)
    assert sum(told) == 300
    assert told[0] == done if done is not None else 10 < told[0] < 200
    assert same_files(tmp_path)


def test_no_line_of_an_export_is_written_before_its_vector_is_on_disk(
    index: Index, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is resumed is counted by lines."""
    index.put(items(50))
    monkeypatch.setattr("rankone.index.transfer._BATCH", 8)
    synced, num_lines, sync = [0], list[int](), os.fsync

    def fsync(descriptor: int) -> None:
        for lines in tmp_path.glob(".out-*.jsonl.partial"):
            num_lines.append(lines.read_bytes().count(b"\n"))
            assert num_lines[-1] * 2 * DIM <= max(synced)
        sync(descriptor)
        synced.append(os.fstat(descriptor).st_size)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        export(path, tmp_path / "out.npy", silent)
    assert num_lines[:7] == [0, 8, 16, 24, 32, 40, 48]


def other_model(path: Path, stored: list[Item]) -> list[Item]:
    create_file(path, replace(SPEC, fingerprint="b" * 64))
    return [replace(item, vector=vector) for item, vector in zip(stored, unit(len(stored), DIM, seed=1), strict=True)]


def other_dtype(path: Path, stored: list[Item]) -> list[Item]:
    create_file(path, replace(SPEC, dtype="float32"))
    return stored


def other_kind(path: Path, stored: list[Item]) -> list[Item]:
    create_file(path, replace(SPEC, kind="compact"))
    return stored


def other_order(path: Path, stored: list[Item]) -> list[Item]:
    create_file(path, SPEC)
    return stored[::-1]


def dropped_and_filled_again(path: Path, stored: list[Item]) -> list[Item]:
    path.unlink()
    create_file(path, SPEC)
    return [replace(stored[0], metadata={"n": 7}), *stored[1:]]


@pytest.mark.parametrize(
    ("name", "remake"),
    [
        ("new", other_model),
        ("new", other_dtype),
        ("new", other_kind),
        ("new", other_order),
        ("default", dropped_and_filled_again),
    ],
)
def test_an_export_does_not_go_on_with_what_another_index_began(
    path: Path,
    tmp_path: Path,
    name: str,
    remake: Callable[[Path, list[Item]], list[Item]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of as many items under the same ids, as those of one folder are, and with the same sequence."""
    stored, other = items(30), tmp_path / f"{name}.sqlite"
    index = Index(path)
    index.put(stored)
    index.close()
    with pytest.raises(KeyboardInterrupt):
        export(path, tmp_path / "out.npy", Stopped(monkeypatch, 20))
    wanted = remake(other, stored)
    index = Index(other)
    index.put(wanted)
    index.close()
    told: list[int] = []
    export(other, tmp_path / "out.npy", told.append)
    assert (told[0], sum(told)) == (0, 30)
    export(other, tmp_path / "whole.npy", silent)
    assert same_files(tmp_path)


def test_an_import_that_broke_off_goes_on_and_mends_what_differs(path: Path, tmp_path: Path) -> None:
    index = Index(path)
    index.put(items(700))
    index.close()
    export(path, tmp_path / "out.npy", silent)

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    other = tmp_path / "b.sqlite"
    with pytest.raises(KeyboardInterrupt):
        load_items(tmp_path / "out.npy", other, None, stop)
    assert load_items(tmp_path / "out.npy", other, None, silent) == 700 - 512
    index = Index(other)
    index.put([replace(items(1)[0], metadata={})])
    index.close()
    assert load_items(tmp_path / "out.npy", other, None, silent) == 1
    assert sorted(everything(other)) == everything(path)


def test_files_that_are_no_export_are_refused(path: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "mine.npy", unit(2, DIM))
    (tmp_path / "mine.jsonl").write_bytes(b'{"id": "a"}\n{"id": "b", "metadata": {"x": 1}}\n')
    with pytest.raises(IndexProblem, match="does not say which model made it"):
        load_items(tmp_path / "mine.npy", path, None, silent)
    assert load_items(tmp_path / "mine.npy", path, SPEC, silent) == 2
    with pytest.raises(IndexConflict, match="was made with the bundle"):
        load_items(tmp_path / "mine.npy", path, Spec("b" * 64, DIM), silent)
    np.save(tmp_path / "mine.npy", 2 * unit(2, DIM))
    with pytest.raises(IndexProblem, match="the vector of 'a' is no embedding of 32 numbers and length 1"):
        load_items(tmp_path / "mine.npy", path, SPEC, silent)
    np.save(tmp_path / "pickle.npy", np.array([{}]), allow_pickle=True)
    (tmp_path / "pickle.jsonl").write_bytes(b'{"id": "a"}\n')
    with pytest.raises(IndexProblem, match="cannot be read: Array can't be memory-mapped: Python objects in dtype"):
        load_items(tmp_path / "pickle.npy", path, SPEC, silent)
    with pytest.raises(IndexProblem, match="written to and read from .npy or .parquet"):
        export(path, tmp_path / "x.csv", silent)
    with pytest.raises(IndexProblem, match="x.npy is not there"):
        load_items(tmp_path / "x.npy", path, None, silent)
    with pytest.raises(UnknownIndex, match="no index 'mine' in .*; there are: default"):
        file_of(tmp_path, "mine")


def test_the_same_file_and_what_looks_alike(index: Index, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over several tiles: a pair in one and pairs across, none named twice, and no equal files among those that are near."""
    monkeypatch.setattr("rankone.index.offline._TILE", 64)
    stored = items(200)
    a, b = np.asarray(stored[3].vector), np.asarray(unit(1, DIM, seed=77)[0])
    near = (a + 0.1 * b) / np.linalg.norm(a + 0.1 * b)
    index.put(stored)
    index.put(
        [Item("copy", stored[10].vector, {}, stored[10].sha256), Item("near", near), Item("twin", stored[20].vector)]
    )
    found = find_duplicates(path, 0.98, 10, silent)
    assert found.same == [["010", "copy"]]
    assert [pair[1:] for pair in found.near] == [("020", "twin"), ("003", "near")]
    assert found.near[0][0] == pytest.approx(1, abs=1e-3)
    assert found.left_out == 0
    assert find_duplicates(path, 0.98, 1, silent).near == found.near[:1]
    assert find_duplicates(path, 0.98, 1, silent).left_out == 1
