"""Caltech-UCSD Birds-200-2011: 200 species, 5,994 images to train on and 5,794 to test with.

As distributed: `images.txt`, `image_class_labels.txt` and `train_test_split.txt` number the images from 1, `classes.txt` the
classes. A few images are gray. The archive also holds attributes, parts and boxes; nothing here needs them. No validation
split.

Source: Wah et al., The Caltech-UCSD Birds-200-2011 Dataset, 2011.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from rankone.training.datasets.dataset import DataError, DataSet, Split
from rankone.training.datasets.lists import index_of, inside, numbered

_LABELS: Final = "image_class_labels.txt"
_USES: Final = "train_test_split.txt"


def read_cub(root: Path) -> DataSet:
    """The data set in `root`, the folder `CUB_200_2011` or the one it was unpacked in.

    Raises:
        DataError: a list is missing, or two lists do not go together.
    """
    root = inside(root, _USES, "CUB_200_2011")
    names = numbered(root / "classes.txt")
    index = {number: i for i, number in enumerate(names)}
    files, labels, uses = _lists(root)

    def split(use: str) -> Split:
        chosen = [number for number in files if uses[number] == use]
        return Split(
            paths=tuple(root / "images" / files[number] for number in chosen),
            labels=tuple(index_of(labels[number], index, root / _LABELS) for number in chosen),
        )

    return DataSet("cub", tuple(names.values()), split("1"), split("0"), protocol=_USES)


def _lists(root: Path) -> tuple[dict[str, str], ...]:
    """File, class and use of every image by its number."""
    files, labels, uses = (numbered(root / name) for name in ("images.txt", _LABELS, _USES))
    for name, numbers in ((_LABELS, labels), (_USES, uses)):
        if strays := numbers.keys() ^ files.keys():
            raise DataError(f"{root}: image {min(strays, key=int)} is in only one of images.txt and {name}")
    for number, use in uses.items():
        if use not in ("0", "1"):
            raise DataError(f"{root / _USES}: image {number} has {use!r}; 1 is for training, 0 for testing")
    return files, labels, uses
