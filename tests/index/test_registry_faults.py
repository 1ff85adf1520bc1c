"""Indexes of a folder when something is wrong: the device is full, an index cannot be opened, or the folder was closed."""

from __future__ import annotations

import gc
import time
import weakref
from functools import partial
from pathlib import Path

import pytest

from rankone.index import DeviceProblem, Index, Indexes, IndexProblem, Spec
from rankone.index.exact import ExactGallery
from tests.index.conftest import DIM, MODEL, some_items

OTHER = "b" * 64


@pytest.fixture
def full(indexes: Indexes, monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[ExactGallery]]:
    """The galleries of an index `default` with items that could not be opened: the device holds no rows."""
    indexes.acquire(MODEL, DIM)
    indexes.open("default").put(some_items(2))
    indexes.release(MODEL)
    galleries = []

    def refuse(self: ExactGallery, *_: object) -> None:
        galleries.append(weakref.ref(self))
        raise DeviceProblem("the device is full")

    monkeypatch.setattr(ExactGallery, "write", refuse)
    indexes.acquire(MODEL, DIM)
    return galleries


@pytest.mark.parametrize("again", ["open", "acquire"])
def test_an_index_for_which_the_device_was_full_is_opened_later(
    indexes: Indexes, full: list[object], again: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert indexes.problems() == {"default": "the device is full"}
    monkeypatch.undo()  # a model with large indexes has retired
    if again == "acquire":
        indexes.acquire(MODEL, DIM)
    else:
        for _ in range(2):  # not for every request: to read a large index takes minutes
            with pytest.raises(DeviceProblem, match="the device is full"):
                indexes.open("default", MODEL)
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + 60)
    assert len(indexes.open("default", MODEL)) == 2
    assert indexes.problems() == {}
    assert len(full) == 1


def test_an_index_that_could_not_be_opened_keeps_no_memory(
    indexes: Indexes, full: list[weakref.ref[ExactGallery]]
) -> None:
    """Its error is remembered without the frames that it came through."""
    gc.collect()
    assert [gallery() for gallery in full] == [None]
    depths = set[int]()
    for _ in range(3):
        with pytest.raises(DeviceProblem) as raised:
            indexes.open("default")
        depths.add(len(raised.traceback))
    assert len(depths) == 1


def test_an_index_that_cannot_be_opened_is_not_made(
    indexes: Indexes, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: ExactGallery, *_: object) -> None:
        raise DeviceProblem("the device is full")

    with monkeypatch.context() as patch:
        patch.setattr(ExactGallery, "__init__", refuse)
        with pytest.raises(DeviceProblem, match="the device is full"):
            indexes.create("mine", Spec(MODEL, DIM))
    assert (indexes.names(), indexes.problems()) == ([], {})
    assert sorted(path.name for path in folder.iterdir()) == [".ballast", ".lock"]
    assert indexes.create("mine", Spec(MODEL, DIM))


def test_nothing_is_made_opened_or_dropped_once_the_folder_is_released(indexes: Indexes, folder: Path) -> None:
    (folder / "diary.sqlite").write_bytes(b"a diary")
    indexes.close()
    indexes = Indexes(folder)
    indexes.create("mine", Spec(MODEL, DIM))
    indexes.close()
    for act in (
        partial(indexes.create, "new", Spec(MODEL, DIM)),
        partial(indexes.open, "mine"),
        partial(indexes.acquire, OTHER, DIM),
        partial(indexes.drop, "diary"),
    ):
        with pytest.raises(IndexProblem, match="are closed"):
            act()
    left = sorted(path.name for path in folder.iterdir())
    assert left == [".ballast", ".lock", "diary.sqlite", "mine.sqlite", "mine.sqlite-ack"]


def test_problems_are_told_while_another_index_is_made(indexes: Indexes, monkeypatch: pytest.MonkeyPatch) -> None:
    indexes.create("mine", Spec(MODEL, DIM))

    def made_meanwhile(_: Index) -> str:
        indexes.create("new", Spec(MODEL, DIM))
        return "the disk failed"

    monkeypatch.setattr(Index, "problem", property(made_meanwhile))
    assert indexes.problems() == {"mine": "the disk failed"}
