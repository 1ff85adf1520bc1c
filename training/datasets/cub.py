"""Caltech-UCSD Birds-200-2011: 200 species, 5,994 images to train on and 5,794 to test with.

As distributed: `images.txt`, `image_class_labels.txt` and `train_test_split.txt` number the images from 1, `classes.txt` the
classes. A few images are gray. No validation split.

Source: Wah et al., The Caltech-UCSD Birds-200-2011 Dataset, 2011.
"""

from __future__ import annotations

from pathlib import Path

from training.datasets.dataset import DataError, DataSet, Split
from training.datasets.lists import index_of, inside, numbered


def read_cub(root: Path) -> DataSet:
    """The data set in `root`, the folder `CUB_200_2011` or the one it was unpacked in.

    Raises:
        DataError: a list is missing, or two lists do not go together.
    """
    root = inside(root, "train_test_split.txt", "CUB_200_2011")
    names = numbered(root / "classes.txt")
    index = {number: i for i, number in enumerate(names)}
    files, labels, uses = (
        numbered(root / name) for name in ("images.txt", "image_class_labels.txt", "train_test_split.txt")
    )
    for name, numbers in (("image_class_labels.txt", labels), ("train_test_split.txt", uses)):
        if numbers.keys() != files.keys():
            stray = min(numbers.keys() ^ files.keys(), key=int)
            raise DataError(f"{root}: image {stray} is in only one of images.txt and {name}")

    def split(use: str) -> Split:
        chosen = [number for number in files if uses[number] == use]
        return Split(
            paths=tuple(root / "images" / files[number] for number in chosen),
            labels=tuple(index_of(labels[number], index, root / "image_class_labels.txt") for number in chosen),
        )

    return DataSet("cub", tuple(names.values()), split("1"), split("0"), protocol="train_test_split.txt")
