"""Reads single tensors of a bundle's `.safetensors` file with NumPy, where the service has neither torch nor the library.

The format: 8 bytes, the length of a header; the header, JSON of name -> `dtype`, `shape` and `data_offsets`; the values in
little-endian order, one tensor after the other. Source: https://github.com/huggingface/safetensors, README.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rankone.model.bundle import BundleError

_TYPES: Final = {"F32": "<f4", "F64": "<f8", "F16": "<f2", "I64": "<i8", "I32": "<i4"}
_MAX_HEADER: Final = 100_000_000


class Tensors(Mapping[str, npt.NDArray[Any]]):
    """The tensors of a file by their names. Each is mapped, not read: only what is used comes from the disk.

    Raises:
        BundleError: the file has no such header.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = file.read(length) if length <= _MAX_HEADER else b""
        self._begin = 8 + length
        try:
            entries = json.loads(header)
        except ValueError as error:
            raise BundleError(f"{path} is not a .safetensors file") from error
        self._entries: dict[str, Any] = {name: entry for name, entry in entries.items() if name != "__metadata__"}

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        entry = self._entries[name]
        if entry["dtype"] not in _TYPES:
            raise BundleError(f"{self._path}: {name} is of type {entry['dtype']}, which is not read here")
        offset = self._begin + entry["data_offsets"][0]
        return np.memmap(self._path, _TYPES[entry["dtype"]], "r", offset, tuple(entry["shape"]))

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
