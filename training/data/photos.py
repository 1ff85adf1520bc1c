"""`photos`: a data set of crops of the photographs that scikit-image ships, a class for every photograph.

Each photograph is divided like a chequerboard. Black tiles are for training; every third white tile is for `new/`, images that
are not indexed with the rest, and the other white tiles are for testing. A crop never leaves its tile and is not resized, so no
two of the three sets share a pixel.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Iterator
from importlib import resources
from itertools import cycle, islice
from pathlib import Path
from typing import Final

from PIL import Image
from rich.progress import track

from rankone.training.data.dataset import DataSet
from rankone.training.data.folder import load_folder, staged_folder

Box = tuple[int, int, int, int]

PHOTOGRAPHS: Final = {
    "brick": "brick.png",
    "cat": "chelsea.png",
    "cells": "cell.png",
    "clock": "clock_motion.png",
    "coffee": "coffee.png",
    "coins": "coins.png",
    "galaxies": "hubble_deep_field.jpg",
    "grass": "grass.png",
    "gravel": "gravel.png",
    "histology": "ihc.png",
    "moon": "moon.png",
    "page": "page.png",
    "retina": "retina.jpg",
    "rocket": "rocket.jpg",
}
"""Class -> file. Their textures are uniform: crops of a picture of single things, such as a face, share nothing."""

_PARTS: Final = {"retina": (205, 205, 1206, 1206)}
"""Of a photograph that is not used whole: the square within the round picture."""

COUNTS: Final = {"train": 32, "test": 12, "new": 4}
"""Crops of a class in each set."""

_TILE: Final = 80
_CROP: Final = 72
_FULL_SIDE: Final = 512
"""Tiles and crops are measured at a short side of at most 512 pixels; a larger photograph has larger ones."""


def load_photos(root: Path = Path("data")) -> DataSet:
    """The data set in `root`/photos, which is written there if it is missing."""
    path = root / "photos"
    if not path.exists():
        write_photos(path)
    return load_folder(path)


def write_photos(root: Path) -> None:
    """Writes `root`/{train,test,new}/<class>/*.png, whole or not at all; the same files every time.

    A `root` that is not empty is left unchanged: if several processes write at once, they all use the files of the first.
    """
    try:
        with staged_folder(root) as stage:
            for label in track(PHOTOGRAPHS, description="cutting photographs"):
                _write_class(stage, label)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


def tiles(width: int, height: int) -> dict[str, list[Box]]:
    """The tiles of a photograph of this size, on a centred grid, by the set that they belong to."""
    side = round(_TILE * _scale(width, height))
    columns, rows = width // side, height // side
    left, top = (width - columns * side) // 2, (height - rows * side) // 2
    sets: dict[str, list[Box]] = {name: [] for name in COUNTS}
    num_white = 0
    for row in range(rows):
        for column in range(columns):
            x, y = left + column * side, top + row * side
            is_white = (row + column) % 2 == 1
            num_white += is_white
            name = "train" if not is_white else "new" if num_white % 3 == 0 else "test"
            sets[name].append((x, y, x + side, y + side))
    return sets


def crops(boxes: list[Box], side: int, draw: random.Random) -> Iterator[Box]:
    """Endless squares of `side` pixels at random places within the tiles, from every tile in turn."""
    shuffled = draw.sample(boxes, len(boxes))
    for left, top, right, bottom in cycle(shuffled):
        x, y = draw.randint(left, right - side), draw.randint(top, bottom - side)
        yield x, y, x + side, y + side


def _write_class(stage: Path, label: str) -> None:
    with (
        resources.as_file(resources.files("skimage.data").joinpath(PHOTOGRAPHS[label])) as path,
        Image.open(path) as image,
    ):
        picture = image.convert("RGB").crop(_PARTS.get(label, (0, 0, *image.size)))
    side = round(_CROP * _scale(*picture.size))
    for name, boxes in tiles(*picture.size).items():
        folder = stage / name / label
        folder.mkdir(parents=True)
        draw = random.Random(f"{label}/{name}")  # noqa: S311 - where to cut is no secret
        for number, box in enumerate(islice(crops(boxes, side, draw), COUNTS[name])):
            picture.crop(box).save(folder / f"{number:02d}.png")


def _scale(width: int, height: int) -> float:
    return max(1.0, min(width, height) / _FULL_SIDE)
