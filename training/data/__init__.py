"""Data sets by name or path, as files on disk.

Each module imports only from those above it in this list:

    dataset      splits and data sets
    picture      a file -> a picture -> the pixels that a network reads
    batches      batches of them, with torch: in which order, and how varied
    benchmarks   the readers of CUB, Aircraft, MIT Indoor-67 and DTD
    folder       the reader of class folders
    photos       a data set cut from scikit-image's photographs
    registry     data sets by name
    download     archives from their publishers
    split        a folder of classes into train/ and test/
    verify       every file checked
"""

from __future__ import annotations

from rankone.training.data.dataset import DataError, DataSet, Split, evenly_spaced, limited
from rankone.training.data.folder import load_folder
from rankone.training.data.photos import load_photos, write_photos
from rankone.training.data.registry import NAMES, READERS, load, read

__all__ = [
    "NAMES",
    "READERS",
    "DataError",
    "DataSet",
    "Split",
    "evenly_spaced",
    "limited",
    "load",
    "load_folder",
    "load_photos",
    "read",
    "write_photos",
]
