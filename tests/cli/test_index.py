"""`rankone index` where the page about it (tests/test_retrieval_doc.py) does not show what it does."""

from __future__ import annotations

import hashlib
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rankone.__main__ import run
from rankone.index import Index, Item, Spec
from rankone.index.database import create_file

DIM, ROW_BYTES = 4096, 200_000


class Service:
    """Takes what a client would add."""

    added: list[tuple[str, str, dict[str, Any]]]

    def __init__(self, url: str) -> None:
        type(self).added = []
        assert url == "http://there"

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def add(self, images: Sequence[Path], ids: Sequence[str], metadata: Sequence[dict[str, Any]], index: str) -> None:
        assert index == "other"
        self.added += zip([image.name for image in images], ids, metadata, strict=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An index `mine` of forty files in `pictures`."""
    folder, pictures = tmp_path / "indexes", tmp_path / "pictures"
    folder.mkdir()
    pictures.mkdir()
    create_file(folder / "mine.sqlite", Spec("a" * 64, DIM, thumbnails=True))
    index = Index(folder / "mine.sqlite")
    vector = np.eye(1, DIM, dtype=np.float32)[0]
    for number in range(40):
        content = str(number).encode()
        (pictures / f"{number}.jpg").write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        index.put([Item(f"id-{number}", vector, {"n": number}, digest, thumbnail=bytes(ROW_BYTES))])
    index.close()
    return folder


@pytest.mark.parametrize("name", ["Monday.2026", "-x", "../mine", "a" * 65])
def test_what_makes_an_index_refuses_a_name_that_the_service_refuses(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert run("index", ["backup", str(folder), "mine", str(tmp_path / "file")]) == 0
    assert run("index", ["export", str(folder), "mine", str(tmp_path / "items.npy")]) == 0
    capsys.readouterr()
    there = sorted(tmp_path.rglob("*.sqlite"))
    for command, source in (("restore", "file"), ("import", "items.npy")):
        assert run("index", [command, str(folder), "--", name, str(tmp_path / source)]) == 2
        assert f"{name!r} cannot name an index: up to 64 of a-z, 0-9, - and _" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*.sqlite")) == there
    assert run("index", ["restore", str(folder), "monday-2026", str(tmp_path / "file")]) == 0


def test_rebuild_sends_every_original_and_has_no_more_in_memory_than_it_needs(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rankone.cli.filling.Client", Service)
    arguments = ["rebuild", str(folder), "mine", "--images", str(tmp_path / "pictures"), "--into", "other"]
    tracemalloc.start()
    assert run("index", [*arguments, "--url", "http://there"]) == 0
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert Service.added == [(f"{number}.jpg", f"id-{number}", {"n": number}) for number in range(40)]
    assert "40 items in the index other" in capsys.readouterr().out
    assert most < 40 * ROW_BYTES / 2
    (tmp_path / "pictures" / "7.jpg").unlink()
    assert run("index", [*arguments, "--url", "http://there"]) == 2
    assert "the originals of 1 items are not in" in capsys.readouterr().err
