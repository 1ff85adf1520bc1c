"""Data sets by name or path: what to train on and what to measure with, as files on disk."""

from __future__ import annotations

from rankone.training.datasets.dataset import DataError, DataSet, Split, limited
from rankone.training.datasets.folder import load_folder
from rankone.training.datasets.photos import write_photos
from rankone.training.datasets.registry import NAMES, READERS, load, read

__all__ = [
    "NAMES",
    "READERS",
    "DataError",
    "DataSet",
    "Split",
    "limited",
    "load",
    "load_folder",
    "read",
    "write_photos",
]
