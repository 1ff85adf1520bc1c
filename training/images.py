"""Batches of images for the network: loaded, preprocessed and, where asked, mirrored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from model.preprocessing import ImageRejected, Preprocessing, decode, resize_and_crop, to_array
from training.datasets.dataset import OWN_IMAGES, DataError, Split


class _Files(Dataset[Tensor]):
    def __init__(self, split: Split, spec: Preprocessing) -> None:
        self._split, self._spec = split, spec

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(pixels(self._split.paths[index], self._spec, self._split.banner))


def pixels(path: Path, spec: Preprocessing, banner: int = 0) -> npt.NDArray[np.float32]:
    """The network's input of the image in a file, (3, size, size), without the `banner` lowest rows of its pixels.

    Raises:
        DataError: a file that cannot be read as an image; the message names it.
    """
    return to_array(resize_and_crop(picture(path, banner), spec), spec)


def picture(path: Path, banner: int = 0) -> Image.Image:
    """The image in a file, upright, without the `banner` lowest rows of its pixels.

    Raises:
        DataError: a file that cannot be read as an image; the message names it.
    """
    try:
        image = decode(path.read_bytes(), OWN_IMAGES)
    except (ImageRejected, OSError) as error:
        raise DataError(f"{path}: {error}") from error
    if banner >= image.height:
        raise DataError(f"{path}: {image.height} rows of pixels, of which {banner} are to be cut off as its banner")
    return image.crop((0, 0, image.width, image.height - banner)) if banner else image


def batches(split: Split, spec: Preprocessing, groups: Sequence[list[int]], *, workers: int = 0) -> Iterator[Tensor]:
    """For every group of indices into `split`, the images of that group, (len(group), 3, size, size) float32.

    Raises:
        DataError: a file that cannot be read as an image; the message names it.
    """
    return iter(DataLoader(_Files(split, spec), batch_sampler=list(groups), num_workers=workers))


def in_order(count: int, batch_size: int) -> list[list[int]]:
    """The indices 0 .. count - 1 in groups of at most `batch_size`."""
    return [list(range(start, min(start + batch_size, count))) for start in range(0, count, batch_size)]


def mirrored(images: Tensor) -> Tensor:
    """Left and right exchanged."""
    return images.flip(3)
