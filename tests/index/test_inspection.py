"""A look at a folder of indexes, beside nobody, a service, and what a killed process left."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from rankone.index import Index, Indexes, Spec
from rankone.index.backup import inspect, user_of
from rankone.index.database import create_file
from tests.index.conftest import DIM, MODEL, SPEC, some_items


def contents(folder: Path) -> dict[str, tuple[str, int]]:
    """Name, content and time of every file."""
    return {
        path.name: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in folder.iterdir()
        if path.is_file()
    }


def test_indexes_are_described_and_nothing_is_written(tmp_path: Path) -> None:
    for name, spec in (("default", SPEC), ("short", Spec(MODEL, 8, "float32", "compact"))):
        create_file(tmp_path / f"{name}.sqlite", spec)
    index = Index(tmp_path / "default.sqlite")
    index.put(some_items(3))
    index.close()
    (tmp_path / "broken.sqlite").write_bytes(b"no database at all" * 300)
    before = contents(tmp_path)
    broken, default, short = inspect(tmp_path)
    assert (default.name, default.spec, default.count, default.is_checked, default.fault) == (
        "default",
        SPEC,
        3,
        True,
        None,
    )
    assert (short.count, short.spec) == (0, Spec(MODEL, 8, "float32", "compact"))
    assert broken.spec is None
    assert "restore it from a backup" in (broken.fault or "")
    assert contents(tmp_path) == before


def test_a_damaged_page_is_found(tmp_path: Path) -> None:
    index = Index(create(tmp_path))
    index.put(some_items(300))
    index.close()
    path = tmp_path / "default.sqlite"
    data = bytearray(path.read_bytes())
    data[-4096 * 3 : -4096 * 2] = os.urandom(4096)
    path.write_bytes(data)
    (found,) = inspect(tmp_path)
    assert "damaged" in (found.fault or "")


def test_beside_a_service_the_last_commit_is_seen_and_who_uses_the_folder(tmp_path: Path) -> None:
    assert user_of(tmp_path) is None
    indexes = Indexes(tmp_path)
    indexes.acquire(MODEL, DIM)
    indexes.open("default", MODEL).put(some_items(5))
    try:
        assert user_of(tmp_path) == os.getpid()
        (found,) = inspect(tmp_path)
        assert found.count == 5
    finally:
        indexes.close()
    assert user_of(tmp_path) is None


def test_the_log_of_a_killed_process_is_left_to_the_next_start(tmp_path: Path) -> None:
    path = create(tmp_path)
    if (child := os.fork()) == 0:
        Index(path).put(some_items(2))
        os._exit(0)  # without closing: the log is not written into the file
    os.waitpid(child, 0)
    before = contents(tmp_path)
    (found,) = inspect(tmp_path)
    assert found.spec is None
    assert "next start of the service" in (found.left or "")
    assert contents(tmp_path) == before


def create(folder: Path) -> Path:
    create_file(folder / "default.sqlite", SPEC)
    return folder / "default.sqlite"
