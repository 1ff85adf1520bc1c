"""What the classifier reads of the images on disk: batch by batch, or computed once and kept in a file (phase 1)."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rankone.model.files import sync
from rankone.model.preprocessing import Preprocessing
from rankone.training.data import Split
from rankone.training.data.batches import Augment, batches, in_order, mirrored
from rankone.training.encoder import Encoder
from rankone.training.processes import Resources
from rankone.training.progress import progress
from rankone.training.recipe import Recipe

BATCH_SIZE: Final = 16
"""Images of a forward pass without gradients: keeps two cores or a GPU busy and fits into memory at 448 x 448."""


def loaded(
    split: Split,
    spec: Preprocessing,
    resources: Resources,
    title: str,
    *,
    start: int = 0,
    augment: Augment | None = None,
) -> Iterator[Tensor]:
    """The images of `split` from number `start` on, in batches (b, 3, size, size), while the main process shows progress."""
    groups = in_order(len(split), BATCH_SIZE)[start // BATCH_SIZE :]
    images = batches(split, spec, groups, workers=resources.workers, augment=augment)
    counts = [len(group) for group in groups]
    return progress(images, counts, title, done=start, shown=resources.processes.is_main)


@torch.no_grad()
def embed(
    encoder: Encoder,
    split: Split,
    spec: Preprocessing,
    resources: Resources,
    title: str,
    *,
    mirror: bool = False,
    start: int = 0,
    augment: Augment | None = None,
) -> Iterator[Tensor]:
    """What the classifier reads of the images of `split` from number `start` on, batch by batch, (b, d) on the device.

    With `mirror`, of their mirror images; with `augment`, of images that it varies. `network.embedding_of` turns it into
    embeddings.

    Raises:
        DataError: a file that cannot be read as an image.
        Interrupted: a stop was requested.
    """
    encoder.network.eval()
    for images in loaded(split, spec, resources, title, start=start, augment=augment):
        resources.check_stop("stopped while embedding")
        yield encoder(mirrored(images) if mirror else images)


class Rows:
    """Rows on disk, memory-mapped: `rows[[3, 1]]` reads two of them, (2, d). `+` appends rows."""

    def __init__(self, rows: Sequence[npt.NDArray[np.float32]]) -> None:
        self._rows = rows

    @classmethod
    def interleaved(cls, files: Sequence[npt.NDArray[np.float32]]) -> Rows:
        """The rows of several files in turn: the first of each, the second of each, …"""
        return cls([file[row] for row in range(max(map(len, files))) for file in files if row < len(file)])

    def __len__(self) -> int:
        return len(self._rows)

    def __add__(self, other: Rows) -> Rows:
        return Rows([*self._rows, *other._rows])

    @property
    def dim(self) -> int:
        """Numbers of a row."""
        return len(self._rows[0])

    def columns(self, start: int, stop: int) -> Tensor:
        """The numbers from `start` to `stop` of every row, (n, stop - start)."""
        return torch.from_numpy(np.stack([row[start:stop] for row in self._rows]))

    def __getitem__(self, indices: Sequence[int]) -> Tensor:
        return torch.from_numpy(np.stack([self._rows[index] for index in indices]))


def stored_rows(
    encoder: Encoder,
    split: Split,
    recipe: Recipe,
    resources: Resources,
    folder: Path,
    title: str,
    *,
    mirror: bool = False,
) -> Rows:
    """The result of `embed`, computed once and written to `folder` batch by batch, so that memory does not limit it.

    The file is named by a digest of everything that decides its content: weights, precision, preprocessing, images. A file that
    a killed process left unfinished is continued; two runs that need the same rows wait for each other. Each process of a run
    computes its share of the images.
    """
    processes, network, dim = resources.processes, encoder.network, encoder.network.pooling.out_dim
    numbers = (recipe.classifier_rank, encoder.precision, encoder.device.type, mirror, split.fingerprint)
    name = digest((recipe.preprocessing, recipe.pooling.composition, *numbers), network.backbone, network.pooling)
    paths = [folder / f"{name}-{rank}-of-{processes.size}.f32" for rank in range(processes.size)]
    share = split.at(processes.shard(range(len(split))))
    row_bytes = dim * np.dtype(np.float32).itemsize

    def rows_from(start: int) -> Iterator[Tensor]:
        return embed(encoder, share, recipe.preprocessing, resources, title, mirror=mirror, start=start)

    write_once(paths[processes.rank], len(share) * row_bytes, BATCH_SIZE * row_bytes, rows_from)
    processes.barrier()
    return Rows.interleaved([mapped(path, dim) for path in paths])


def write_once(path: Path, size: int, batch_bytes: int, rows_from: Callable[[int], Iterator[Tensor]]) -> None:
    """Makes `path` a file of `size` bytes, whole and on disk, or leaves the finished part of it under another name.

    `rows_from` yields the rows from a number on, in batches of `BATCH_SIZE`, each of `batch_bytes` but for the last.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # another run may be writing the same rows
        if path.exists() and path.stat().st_size == size:
            if partial.exists() and os.path.samestat(partial.stat(), os.fstat(file.fileno())):
                partial.unlink()
            return
        done = file.seek(0, os.SEEK_END) // batch_bytes
        # whole batches only: the last digit of a row may depend on the batch it was computed in
        file.truncate(done * batch_bytes)
        for rows in rows_from(done * BATCH_SIZE):
            file.write(rows.cpu().numpy().tobytes())
        file.flush()
        sync(partial)
        partial.replace(path)


def mapped(path: Path, dim: int) -> npt.NDArray[np.float32]:
    """The rows of a file, (n, dim)."""
    if not path.stat().st_size:
        return np.empty((0, dim), np.float32)
    return np.memmap(path, np.float32, mode="r").reshape(-1, dim)


def digest(described: tuple[object, ...], *parts: nn.Module) -> str:
    """A name for what these parts of a network make of what is described."""
    found = hashlib.sha256(repr(described).encode())
    for part in parts:
        for name, value in part.state_dict().items():
            found.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]
