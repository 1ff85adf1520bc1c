from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rankone.index import Index, Indexes, Item, Spec
from rankone.index.database import create_file
from tests.index.oracle import unit

DIM = 32
MODEL = "a" * 64
SPEC = Spec(MODEL, DIM)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of an empty index."""
    path = tmp_path / "default.sqlite"
    create_file(path, SPEC)
    return path


@pytest.fixture
def index(path: Path) -> Iterator[Index]:
    index = Index(path)
    yield index
    index.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "indexes"


@pytest.fixture
def indexes(folder: Path) -> Iterator[Indexes]:
    indexes = Indexes(folder)
    yield indexes
    indexes.close()


def some_items(count: int) -> list[Item]:
    """Items 0 to `count` - 1."""
    return [Item(str(i), vector, {"i": i}) for i, vector in enumerate(unit(count, DIM))]
