"""Which files are images to send, and in which order."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

import pytest

from rankone.cli.images import count_images, find_images, name_of
from rankone.cli.output import InputError


def test_folders_are_looked_through_in_order(tmp_path: Path) -> None:
    names = ["b/2.png", "b/10.JPG", "b.webp", "a/c/x.jpeg", "a/notes.txt", "c.png/inside.png", "z.gif"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "up").symlink_to(tmp_path)
    (tmp_path / "linked.png").symlink_to(tmp_path / "b" / "2.png")
    found = list(find_images([tmp_path]))
    assert found == sorted(tmp_path / name for name in [*names[:4], names[5], "linked.png"])
    both = [tmp_path / "a/notes.txt", tmp_path / "b"]
    assert list(find_images(both)) == [both[0], tmp_path / "b/10.JPG", tmp_path / "b/2.png"]
    assert count_images([tmp_path]) == 6


def test_a_directory_is_not_read_before_it_is_reached(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").touch()
    (tmp_path / "b").mkdir()
    found = find_images([tmp_path])
    assert [path.name for path in islice(found, 1)] == ["1.png"]
    (tmp_path / "b" / "2.png").touch()
    assert [path.name for path in found] == ["2.png"]


def test_nothing_to_send_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere is not there"):
        count_images([tmp_path / "nowhere"])
    with pytest.raises(InputError, match="no images: give"):
        count_images([tmp_path])


def test_a_name_that_is_no_text_has_a_name_all_the_same() -> None:
    path = Path(os.fsdecode(b"caf\xe9.png"))
    assert name_of(path).encode() == b"caf\\udce9.png"
    assert name_of(Path("é.png")) == "é.png"
