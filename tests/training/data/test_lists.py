from __future__ import annotations

from pathlib import Path

import pytest

from rankone.training.data import DataError
from rankone.training.data.benchmarks import by_class, lines, numbered, pairs


@pytest.mark.parametrize(
    "data",
    [
        b"1 F/A-18\n2 Boeing 717\n",
        b"1 F/A-18\r\n2 Boeing 717\r\n",
        b"1 F/A-18\n2 Boeing 717",
        b"\xef\xbb\xbf1 F/A-18\n2 Boeing 717\n",
        b"\n1 F/A-18  \n\n2   Boeing 717\t\n\n",
    ],
    ids=["unix", "dos", "no last end", "byte order mark", "white space"],
)
def test_lines_may_end_as_they_like(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(data)
    assert pairs(path) == [("1", "F/A-18"), ("2", "Boeing 717")]
    assert numbered(path) == {"1": "F/A-18", "2": "Boeing 717"}


def test_classes_and_files_may_hold_spaces(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("mall/shopping mall.jpg  \n\ttv studio/a/b.jpg\n")
    assert by_class(tmp_path / "list.txt") == [("mall", "shopping mall.jpg"), ("tv studio", "a/b.jpg")]


def test_what_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"\x1f\x8b\x08\xff\xfe")
    with pytest.raises(DataError, match="list.txt is not text"):
        lines(tmp_path / "list.txt")
    with pytest.raises(DataError, match="nowhere.txt cannot be read: No such file or directory$"):
        lines(tmp_path / "nowhere.txt")
