from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path

import pytest
from PIL import Image

from rankone.training.data import photos, write_photos
from rankone.training.data.photos import COUNTS, PHOTOGRAPHS, Box, tiles


def test_photos_has_every_class_in_every_set(photos_root: Path) -> None:
    assert len(PHOTOGRAPHS) >= 12
    for name, count in COUNTS.items():
        assert {entry.name: len(list(entry.iterdir())) for entry in (photos_root / name).iterdir()} == dict.fromkeys(
            PHOTOGRAPHS, count
        )


def test_photos_are_real_and_the_same_every_time(photos_root: Path, tmp_path: Path) -> None:
    write_photos(tmp_path / "again")
    files = sorted(path.relative_to(photos_root) for path in photos_root.rglob("*.png"))
    assert all((tmp_path / "again" / path).read_bytes() == (photos_root / path).read_bytes() for path in files)
    values = {Image.open(photos_root / path).resize((1, 1)).tobytes() for path in files[:: len(files) // 20]}
    assert len(values) > 10


def test_of_several_that_write_photos_at_once_one_is_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photos, "PHOTOGRAPHS", {"brick": PHOTOGRAPHS["brick"]})
    all_written, write = threading.Barrier(2), photos._write_class

    def written_together(stage: Path, label: str) -> None:
        write(stage, label)
        all_written.wait(timeout=30)

    monkeypatch.setattr(photos, "_write_class", written_together)
    root = tmp_path / "photos"
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write_photos, [root, root]))
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
    assert len(list(root.rglob("*.png"))) == sum(COUNTS.values())


def test_photos_that_cannot_be_written_are_an_error_and_leave_nothing(tmp_path: Path) -> None:
    (tmp_path / "photos").write_text("a file")
    with pytest.raises(OSError, match="photos"):
        write_photos(tmp_path / "photos")
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


@pytest.mark.parametrize("size", [(512, 512), (384, 191), (1000, 872), (1001, 1001), (451, 300)])
def test_no_tile_overlaps_another_and_all_lie_within(size: tuple[int, int]) -> None:
    sets = tiles(*size)
    boxes = [box for group in sets.values() for box in group]
    assert all(sets.values())
    assert all(0 <= left < right <= size[0] and 0 <= top < bottom <= size[1] for left, top, right, bottom in boxes)
    assert not any(overlap(a, b) for a, b in combinations(boxes, 2))


def overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def test_no_pixel_of_a_photograph_is_in_two_sets(photos_root: Path) -> None:
    """Every crop is found in its photograph, and lies in tiles of its own set alone."""
    import numpy as np
    import skimage.data

    picture = np.asarray(Image.fromarray(skimage.data.brick()).convert("RGB"))  # type: ignore[no-untyped-call]
    owner = np.full(picture.shape[:2], "", dtype=object)
    for name in COUNTS:
        for path in sorted((photos_root / name / "brick").iterdir())[:6]:
            crop = np.asarray(Image.open(path))
            side = len(crop)
            corners = np.argwhere((picture[: -side + 1, : -side + 1] == crop[0, 0]).all(-1))
            (place,) = [(y, x) for y, x in corners if np.array_equal(picture[y : y + side, x : x + side], crop)]
            area = owner[place[0] : place[0] + side, place[1] : place[1] + side]
            assert set(area.flatten()) <= {"", name}
            area[:] = name
