"""Embeddings to search: those of real photographs, repeated with noise."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Final

import numpy as np
import torch

from benchmarks.phase1 import recipe_of
from rankone.index import AnyIndex, Filter, Hit, Index, Item, Spec, Vectors
from rankone.index.change import Effect
from rankone.index.database import create_file
from rankone.index.spec import Kind
from rankone.training.data import load_photos
from rankone.training.data.batches import batches

QUERIES: Final = 64
SHORT: Final = 128
"""Numbers of a short vector."""
K: Final = 10
"""Neighbours a query."""
BATCH: Final = 512
"""Items a request that adds them."""
MODEL: Final = "0" * 64
"""In place of a bundle's fingerprint."""
_CLIENTS: Final = 4
"""Requests under way at once."""
NOISE: Final = 0.3
"""Length of the noise added to an embedding of length 1: its cosine with the original is 0.96, with another copy 0.92."""


def photographs() -> Vectors:
    """Embeddings (168, 10,000) of the test photographs, by a random VGG16 at 96 x 96; takes about ten seconds."""
    data, recipe = load_photos(), recipe_of(96, 1)
    network = recipe.build_network(len(data.classes)).eval()
    groups = [list(range(start, min(start + 8, len(data.test)))) for start in range(0, len(data.test), 8)]
    with torch.no_grad():
        rows = [network(images)[0] for images in batches(data.test, recipe.preprocessing, groups)]
    return torch.cat(rows).numpy()


def shortened(real: Vectors) -> Vectors:
    """Random projections of the embeddings to 128 numbers, of length 1."""
    short = real @ np.random.default_rng(0).standard_normal((real.shape[1], SHORT)).astype(np.float32)
    rows: Vectors = short / np.linalg.norm(short, axis=1, keepdims=True)
    return rows


def noisy(real: Vectors, count: int, seed: int, noise: float = NOISE, device: str = "cpu") -> Iterator[Vectors]:
    """`count` embeddings drawn from the real ones, each with its own noise, in batches of `BATCH`; made on `device`."""
    draw, originals = torch.Generator(device).manual_seed(seed), torch.from_numpy(real).to(device)
    for start in range(0, count, BATCH):
        size = min(BATCH, count - start)
        picked = originals[torch.randint(len(real), (size,), generator=draw, device=device)]
        spread = torch.randn(picked.shape, generator=draw, device=device)
        vectors = torch.nn.functional.normalize(picked + noise / real.shape[1] ** 0.5 * spread)
        yield vectors.cpu().numpy()


def stored_rows(real: Vectors, count: int, noise: float = NOISE) -> Vectors:
    """The vectors of `filled` as a matrix, rounded to float16 like those in the index."""
    rows = np.concatenate(list(noisy(real, count, seed=0, noise=noise)))
    return rows.astype(np.float16).astype(np.float32)


def filled(path: Path, real: Vectors, rows: int, kind: Kind, noise: float = NOISE) -> tuple[Index, float]:
    """An index of so many rows in a new file, and the seconds that `fill` took."""
    create_file(path, Spec(MODEL, real.shape[1], kind=kind))
    index = Index(path, torch.get_num_threads())
    return index, fill(index, real, rows, noise)


def fill(index: AnyIndex, real: Vectors, rows: int, noise: float = NOISE) -> float:
    """Adds so many rows; the seconds from the first request to the last acknowledgement."""
    seconds, waiting, number = 0.0, list[Future[Effect]](), 0
    for batch in noisy(real, rows, seed=0, noise=noise):
        items = [Item(str(number + i), v, {"n": number + i, "even": i % 2 == 0}) for i, v in enumerate(batch)]
        number += len(items)
        started = time.perf_counter()
        waiting.append(index.submit(items))
        while len(waiting) >= (_CLIENTS if number < rows else 1):
            waiting.pop(0).result()
        seconds += time.perf_counter() - started
    return seconds


def one_by_one(index: AnyIndex, queries: Vectors, where: Filter | None = None) -> list[list[list[Hit]]]:
    """The answers to queries, each asked alone."""
    return [index.search(query[None], K, where=where) for query in queries]


def recall(expected: Sequence[Sequence[str]], found: Sequence[Sequence[str]]) -> float:
    """The mean share of the expected ids that were found."""
    return float(np.mean([len({*a} & {*b}) / max(len(a), 1) for a, b in zip(expected, found, strict=True)]))


def ids_of(answers: Sequence[Sequence[Hit]]) -> list[list[str]]:
    """The ids of the hits of every query."""
    return [[hit.id for hit in hits] for hits in answers]
