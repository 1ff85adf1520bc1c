"""Data sets by name or path: a benchmark as it is distributed, `photos`, or any folder of class folders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError, validate_call

from training.datasets.aircraft import read_aircraft
from training.datasets.cub import read_cub
from training.datasets.dataset import DataError, DataSet
from training.datasets.dtd import read_dtd
from training.datasets.folder import load_folder
from training.datasets.mit67 import read_mit67
from training.datasets.photos import write_photos

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Reader:
    """Reads a benchmark from the folder that its archive unpacks to."""

    read: Callable[..., DataSet]
    marks: tuple[str, ...]
    """Files of which a folder of this layout has one."""
    published: Mapping[str, int]
    """Images by split, when every split is read by itself."""
    apart: Options = field(default_factory=dict)
    """Options with which every split is read by itself."""


READERS: Final[Mapping[str, Reader]] = {
    "cub": Reader(read_cub, ("train_test_split.txt", "CUB_200_2011"), {"train": 5994, "test": 5794}),
    "aircraft": Reader(
        read_aircraft,
        ("variants.txt", "data/variants.txt", "fgvc-aircraft-2013b"),
        {"train": 3334, "validation": 3333, "test": 3333},
        {"train": "train"},
    ),
    "mit67": Reader(read_mit67, ("TrainImages.txt", "indoorCVPR_09"), {"train": 5360, "test": 1340}),
    "dtd": Reader(
        read_dtd, ("labels/train1.txt", "dtd"), {"train": 1880, "validation": 1880, "test": 1880}, {"train": "train"}
    ),
}

WRITERS: Final[Mapping[str, Callable[[Path], None]]] = {"photos": write_photos}
"""Data sets that the package can write by itself."""

NAMES: Final = (*WRITERS, *READERS)


def load(name_or_path: str, options: Options | None = None, root: Path = Path("data")) -> DataSet:
    """A data set by name, from `root` (and written there first, if the package can), or the one in a folder.

    Args:
        name_or_path: one of `NAMES`; a folder with a benchmark in its published layout; or one with train/ and test/.
        options: of the reader, for instance `{"partition": 3}` for dtd.
        root: where data sets are kept by name.

    Raises:
        DataError: there is none, it lacks files, or it has no such options.
    """
    data = _read(name_or_path, options or {}, root)
    missing = [path for split in data.splits.values() for path in split.paths if not path.is_file()]
    if missing:
        raise DataError(
            f"{len(missing):,} files of {name_or_path} are missing, the first is {missing[0]}; "
            f"`rankone data verify` names all of them"
        )
    return data


def read(name: str, path: Path, options: Options) -> DataSet:
    """The data set of the layout `name` (`folder` for class folders) in `path`, whether its images are there or not.

    Raises:
        DataError: no such layout or options, or lists that are missing or wrong.
    """
    if name == "folder" or name in WRITERS:
        if options:
            raise DataError(f"a folder of class folders has no options, got {', '.join(options)}")
        return load_folder(path)
    if name not in READERS:
        raise DataError(f"there is no layout {name!r}; known are folder, {', '.join(NAMES)}")
    try:
        return validate_call(READERS[name].read)(path, **options)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, part['loc']))}: {part['msg']}" for part in error.errors())
        raise DataError(f"options of {name}: {faults}") from error


def _read(name_or_path: str, options: Options, root: Path) -> DataSet:
    path = root / name_or_path
    if name_or_path in WRITERS:
        if not path.exists():
            WRITERS[name_or_path](path)
        return read(name_or_path, path, options)
    if name_or_path in READERS:
        if not path.is_dir():
            raise DataError(
                f"there is no {path}: `rankone data download {name_or_path}` fetches it, or give its folder"
            )
        return read(name_or_path, path, options)
    if not Path(name_or_path).is_dir():
        raise DataError(f"{name_or_path} is neither a directory nor one of: {', '.join(NAMES)}")
    return read(_layout_of(Path(name_or_path)), Path(name_or_path), options)


def _layout_of(path: Path) -> str:
    """Benchmarks are told by their lists; everything else has to have train/ and test/."""
    for name, reader in READERS.items():
        if not (path / "train").is_dir() and any((path / mark).exists() for mark in reader.marks):
            return name
    return "folder"
