"""Items written as jobs and exports write them, and published."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from rankone.index import Index, Item, Spec
from rankone.index.database import create_file
from rankone.index.transfer import export
from tests.index.conftest import SPEC
from tests.index.oracle import unit

pytest.importorskip("lance", reason="pylance, of rankone[lance], is not installed")

Write = Callable[..., Path]


def quiet(_: int) -> None:
    pass


def items(count: int, first: int = 0, seed: int = 0) -> list[Item]:
    """Every fifth has the vector of another, one is the embedding of a black image, and their ids are not in order."""
    vectors = unit(count, SPEC.dim, seed)
    vectors[5::5] = vectors[:-5:5]
    vectors[3] = 0
    return [
        Item(
            f"{(7 * (first + i)) % 1009:04}/ü'",
            vector,
            {"i": first + i, "even": i % 2 == 0, "group": [None, "a", 1, 1.0, True, ["a"]][i % 6], "f": 1.5},
            f"sum{i}",
            b"\xff\xd8" if i % 2 else None,
        )
        for i, vector in enumerate(vectors)
    ]


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path / "published")


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes items to a Parquet file, by an index in a file."""

    def written(name: str, some: Sequence[Item], spec: Spec = SPEC) -> Path:
        source, file = tmp_path / f"{name}.sqlite", tmp_path / f"{name}.parquet"
        create_file(source, spec)
        with closing(Index(source)) as index:
            if some:
                index.put(some)
        export(source, file, quiet)
        return file

    return written


def ids_of(hits: Sequence[object]) -> list[str]:
    return [hit.id for hit in hits]  # type: ignore[attr-defined]


def queries() -> np.ndarray:
    """Some directions, a stored vector, and the embedding of a black image."""
    return np.vstack([unit(6, SPEC.dim, seed=9), unit(1, SPEC.dim), np.zeros((1, SPEC.dim), np.float32)])
