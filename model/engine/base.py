"""What every engine is: preprocessed images in, embeddings and logits out."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, ParamSpec, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from rankone.model.errors import RankoneError
from rankone.model.evidence import FEATURES

Images = npt.NDArray[np.float32]
Batch = Images | Sequence[Images]
"""Preprocessed images, float32 and C-contiguous: an array (n, 3, size, size), or n arrays (3, size, size)."""
EngineName = Literal["onnx", "openvino", "torchscript", "export"]
Precision = Literal["float32", "bfloat16", "float16", "int8"]
Device = Literal["cpu", "cuda"]

_OUT_OF_MEMORY: Final = (
    "out of memory",
    "allocate memory",
    "ALLOC_FAILED",
    "Failed to allocate",
    "can't alloc",
    "bad_alloc",
)
"""In the messages of torch, ONNX Runtime and OpenVINO, which have no exception type for it (torch has one on GPUs only)."""
_PLACES: Final = ("Exception from ", "Check '", "Caught exception: ")
"""How those lines of OpenVINO's messages begin that say where in its source."""

P = ParamSpec("P")
Answer = TypeVar("Answer")


class EngineError(RankoneError, RuntimeError):
    """The engine is not available with these options, or its answers are wrong."""


class UnusableNetwork(EngineError):
    """The bundle's network cannot be run, or its answers are wrong. Another bundle may work."""


class EngineOutOfMemory(EngineError):
    """The batch does not fit into memory. A smaller one may, and the engine still works."""


@dataclass(frozen=True)
class Outputs:
    """Embeddings (n, dim) and, where the bundle has them, logits (n, classes) and short embeddings (n, m), all float32.

    Their names are those of the outputs in the exported forms, `Manifest.outputs`. Local features (n, N, channels), as
    `EvidenceRecord` says, are there only if they were asked for.
    """

    embedding: npt.NDArray[np.float32]
    logits: npt.NDArray[np.float32] | None = None
    short: npt.NDArray[np.float32] | None = None
    features: npt.NDArray[np.float32] | None = None

    @property
    def arrays(self) -> dict[str, npt.NDArray[np.float32]]:
        """Those that there are, by name."""
        found = {"embedding": self.embedding, "logits": self.logits, "short": self.short, FEATURES: self.features}
        return {name: array for name, array in found.items() if array is not None}

    def at(self, rows: slice | int) -> Outputs:
        """The outputs of some images, or the vectors of one."""
        return Outputs(**{name: array[rows] for name, array in self.arrays.items()})

    @classmethod
    def joined(cls, parts: Sequence[Outputs]) -> Outputs:
        """The outputs of several batches as one."""
        return cls(**{name: np.concatenate([part.arrays[name] for part in parts]) for name in parts[0].arrays})


@dataclass(frozen=True, kw_only=True)
class Options:
    """How an engine runs. It raises EngineError for an option that it does not support, and never runs otherwise instead."""

    device: Device
    threads: int
    """Of the CPU."""
    precision: Precision = "float32"
    """Of the backbone; everything behind it is float32."""
    cuda_graphs: bool = False
    """Record each batch size once, then replay it."""
    tensorrt_cache: Path | None = None
    """Run by TensorRT, which keeps here what it builds."""
    max_batch: int = 16
    """The largest batch that TensorRT prepares for."""


class Engine(Protocol):
    """Runs a bundle's network. Called from one thread at a time, always the same."""

    name: str
    """Its name in the settings."""
    provider: str
    """Where it runs, as the library reports it."""
    precision: Precision
    """Of the backbone."""

    def run(self, images: Batch, *, features: bool = False) -> Outputs:
        """The outputs of a batch, which no later run overwrites; with their features only if asked, and the bundle has them.

        Raises:
            EngineOutOfMemory: the batch does not fit.
        """
        ...

    def close(self) -> None:
        """Frees its memory; it cannot run any more."""
        ...


def reason_of(error: Exception) -> str:
    """The first line of a library's message that says something, or the error's type."""
    lines = (line for line in str(error).strip().splitlines() if not line.startswith(_PLACES))
    return next(lines, type(error).__name__)


def reports_out_of_memory(run: Callable[P, Answer]) -> Callable[P, Answer]:
    """Turns a library's out-of-memory error into EngineOutOfMemory.

    It is raised outside the `except` block: the library's error refers to the frames, and so to the tensors, of the run that
    did not fit, and a second try with a smaller batch needs that memory.
    """

    @functools.wraps(run)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> Answer:
        try:
            return run(*args, **kwargs)
        except Exception as error:
            if not isinstance(error, MemoryError) and not any(words in str(error) for words in _OUT_OF_MEMORY):
                raise
            reason = reason_of(error)
        raise EngineOutOfMemory(f"the batch does not fit into memory: {reason}")

    return guarded
