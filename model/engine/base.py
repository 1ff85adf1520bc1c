"""What every engine is: preprocessed images in, embeddings and logits out."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, ParamSpec, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from rankone.model.errors import RankoneError

Images = npt.NDArray[np.float32]
EngineName = Literal["onnx", "torchscript", "export"]
Precision = Literal["float32", "bfloat16", "float16"]
Device = Literal["cpu", "cuda"]

_OUT_OF_MEMORY: Final = ("out of memory", "allocate memory", "ALLOC_FAILED")
"""Neither torch on a CPU nor ONNX Runtime anywhere has a type of its own for it; these are the words of all of them."""

P = ParamSpec("P")
Answer = TypeVar("Answer")


class EngineError(RankoneError, RuntimeError):
    """An engine that cannot be had as it was asked for, or whose answer cannot be right."""


class UnusableNetwork(EngineError):
    """A bundle's network that cannot be run, or whose answers cannot be right; another bundle may be as it should."""


class EngineOutOfMemory(EngineError):
    """A batch that does not fit; a smaller one may, and the engine can go on."""


@dataclass(frozen=True)
class Outputs:
    """Embeddings (n, dim) and, where the bundle has classes, logits (n, classes), both float32."""

    embedding: npt.NDArray[np.float32]
    logits: npt.NDArray[np.float32] | None


@dataclass(frozen=True, kw_only=True)
class Options:
    """How an engine is to run. What cannot be honoured is an EngineError, never something else instead."""

    device: Device
    threads: int
    """Of the CPU."""
    precision: Precision = "float32"
    """Of the backbone; everything behind it is float32."""
    cuda_graphs: bool = False
    """Record a batch size once, then replay it."""
    tensorrt_cache: Path | None = None
    """Where TensorRT keeps what it builds; none runs without TensorRT."""
    max_batch: int = 16
    """The largest batch that TensorRT prepares for."""


class Engine(Protocol):
    """Runs a bundle's network. Called from one thread at a time, always the same."""

    name: str
    """Its name in the settings."""
    provider: str
    """Where it really runs, as the library itself reports it."""
    precision: Precision
    """Of the backbone."""

    def run(self, images: Images) -> Outputs:
        """Preprocessed images (n, 3, size, size) float32, C-contiguous, to their outputs, which are the caller's own.

        Raises:
            EngineOutOfMemory: the batch does not fit.
        """
        ...

    def close(self) -> None:
        """Lets go of its memory; it cannot run any more."""
        ...


def reports_out_of_memory(run: Callable[P, Answer]) -> Callable[P, Answer]:
    """Makes a library's own out-of-memory an EngineOutOfMemory.

    It is raised when the first error is gone, as that one holds the frames, and these the tensors, of the run that did not fit:
    who tries again with less needs the room.
    """

    @functools.wraps(run)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> Answer:
        try:
            return run(*args, **kwargs)
        except Exception as error:
            if not isinstance(error, MemoryError) and not any(words in str(error) for words in _OUT_OF_MEMORY):
                raise
            reason = str(error).strip().splitlines()[0] if str(error) else "no memory"
        raise EngineOutOfMemory(f"the batch does not fit into memory: {reason}")

    return guarded
