"""Batches of images for the network: loaded, preprocessed and, where asked, mirrored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from model.preprocessing import ImageRejected, Limits, Preprocessing, preprocess
from training.datasets import DataError

_OWN_IMAGES = Limits(max_bytes=1 << 30, max_pixels=1 << 30, max_side=1 << 16)
"""The user's own files on disk: only what no photograph can be is refused."""


class _Files(Dataset[Tensor]):
    def __init__(self, paths: Sequence[Path], spec: Preprocessing) -> None:
        self._paths, self._spec = paths, spec

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Tensor:
        path = self._paths[index]
        try:
            return torch.from_numpy(preprocess(path.read_bytes(), self._spec, _OWN_IMAGES))
        except (ImageRejected, OSError) as error:
            raise DataError(f"{path}: {error}") from error


def batches(
    paths: Sequence[Path], spec: Preprocessing, groups: Sequence[list[int]], *, workers: int = 0
) -> Iterator[Tensor]:
    """For every group of indices into `paths`, the images of that group, (len(group), 3, size, size) float32.

    Raises:
        DataError: a file that cannot be read as an image; the message names it.
    """
    return iter(DataLoader(_Files(paths, spec), batch_sampler=list(groups), num_workers=workers))


def in_order(count: int, batch_size: int) -> list[list[int]]:
    """The indices 0 .. count - 1 in groups of at most `batch_size`."""
    return [list(range(start, min(start + batch_size, count))) for start in range(0, count, batch_size)]


def mirrored(images: Tensor) -> Tensor:
    """Left and right exchanged."""
    return images.flip(3)
