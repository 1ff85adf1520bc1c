from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest
from PIL import Image

from training.datasets import write_photos
from training.datasets.photos import COUNTS, PHOTOGRAPHS, Box, tiles


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
