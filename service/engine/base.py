"""What every engine is: preprocessed images in, embeddings and logits out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from model.errors import RankoneError

Images = npt.NDArray[np.float32]


class EngineError(RankoneError, RuntimeError):
    """An engine that cannot be had as it was asked for, or whose answer cannot be right."""


class EngineOutOfMemory(EngineError):
    """The batch needs more memory than there is; a smaller one may not."""


@dataclass(frozen=True)
class Outputs:
    """Embeddings (n, dim) and, where the bundle has classes, logits (n, classes), both float32."""

    embedding: npt.NDArray[np.float32]
    logits: npt.NDArray[np.float32] | None


class Engine(Protocol):
    """Runs a bundle's network. Called from one thread at a time."""

    name: str
    """The library's name in the settings."""
    provider: str
    """Where it really runs, as the library itself reports it."""
    precision: str
    """Of its arithmetic, in the backbone at least."""

    def run(self, images: Images) -> Outputs:
        """Preprocessed images (n, 3, size, size) float32 to their outputs."""
        ...

    def close(self) -> None:
        """Lets go of its memory."""
        ...
