"""Data sets by name or path: a published benchmark, `photos`, or any folder of class folders."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError, validate_call

from rankone.training.data.benchmarks import read_aircraft, read_cub, read_dtd, read_mit67
from rankone.training.data.dataset import DataError, DataSet
from rankone.training.data.folder import check_folder, read_folder
from rankone.training.data.photos import load_photos

logger = logging.getLogger("rankone")

Options = Mapping[str, Any]

FOLDER: Final = "folder"
"""The layout of class folders."""


@dataclass(frozen=True)
class DatasetReader:
    """Reads a benchmark from the folder that its archive unpacks to."""

    read: Callable[..., DataSet]
    markers: tuple[str, ...]
    """A folder of this layout has one of these files."""
    num_classes: int
    published: Mapping[str, int]
    """Number of images in its published lists: train, val and test."""

    def expected(self, options: Options) -> dict[str, int]:
        """Number of `classes`, and of images by split; `options` may join published lists."""
        named = inspect.signature(self.read).parameters
        uses = {
            split: options.get(split, named[split].default if split in named else split) for split in ("train", "test")
        }
        counts = {split: sum(self.published[use] for use in joined.split("+")) for split, joined in uses.items()}
        if "val" in self.published and not any("val" in joined for joined in uses.values()):
            counts["validation"] = self.published["val"]
        return {"classes": self.num_classes, **counts}


READERS: Final[Mapping[str, DatasetReader]] = {
    "cub": DatasetReader(read_cub, ("train_test_split.txt", "CUB_200_2011"), 200, {"train": 5994, "test": 5794}),
    "aircraft": DatasetReader(
        read_aircraft,
        ("variants.txt", "data/variants.txt", "fgvc-aircraft-2013b"),
        100,
        {"train": 3334, "val": 3333, "test": 3333},
    ),
    "mit67": DatasetReader(read_mit67, ("TrainImages.txt", "indoorCVPR_09"), 67, {"train": 5360, "test": 1340}),
    "dtd": DatasetReader(read_dtd, ("labels/train1.txt", "dtd"), 47, {"train": 1880, "val": 1880, "test": 1880}),
}

PHOTOS: Final = "photos"
"""The data set that the package writes itself."""
NAMES: Final = (PHOTOS, *READERS)


def load(
    name_or_path: str,
    options: Options | None = None,
    root: Path = Path("data"),
    defaults: Mapping[str, Options] | None = None,
) -> DataSet:
    """The data set in a folder, or one by name from `root` (`photos` is written there first).

    Args:
        name_or_path: a folder with train/ and test/; a folder with a benchmark in its published layout; or one of `NAMES`.
            A folder that exists wins over a name.
        options: of the reader, for instance `{"partition": 3}` for dtd.
        root: holds the data sets that have a name.
        defaults: the options of each layout if `options` is None.

    Raises:
        DataError: there is none, files are missing, or it has no such options.
    """
    name, path = _found(name_or_path, root)
    if options is None:
        options = (defaults or {}).get(name, {})
    data = read(name, path, options)
    if is_folder(name):
        check_folder(path, data)
        return data
    missing = [file for split in data.splits.values() for file in split.paths if not file.is_file()]
    if missing:
        raise DataError(
            f"{len(missing):,} files of {name_or_path} are missing, the first is {missing[0]}; "
            f"`rankone data verify {name} {path}` names all of them"
        )
    return data


def read(name: str, path: Path, options: Options) -> DataSet:
    """The data set of the layout `name` (`folder` for class folders) in `path`, whether its images are there or not.

    Raises:
        DataError: no such layout or options, or lists that are missing or wrong.
    """
    if is_folder(name):
        if options:
            raise DataError(f"a folder of class folders has no options, got {', '.join(options)}")
        return read_folder(path)
    if name not in READERS:
        raise DataError(f"there is no layout {name!r}; known are {', '.join((FOLDER, *NAMES))}")
    try:
        return validate_call(READERS[name].read)(path, **options)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, part['loc']))}: {part['msg']}" for part in error.errors())
        raise DataError(f"options of {name}: {faults}") from error


def is_folder(name: str) -> bool:
    """Whether the layout is that of class folders."""
    return name in (FOLDER, PHOTOS)


def _found(name_or_path: str, root: Path) -> tuple[str, Path]:
    """The layout and the folder of a data set. A folder that exists wins over a built-in name."""
    known = root / name_or_path
    folder = Path(name_or_path)
    if name_or_path in NAMES and folder.is_dir() and folder.resolve() != known.resolve():
        logger.warning("reading the folder ./%s here, not the built-in data set of that name", name_or_path)
    elif name_or_path == PHOTOS:
        load_photos(root)
        return name_or_path, known
    elif name_or_path in READERS:
        if not known.is_dir():
            hint = f"`rankone data download {name_or_path}` fetches it, or give its folder"
            raise DataError(f"there is no {known}: {hint}")
        return name_or_path, known
    if not folder.is_dir():
        raise DataError(f"{name_or_path} is neither a directory nor one of: {', '.join(NAMES)}")
    for name, reader in READERS.items():
        if not (folder / "train").is_dir() and any((folder / marker).exists() for marker in reader.markers):
            return name, folder
    return FOLDER, folder
