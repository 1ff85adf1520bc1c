"""From an image file to the batches that a network reads; verifying, training, measuring and exporting share this path.

The service takes JPEG, PNG and WebP only. Published data sets hold more: MIT Indoor-67 has files that end in .jpg and are in
another format. Those are converted to PNG in memory, without loss, and then decoded like all others, so that orientation,
transparency and 16 bits mean the same in every file.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rankone.model.preprocessing import (
    ImageRejected,
    Preprocessing,
    UndecodableImage,
    UnsupportedImageType,
    check_size,
    decode,
    resize_and_crop,
    to_array,
)
from rankone.training.data.dataset import OWN_IMAGES, DataError, Split

_OTHER_FORMATS: Final = ("GIF", "BMP", "TIFF", "PPM")
"""Not every format that Pillow knows: it hands EPS to another program."""
_AS_PNG: Final = {"CMYK": "RGB", "YCbCr": "RGB", "LAB": "RGB", "RGBX": "RGB", "RGBa": "RGBA", "PA": "RGBA"}
"""Modes that PNG lacks, and the mode that holds the same picture. Floats and 32-bit integers, of unknown range, have none."""
_ORIENTATION_TAG: Final = 0x0112


def picture(path: Path, banner: int = 0) -> Image.Image:
    """The upright 8-bit RGB image in a file, without the `banner` lowest rows of its pixels.

    Raises:
        DataError: a file that cannot be read as an image, or has no more rows than its banner; the message names it.
    """
    try:
        data = path.read_bytes()
        try:
            image = decode(data, OWN_IMAGES)
        except UnsupportedImageType:
            image = decode(_png(data), OWN_IMAGES)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except ImageRejected as error:
        raise DataError(f"{path}: {error}") from error
    if banner >= image.height:
        raise DataError(f"{path}: {image.height} rows of pixels, of which {banner} are to be cut off as its banner")
    return image.crop((0, 0, image.width, image.height - banner)) if banner else image


def _png(data: bytes) -> bytes:
    """The first frame of an image in one of the other formats, as PNG."""
    out = io.BytesIO()
    try:
        with Image.open(io.BytesIO(data), formats=_OTHER_FORMATS) as image:
            check_size(image.size, OWN_IMAGES)
            image.load()
            exif = Image.Exif()
            exif[_ORIENTATION_TAG] = image.getexif().get(_ORIENTATION_TAG, 1)
            frame = image.convert(_AS_PNG[image.mode]) if image.mode in _AS_PNG else image
            frame.save(out, "PNG", exif=exif, compress_level=1)
    except UnidentifiedImageError as error:
        known = ", ".join(("JPEG", "PNG", "WebP", *_OTHER_FORMATS))
        raise UnsupportedImageType(f"no image that can be read; these can: {known}") from error
    except ImageRejected:
        raise
    except Exception as error:  # decoders raise many kinds of errors on broken bytes
        raise UndecodableImage(f"cannot be decoded: {error}") from error
    return out.getvalue()


def pixels(path: Path, spec: Preprocessing, banner: int = 0) -> npt.NDArray[np.float32]:
    """The network's input for the image in a file, (3, size, size); raises DataError as `picture` does."""
    return to_array(resize_and_crop(picture(path, banner), spec), spec)


class _Files(Dataset["Tensor | DataError"]):
    def __init__(self, split: Split, spec: Preprocessing) -> None:
        self._split, self._spec = split, spec

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, index: int) -> Tensor | DataError:
        try:
            return torch.from_numpy(pixels(self._split.paths[index], self._spec, self._split.banner))
        except DataError as error:  # raised in a worker process, it would come out wrapped in a traceback
            return error


def _collate(loaded: Sequence[Tensor | DataError]) -> Tensor | DataError:
    images = [one for one in loaded if isinstance(one, Tensor)]
    return torch.stack(images) if len(images) == len(loaded) else next(e for e in loaded if isinstance(e, DataError))


def batches(split: Split, spec: Preprocessing, groups: Sequence[list[int]], *, workers: int = 0) -> Iterator[Tensor]:
    """For every group of indices into `split`, the images of that group, (len(group), 3, size, size) float32.

    Raises:
        DataError: a file that cannot be read as an image; the message names it.
    """
    loader = DataLoader(
        _Files(split, spec),
        batch_sampler=list(groups),
        num_workers=workers,
        collate_fn=_collate,
        generator=torch.Generator(),  # or it would draw from the generator that v_0 is drawn from
    )
    for batch in loader:
        if isinstance(batch, DataError):
            raise batch
        yield batch


def in_order(count: int, batch_size: int) -> list[list[int]]:
    """The indices 0 .. count - 1 in groups of at most `batch_size`."""
    return [list(range(start, min(start + batch_size, count))) for start in range(0, count, batch_size)]


def mirrored(images: Tensor) -> Tensor:
    """Left and right exchanged."""
    return images.flip(3)
