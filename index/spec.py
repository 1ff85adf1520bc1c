"""What is decided when an index is made, and what is known of its state."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from rankone.index.errors import DeviceProblem, IndexConflict, IndexProblem

DEFAULT: Final = "default"
NAME: Final = r"[a-z0-9][a-z0-9_-]{0,63}"

Kind = Literal["exact", "compact"]
Dtype = Literal["float16", "float32"]
SearchDevice = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Spec:
    """What was decided when the index was made: its model, the size and type of its vectors, and how it is searched."""

    fingerprint: str
    dim: int
    dtype: Dtype = "float16"
    kind: Kind = "exact"
    thumbnails: bool = False

    @property
    def stored(self) -> np.dtype[Any]:
        """The type of a vector on disk."""
        return np.dtype("<f2" if self.dtype == "float16" else "<f4")

    def check_model(self, fingerprint: str, name: str) -> None:
        """Raises IndexConflict if the vectors of this index, called `name`, come from another model than `fingerprint`."""
        if self.fingerprint != fingerprint:
            raise IndexConflict(
                f"the index {name!r} was made with the bundle {self.fingerprint[:16]}, and {fingerprint[:16]} is being served: "
                "their embeddings cannot be compared. Serve that bundle, or index the images again elsewhere"
            )

    def check_same(self, wanted: Spec, name: str) -> None:
        """Raises IndexConflict if the index `name`, which has this spec, is not as `wanted`."""
        if self != wanted:
            self.check_model(wanted.fingerprint, name)
            thumbnails = f"{'with' if self.thumbnails else 'without'} thumbnails"
            what = f"{self.kind} in {self.dtype} {thumbnails}, of {self.dim:,} numbers"
            raise IndexConflict(f"there is an index {name!r} already, {what}")


@dataclass(frozen=True)
class About:
    """The spec of an index, the sequence number of its last change, and the recall that was last measured."""

    spec: Spec
    sequence: int
    recall: float | None = None


def check_name(name: str) -> None:
    """Raises IndexProblem if no index can have this name."""
    if not re.fullmatch(NAME, name):
        raise IndexProblem(f"{name!r} cannot name an index: up to 64 of a-z, 0-9, - and _, beginning with a-z or 0-9")


def check_device(device: SearchDevice) -> None:
    """Raises DeviceProblem if indexes cannot be searched on the device; the message says what to do."""
    if device == "cpu":
        return
    try:
        import torch  # which a service on the CPU does without
    except ImportError as error:
        raise DeviceProblem(
            f"device 'cuda' was asked for, and indexes are searched there with torch, which is missing ({error}): install "
            "it, or set RANKONE_DEVICE=cpu"
        ) from error
    if not torch.cuda.is_available():
        raise DeviceProblem(
            "device 'cuda' was asked for, but torch finds no GPU to search indexes on: check that the NVIDIA driver is "
            "visible here (nvidia-smi), or set RANKONE_DEVICE=cpu"
        )
