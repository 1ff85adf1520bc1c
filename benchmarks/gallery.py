"""Embeddings to search: those of real photographs, repeated with noise as often as it takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.phase1 import recipe_of
from rankone.index import Index, Item, Spec
from rankone.index.database import Kind, create_file
from rankone.training.data import load_photos
from rankone.training.data.batches import batches

Vectors = npt.NDArray[np.float32]
QUERIES: Final = 64
K: Final = 10
"""Neighbours that are asked for."""
BATCH: Final = 512
"""Items a request to add them."""
_AHEAD: Final = 4
"""Batches on their way at once, as of so many clients."""
NOISE: Final = 0.3
"""Length of what is added to an embedding of length 1: a repetition has a cosine of 0.96 with it, and of 0.92 with the next."""


def photographs() -> Vectors:
    """Embeddings (168, 10,000) of the test photographs, by a random VGG16 at 96 x 96, in about ten seconds."""
    data, recipe = load_photos(), recipe_of(96, 1)
    network = recipe.build_network(len(data.classes)).eval()
    groups = [list(range(start, min(start + 8, len(data.test)))) for start in range(0, len(data.test), 8)]
    with torch.no_grad():
        rows = [network(images)[0] for images in batches(data.test, recipe.preprocessing, groups)]
    return torch.cat(rows).numpy()


def noisy(
    real: Vectors, count: int, seed: int, batch: int = 512, noise: float = NOISE, device: str = "cpu"
) -> Iterator[Vectors]:
    """`count` embeddings drawn from the real ones, each with noise of its own, some at a time; `device` makes them."""
    draw, originals = torch.Generator(device).manual_seed(seed), torch.from_numpy(real).to(device)
    for start in range(0, count, batch):
        size = min(batch, count - start)
        picked = originals[torch.randint(len(real), (size,), generator=draw, device=device)]
        spread = torch.randn(picked.shape, generator=draw, device=device)
        vectors = torch.nn.functional.normalize(picked + noise / real.shape[1] ** 0.5 * spread)
        yield vectors.cpu().numpy()


def filled(path: Path, real: Vectors, rows: int, kind: Kind, noise: float = NOISE) -> tuple[Index, float]:
    """An index of so many rows, and the seconds from the first request to the last acknowledgement, vectors made before."""
    create_file(path, Spec("0" * 64, real.shape[1], kind=kind))
    index = Index(path, torch.get_num_threads())
    seconds, waiting, number = 0.0, list[Future[object]](), 0
    for batch in noisy(real, rows, seed=0, batch=BATCH, noise=noise):
        items = [Item(str(number + i), v, {"n": number + i, "even": i % 2 == 0}) for i, v in enumerate(batch)]
        number += len(items)
        started = time.perf_counter()
        waiting.append(index.submit(items))  # type: ignore[arg-type]
        while len(waiting) >= (_AHEAD if number < rows else 1):
            waiting.pop(0).result()
        seconds += time.perf_counter() - started
    return index, seconds
