"""Embeddings to search: those of real photographs, repeated with noise as often as it takes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.phase1 import recipe_of
from training.datasets import load
from training.images import batches
from training.pipeline import network_of

Vectors = npt.NDArray[np.float32]
NOISE = 0.3
"""Length of what is added to an embedding of length 1: a repetition has a cosine of 0.96 with it, and of 0.92 with the next."""


def photographs() -> Vectors:
    """Embeddings (168, 10,000) of the test photographs, by a random VGG16 at 96 x 96, in about ten seconds."""
    data, recipe = load("photos"), recipe_of(96, 1)
    network = network_of(recipe, len(data.classes)).eval()
    groups = [list(range(start, min(start + 8, len(data.test)))) for start in range(0, len(data.test), 8)]
    with torch.no_grad():
        rows = [network(images)[0] for images in batches(data.test, recipe.preprocessing, groups)]
    return torch.cat(rows).numpy()


def noisy(real: Vectors, count: int, seed: int, batch: int = 512) -> Iterator[Vectors]:
    """`count` embeddings drawn from the real ones, each with noise of its own, some at a time."""
    draw = np.random.default_rng(seed)
    dim = real.shape[1]
    for start in range(0, count, batch):
        picked = real[draw.integers(0, len(real), min(batch, count - start))]
        vectors = picked + NOISE / dim**0.5 * draw.standard_normal(picked.shape, dtype=np.float32)
        yield np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)
