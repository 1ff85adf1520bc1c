"""Data sets by name or path: what to train on and what to measure with, as files on disk."""

from __future__ import annotations

from rankone.training.data.dataset import DataError, DataSet, Split, limited
from rankone.training.data.folder import load_folder
from rankone.training.data.photos import write_photos
from rankone.training.data.registry import NAMES, READERS, load, read


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
