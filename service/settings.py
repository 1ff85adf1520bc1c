"""Everything that can be set of the service: from the environment (`RANKONE_…`) or as flags of `rankone serve`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt
from pydantic_settings import BaseSettings, SettingsConfigDict

from model.preprocessing import Limits


class Settings(BaseSettings):
    """The settings of one service. A setting that cannot be honoured stops the start."""

    model_config = SettingsConfigDict(env_prefix="RANKONE_", frozen=True, extra="forbid", use_attribute_docstrings=True)

    bundle: Path = Path("bundle")
    """Directory of the bundle to serve."""
    data: Path = Path("index")
    """Directory of the indexes, made if it is not there."""
    engine: Literal["onnx", "torchscript", "export"] = "onnx"
    """Which exported form of the network runs."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the backbone; the head is float32. Refused at start where engine or device lack it, or embeddings suffer."""
    cuda_graphs: bool = False
    """On a GPU, record every batch size once and replay it."""
    tensorrt_cache: Path | None = None
    """On a GPU, run the backbone of the onnx engine by TensorRT, which keeps what it builds in this directory."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where it runs; refused at start if it cannot."""
    threads: PositiveInt = Field(default_factory=lambda: len(os.sched_getaffinity(0)))
    """CPU threads of the engine, and of decoding."""
    host: str = "127.0.0.1"
    """Address to listen on; any other than this machine's own needs allow_anonymous, as there are no keys."""
    port: int = Field(default=8000, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    allow_anonymous: bool = False
    """Let anybody who reaches the address embed, search, add and delete."""
    max_batch: PositiveInt = 16
    """Images in one run of the engine."""
    max_images: PositiveInt = 64
    """Images, vectors or items in one request."""
    max_request_bytes: PositiveInt = 100_000_000
    """Length of a request's body."""
    max_image_bytes: PositiveInt = Limits.max_bytes
    """Length of one encoded image."""
    max_pixels: PositiveInt = Limits.max_pixels
    """Pixels of one image, by its header."""
    max_side: PositiveInt = Limits.max_side
    """Longest side of one image in pixels, by its header."""
    max_k: PositiveInt = 1000
    """Neighbours of one query."""
    max_metadata_bytes: PositiveInt = 16_384
    """Length of one item's metadata as JSON."""

    @property
    def limits(self) -> Limits:
        """What one image may cost."""
        return Limits(max_bytes=self.max_image_bytes, max_pixels=self.max_pixels, max_side=self.max_side)
