from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rankone.index import Index, Spec
from rankone.index.database import create_file

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
