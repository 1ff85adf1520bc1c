"""Images on disk as a network that is not being trained represents them; in phase 1 once, and then from disk."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rankone.model.errors import Interrupted
from rankone.model.files import sync
from rankone.model.preprocessing import Preprocessing
from rankone.training.data import Split
from rankone.training.data.images import batches, in_order, mirrored
from rankone.training.encoder import Forward
from rankone.training.processes import StopRequest, World
from rankone.training.progress import watched
from rankone.training.recipe import Recipe

BATCH_SIZE: Final = 16
"""Images a forward without gradients: fills two cores or a GPU, and fits either's memory at 448 x 448."""

_ALONE: Final = World(torch.device("cpu"))


@dataclass(frozen=True, kw_only=True)
class Work:
    """How images are gone through; changes no result."""

    workers: int = 0
    """Processes that load images; 0 loads them in this one."""
    stop: StopRequest | None = None
    """Heard between two batches."""
    world: World = _ALONE
    """Only its first process says how far it is."""


@torch.no_grad()
def represented(
    forward: Forward, split: Split, spec: Preprocessing, work: Work, title: str, *, mirror: bool = False, start: int = 0
) -> Iterator[Tensor]:
    """What the classifier reads of the images of `split` from number `start` on, batch by batch, (b, d) on the device.

    With `mirror`, of their mirror images. `network.embedding_of` makes embeddings of it.

    Raises:
        DataError: a file that cannot be read as an image.
        Interrupted: a stop was requested.
    """
    forward.network.eval()
    groups = in_order(len(split), BATCH_SIZE)[start // BATCH_SIZE :]
    loaded = batches(split, spec, groups, workers=work.workers)
    counts = [len(group) for group in groups]
    for images in watched(loaded, counts, title, done=start, shown=work.world.leads):
        if work.stop:
            raise Interrupted("stopped while embedding")
        yield forward(mirrored(images) if mirror else images)


class Rows:
    """Rows on disk, memory-mapped: `rows[[3, 1]]` reads two of them, (2, d). Sums of rows follow each other."""

    def __init__(self, places: Sequence[npt.NDArray[np.float32]]) -> None:
        self._places = places

    @classmethod
    def dealt(cls, files: Sequence[npt.NDArray[np.float32]]) -> Rows:
        """The rows of several files that were dealt out in turn: the first of each, the second of each, …"""
        return cls([file[row] for row in range(max(map(len, files))) for file in files if row < len(file)])

    def __len__(self) -> int:
        return len(self._places)

    def __add__(self, other: Rows) -> Rows:
        return Rows([*self._places, *other._places])

    def place(self, index: int) -> npt.NDArray[np.float32]:
        """One row, still on disk."""
        return self._places[index]

    def __getitem__(self, indices: Sequence[int]) -> Tensor:
        return torch.from_numpy(np.stack([self._places[index] for index in indices]))


def stored(
    forward: Forward, split: Split, recipe: Recipe, work: Work, folder: Path, title: str, *, mirror: bool = False
) -> Rows:
    """What `represented` gives, on disk in `folder`: computed once, and streamed there, so memory does not bound it.

    The file's name is a digest of all that decides its content: weights, precision, preprocessing, images. What a killed
    process has left of it is gone on from; two runs that want the same rows wait for one another. Of several processes of
    one run each computes its share of the images.
    """
    world = work.world
    name = _digest(forward, split, recipe, mirror=mirror)
    paths = [folder / f"{name}-{rank}-of-{world.size}.f32" for rank in range(world.size)]
    share = split.at(world.share(range(len(split))))
    row_bytes = forward.network.pooling.out_dim * np.dtype(np.float32).itemsize

    def rows_from(start: int) -> Iterator[Tensor]:
        return represented(forward, share, recipe.preprocessing, work, title, mirror=mirror, start=start)

    _write_once(paths[world.rank], len(share) * row_bytes, BATCH_SIZE * row_bytes, rows_from)
    world.wait()
    return Rows.dealt([_mapped(path, forward.network.pooling.out_dim) for path in paths])


def _write_once(path: Path, size: int, batch_bytes: int, rows_from: Callable[[int], Iterator[Tensor]]) -> None:
    """Makes `path` a file of `size` bytes, whole and on disk, or leaves what there is of it under another name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # another run may be at the same rows
        if path.exists() and path.stat().st_size == size:
            if partial.exists() and os.path.samestat(partial.stat(), os.fstat(file.fileno())):
                partial.unlink()
            return
        done = file.seek(0, os.SEEK_END) // batch_bytes
        # whole batches alone: the last digit of a row may depend on the batch it was computed in
        file.truncate(done * batch_bytes)
        for rows in rows_from(done * BATCH_SIZE):
            file.write(rows.cpu().numpy().tobytes())
        file.flush()
        sync(partial)
        partial.replace(path)


def _mapped(path: Path, dim: int) -> npt.NDArray[np.float32]:
    if not path.stat().st_size:
        return np.empty((0, dim), np.float32)
    return np.memmap(path, np.float32, mode="r").reshape(-1, dim)


def _digest(forward: Forward, split: Split, recipe: Recipe, *, mirror: bool) -> str:
    numbers = (forward.precision, forward.device.type)
    described = (recipe.preprocessing, recipe.pooling.composition, recipe.classifier_rank, *numbers, mirror)
    digest = hashlib.sha256(repr((*described, split.fingerprint)).encode())
    for part in (forward.network.backbone, forward.network.pooling):
        for name, value in part.state_dict().items():
            digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
