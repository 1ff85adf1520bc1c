"""From an image file to a picture and to the pixels that a network reads, without torch; every command uses this path.

Training reads more kinds of files than the service takes from strangers: MIT Indoor-67 has files that end in .jpg and are in
another format.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from rankone.model.folders import name_of
from rankone.model.preprocessing import (
    OWN,
    ImageRejected,
    Preprocessing,
    decode_as_stored,
    resize_and_crop,
    to_array,
    upright,
)
from rankone.training.data.dataset import OWN_IMAGES, DataError

_DEFAULT: Final = Preprocessing()


def picture(path: Path, banner: int = 0, spec: Preprocessing = _DEFAULT) -> Image.Image:
    """The upright image in a file as `decode` returns it for `spec`, without the `banner` lowest rows of its pixels.

    With a banner, a JPEG is decoded whole: a reduced one has no such rows.

    Raises:
        DataError: a file that cannot be read as an image, or has no more rows than its banner; the message names it.
    """
    image = upright(_as_stored(path, replace(spec, jpeg="whole") if banner else spec))
    if banner >= image.height:
        raise DataError(
            f"{name_of(path)}: {image.height} rows of pixels, of which {banner} are to be cut off as its banner"
        )
    return image.crop((0, 0, image.width, image.height - banner)) if banner else image


def pixels(path: Path, spec: Preprocessing, banner: int = 0) -> npt.NDArray[np.float32]:
    """The network's input for the image in a file, (3, size, size); raises DataError as `picture` does."""
    image = picture(path, banner, spec) if banner else _as_stored(path, spec)
    return to_array(resize_and_crop(image, spec), spec)


def _as_stored(path: Path, spec: Preprocessing) -> Image.Image:
    try:
        return decode_as_stored(path.read_bytes(), OWN_IMAGES, spec, OWN)
    except OSError as error:
        raise DataError(f"{name_of(path)}: {error.strerror or error}") from error
    except ImageRejected as error:
        raise DataError(f"{name_of(path)}: {error}") from error
