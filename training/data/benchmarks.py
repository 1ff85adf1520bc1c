"""The readers of the four benchmarks, each in the layout that its authors distribute.

CUB-200-2011 (Wah et al., 2011): 200 bird species, 5,994 training and 5,794 test images. `images.txt`,
`image_class_labels.txt` and `train_test_split.txt` number the images from 1, `classes.txt` the classes.

FGVC-Aircraft 2013b (Maji et al., 2013): 100 variants, 3,334 training, 3,333 validation and 3,333 test images. Each line of
`images_variant_{train,val,test}.txt` is a number, a space and a variant; variants hold spaces and slashes (`F/A-18`).
`variants.txt` gives the order of the classes.

MIT Indoor-67 (Quattoni and Torralba, 2009): 67 scenes, 5,360 training and 1,340 test images. The archive holds all 15,620
images; `TrainImages.txt` and `TestImages.txt` (`<class>/<file>`) come apart from it, beside the folder `Images` or above it.

Describable Textures r1.0.1 (Cimpoi et al., 2014): 47 textures; 10 partitions of 1,880 training, validation and test images:
`labels/{train,val,test}{1..10}.txt`, `<class>/<file>`. Some images are there under two names, in different splits of some
partitions; `rankone data verify` names them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, Literal

from rankone.training.data.dataset import DataError, DataSet, Split

BANNER: Final = 20
"""Rows at the bottom of every photograph of FGVC-Aircraft that name the photographer, who took several of one variant."""
PARTITIONS: Final = range(1, 11)
"""Of Describable Textures."""

_LABELS: Final = "image_class_labels.txt"
_USES: Final = "train_test_split.txt"


def read_cub(root: Path) -> DataSet:
    """The data set in `root`, `CUB_200_2011` or its parent; raises DataError if lists are missing or do not agree."""
    root = inside(root, _USES, "CUB_200_2011")
    names = numbered(root / "classes.txt")
    files, labels, uses = (numbered(root / name) for name in ("images.txt", _LABELS, _USES))
    for name, numbers in ((_LABELS, labels), (_USES, uses)):
        if strays := numbers.keys() ^ files.keys():
            raise DataError(f"{root}: image {min(strays, key=int)} is in only one of images.txt and {name}")
    for number, use in uses.items():
        if use not in ("0", "1"):
            raise DataError(f"{root / _USES}: image {number} has {use!r}; 1 is for training, 0 for testing")

    def split(wanted: str) -> Split:
        chosen = [number for number in files if uses[number] == wanted]
        return _split(((labels[n], root / "images" / files[n], root / _LABELS) for n in chosen), names)

    return DataSet("cub", tuple(names.values()), split("1"), split("0"), protocol=_USES)


def read_aircraft(
    root: Path, banner: Literal["keep", "cut"] = "keep", train: Literal["train", "train+val"] = "train+val"
) -> DataSet:
    """The data set in `root`, the folder `fgvc-aircraft-2013b` or the one it was unpacked in.

    Args:
        root: where it is.
        banner: whether the lowest 20 rows of every photograph are cut off.
        train: the official split alone, with validation images of its own, or both together as most papers report.

    Raises:
        DataError: a list is missing, or names an unknown variant.
    """
    data = inside(root, "variants.txt", "data", "fgvc-aircraft-2013b/data")
    classes = tuple(lines(data / "variants.txt"))

    def split(use: str) -> Split:
        source = data / f"images_variant_{use}.txt"
        entries = ((variant, data / "images" / f"{number}.jpg", source) for number, variant in pairs(source))
        return _split(entries, classes, BANNER if banner == "cut" else 0)

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
    sources = [lists / "TrainImages.txt", lists / "TestImages.txt"]
    classes, (train, test) = _splits_by_class(images, [[source] for source in sources], sources[0])
    return DataSet("mit67", classes, train, test, protocol="TrainImages.txt and TestImages.txt")


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
        train: the training images alone, or with the validation images.
        test: the test images alone, or with the validation images, as the paper of RUN counts them (1,880 / 3,760).

    Raises:
        DataError: no such partition, validation images on both sides, a list is missing, or a class is only in one of them.
    """
    if partition not in PARTITIONS:
        raise DataError(f"DTD has partitions 1 to 10, not {partition}")
    if (train, test) == ("train+val", "val+test"):
        raise DataError("DTD: images for validation cannot be trained on and tested with; choose one")
    root = inside(root, "labels", "dtd")
    sources = {use: root / "labels" / f"{use}{partition}.txt" for use in ("train", "val", "test")}
    wanted = [[sources[use] for use in uses.split("+")] for uses in (train, "val", test)]
    classes, (fitted, validation, tested) = _splits_by_class(root / "images", wanted, sources["train"])
    return DataSet(
        name="dtd",
        classes=classes,
        train=fitted,
        validation=validation if (train, test) == ("train", "test") else None,
        test=tested,
        protocol=f"partition {partition}, trained on {train}, tested with {test}",
    )


def _splits_by_class(images: Path, wanted: list[list[Path]], train: Path) -> tuple[tuple[str, ...], list[Split]]:
    """The classes of the list `train`, in alphabetical order, and a split for every group of lists `<class>/<file>`."""
    classes = tuple(sorted({name for name, _ in by_class(train)}))
    entries = ([(name, images / name / file, s) for s in sources for name, file in by_class(s)] for sources in wanted)
    return classes, [_split(found, classes) for found in entries]


def _split(entries: Iterable[tuple[str, Path, Path]], classes: Iterable[str], banner: int = 0) -> Split:
    """The split with these classes, files, and lists that name them; the keys of a mapping are its classes."""
    index: Mapping[str, int] = {name: place for place, name in enumerate(classes)}
    paths, labels = [], []
    for name, path, source in entries:
        if name not in index:
            raise DataError(f"{source}: there is no class {name!r}")
        paths.append(path)
        labels.append(index[name])
    return Split(tuple(paths), tuple(labels), banner)


def lines(path: Path) -> list[str]:
    """The non-empty lines, stripped, with any line ending."""
    try:
        text = path.read_text(encoding="utf-8-sig")  # an editor may have put a mark before the first line
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text: {error}") from error
    return [line.strip() for line in text.split("\n") if line.strip()]


def pairs(path: Path, separator: str = " ", expected: str = "two columns") -> list[tuple[str, str]]:
    """The part of every line before its first separator, and the part after it."""
    found = []
    for number, line in enumerate(lines(path), start=1):
        first, _, rest = line.partition(separator)
        if not (first and rest):
            raise DataError(f"{path}, line {number}: expected {expected}, got {line!r}")
        found.append((first, rest.strip()))
    return found


def numbered(path: Path) -> dict[str, str]:
    """Number -> value, from lines `number value`."""
    found: dict[str, str] = {}
    for number, value in pairs(path):
        if not number.isdecimal():
            raise DataError(f"{path}: expected a number and a value, got '{number} {value}'")
        if number in found:
            raise DataError(f"{path}: {number} is there twice")
        found[number] = value
    return found


def by_class(path: Path) -> list[tuple[str, str]]:
    """Class and file, from lines `<class>/<file>`; either may hold spaces."""
    return pairs(path, "/", "<class>/<file>")


def inside(root: Path, marker: str, *folders: str) -> Path:
    """`root`, or the first of these folders within it, that holds `marker`: archives are unpacked one level deeper or not."""
    for folder in ("", *folders):
        if (root / folder / marker).exists():
            return root / folder
    raise DataError(f"{root} has no {marker}, nor has {' or '.join(folders)} in it: is this the unpacked archive?")
