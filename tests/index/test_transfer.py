"""Thumbnails in exported files: with them, without them, and from versions that did not write them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet
import pytest

from rankone.index import Index
from rankone.index.database import create_file
from rankone.index.transfer import export, load_items
from tests.index.conftest import SPEC
from tests.index.test_offline import everything, items, silent


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_an_import_adds_missing_thumbnails_and_takes_none_away(tmp_path: Path, suffix: str) -> None:
    keeps = replace(SPEC, thumbnails=True)
    with_small, without = items(4), [replace(item, thumbnail=None) for item in items(4)]
    for name, added in (("a", with_small), ("b", without), ("c", with_small)):
        create_file(tmp_path / f"{name}.sqlite", keeps)
        index = Index(tmp_path / f"{name}.sqlite")
        index.put(added)
        index.close()
    for name in "ab":
        export(tmp_path / f"{name}.sqlite", tmp_path / f"{name}{suffix}", silent)
    assert load_items(tmp_path / f"b{suffix}", tmp_path / "c.sqlite", None, silent) == 0
    assert everything(tmp_path / "c.sqlite") == everything(tmp_path / "a.sqlite")
    assert load_items(tmp_path / f"a{suffix}", tmp_path / "b.sqlite", None, silent) == 2
    assert sorted(everything(tmp_path / "b.sqlite")) == everything(tmp_path / "a.sqlite")


def test_a_parquet_file_of_an_earlier_version_has_no_thumbnails(path: Path, tmp_path: Path) -> None:
    index = Index(path)
    index.put(items(3))
    index.close()
    export(path, tmp_path / "new.parquet", silent)
    table = pyarrow.parquet.read_table(tmp_path / "new.parquet")
    pyarrow.parquet.write_table(table.drop_columns(["thumbnail"]), tmp_path / "old.parquet")
    assert load_items(tmp_path / "old.parquet", tmp_path / "b.sqlite", None, silent) == 3
    assert everything(tmp_path / "b.sqlite") == everything(path)
