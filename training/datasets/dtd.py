"""Describable Textures, r1.0.1: 47 textures; in each of 10 partitions 1,880 images to train on, for validation and to test.

As distributed: `labels/{train,val,test}{1..10}.txt`, a line an image, `<class>/<file>`, and `images/<class>/`. A few images are
there under two names, in different splits of some partitions; `rankone data verify` names them.

Source: Cimpoi et al., Describing Textures in the Wild, 2014.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from rankone.training.datasets.dataset import DataError, DataSet, Split
from rankone.training.datasets.lists import by_class, index_of, inside

PARTITIONS: Final = range(1, 11)


def read_dtd(
    root: Path,
    partition: int = 1,
    train: Literal["train", "train+val"] = "train",
    test: Literal["test", "val+test"] = "test",
) -> DataSet:
    """The data set in `root`, the folder `dtd` or the one it was unpacked in. Classes in alphabetical order.

    Args:
        root: where it is.
        partition: 1 to 10; the published figure is the mean over all of them.
        train: the training images alone, or with those for validation.
        test: the test images alone, or with those for validation, as the paper of RUN counts them (1,880 / 3,760).

    Images for validation that neither takes are for validation.

    Raises:
        DataError: no such partition, images for validation on both sides, a list is missing, or a class is only in one of them.
    """
    if partition not in PARTITIONS:
        raise DataError(f"DTD has partitions 1 to 10, not {partition}")
    if (train, test) == ("train+val", "val+test"):
        raise DataError("DTD: images for validation cannot be trained on and tested with; choose one")
    root = inside(root, "labels", "dtd")
    sources = {use: root / "labels" / f"{use}{partition}.txt" for use in ("train", "val", "test")}
    entries = {use: by_class(source) for use, source in sources.items()}
    classes = sorted({name for name, _ in entries["train"]})
    index = {name: i for i, name in enumerate(classes)}

    def split(uses: str) -> Split:
        found = [(name, file, sources[use]) for use in uses.split("+") for name, file in entries[use]]
        return Split(
            paths=tuple(root / "images" / name / file for name, file, _ in found),
            labels=tuple(index_of(name, index, source) for name, _, source in found),
        )

    return DataSet(
        name="dtd",
        classes=tuple(classes),
        train=split(train),
        validation=split("val") if (train, test) == ("train", "test") else None,
        test=split(test),
        protocol=f"partition {partition}, trained on {train}, tested with {test}",
    )
