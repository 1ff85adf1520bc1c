"""The readers of the four benchmarks, each in the layout that its authors distribute. All are checked against `rankone data verify`.

CUB-200-2011 (Wah et al., 2011): 200 bird species, 5,994 training and 5,794 test images. `images.txt`,
`image_class_labels.txt` and `train_test_split.txt` number the images from 1, `classes.txt` the classes.

FGVC-Aircraft 2013b (Maji et al., 2013): 100 variants, 3,334 training, 3,333 validation and 3,333 test images. Each line of
`images_variant_{train,val,test}.txt` is a number, a space and a variant; variants hold spaces and slashes (`F/A-18`), so only the
first space separates. `variants.txt` gives the order of the classes.

MIT Indoor-67 (Quattoni and Torralba, 2009): 67 scenes, 5,360 training and 1,340 test images. The archive holds all 15,620
images; `TrainImages.txt` and `TestImages.txt` (`<class>/<file>`) come apart from it, beside the folder `Images` or above it.

Describable Textures r1.0.1 (Cimpoi et al., 2014): 47 textures; 10 partitions of 1,880 training, validation and test images:
`labels/{train,val,test}{1..10}.txt`, `<class>/<file>`. Some images are there under two names, in different splits of some
partitions; `rankone data verify` names them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final
from rankone.training.data.dataset import DataError, DataSet, Split
from rankone.training.data.lists import index_of, inside, numbered
from pathlib import Path
from typing import Final, Literal
from rankone.training.data.dataset import DataSet, Split
from rankone.training.data.lists import index_of, inside, lines, pairs
from pathlib import Path
from rankone.training.data.dataset import DataSet, Split
from rankone.training.data.lists import by_class, index_of, inside
from pathlib import Path
from typing import Final, Literal
from rankone.training.data.dataset import DataError, DataSet, Split
from rankone.training.data.lists import by_class, index_of, inside


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


BANNER: Final = 20


def read_aircraft(
    root: Path, banner: Literal["keep", "cut"] = "keep", train: Literal["train", "train+val"] = "train+val"
) -> DataSet:
    """The data set in `root`, the folder `fgvc-aircraft-2013b` or the one it was unpacked in.

    Args:
        root: where it is.
        banner: what becomes of the 20 lowest rows of every photograph.
        train: the official split alone, with validation images of its own, or both together as everyone reports.

    Raises:
        DataError: a list is missing, or names a variant that there is not.
    """
    data = inside(root, "variants.txt", "data", "fgvc-aircraft-2013b/data")
    classes = tuple(lines(data / "variants.txt"))
    index = {name: i for i, name in enumerate(classes)}

    def split(use: str) -> Split:
        source = data / f"images_variant_{use}.txt"
        found = pairs(source)
        return Split(
            paths=tuple(data / "images" / f"{number}.jpg" for number, _ in found),
            labels=tuple(index_of(variant, index, source) for _, variant in found),
            banner=BANNER if banner == "cut" else 0,
        )

    fitted, validation = split("train"), split("val")
    joined = train == "train+val"
    return DataSet(
        name="aircraft",
        classes=classes,
        train=fitted + validation if joined else fitted,
        validation=None if joined else validation,
        test=split("test"),
        protocol=f"variants, {train}; banner {'kept' if banner == 'keep' else 'cut off'}",
    )


def read_mit67(root: Path) -> DataSet:
    """The data set in `root`. Its classes are those of `TrainImages.txt`, in alphabetical order.

    Raises:
        DataError: a list or the folder of images is missing, a line is no image, or a class is only in the test list.
    """
    lists = inside(root, "TrainImages.txt", "indoorCVPR_09")
    images = inside(root, "Images", "indoorCVPR_09") / "Images"
    train, test = (by_class(lists / name) for name in ("TrainImages.txt", "TestImages.txt"))
    classes = sorted({name for name, _ in train})
    index = {name: i for i, name in enumerate(classes)}

    def split(entries: list[tuple[str, str]], source: str) -> Split:
        return Split(
            paths=tuple(images / name / file for name, file in entries),
            labels=tuple(index_of(name, index, lists / source) for name, _ in entries),
        )

    return DataSet(
        name="mit67",
        classes=tuple(classes),
        train=split(train, "TrainImages.txt"),
        test=split(test, "TestImages.txt"),
        protocol="TrainImages.txt and TestImages.txt",
    )


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
