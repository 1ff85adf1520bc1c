"""`rankone bench jpeg`: processor time from the bytes of a 12-megapixel JPEG to the network's input, 448 x 448.

Photographs of scikit-image, enlarged to 4000 x 3000 as a phone stores them: quality 90, 4:2:0, on their side by Exif. Smooth
as enlarging makes them, and with the noise of a sensor (standard deviation 3 of 255), for nearly twice the bytes.
Rivals: the same preprocessing of whole pictures; of reduced ones that are turned upright before the resize, as by version 3;
and Pillow with torchvision's transforms. Target: at most 15 ms.

Of one picture of each kind also the parts, as far as they can be called alone. Decoding at an eighth computes one number of
each block and is nearly nothing but the entropy code: no decoder that reads the whole file takes less.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from importlib import resources
from typing import Any, Final

import numpy as np
import torch
from PIL import Image, ImageOps
from torchvision.transforms import v2

from benchmarks.timing import compare, console, faster, machine, print_table
from rankone.model.preprocessing import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ImageLimits,
    Preprocessing,
    decode_as_stored,
    preprocess,
    resize_and_crop,
    to_array,
    upright,
)
from rankone.model.preprocessing.jpeg import walk

SIZE: Final = 448
CAMERA: Final = (4000, 3000)
TARGET_S: Final = 0.015
RIVAL: Final = "Pillow + torchvision"
OURS: Final = "reduced"
TURNED_FIRST: Final = "reduced, turned first"
NOISE: Final = {"smooth": 0.0, "with noise": 3.0}
"""Standard deviations, of 255."""
NAMES: Final = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
_ORIENTATION: Final = 0x0112
_ON_ITS_SIDE: Final = 6


def main() -> None:
    """Prints the time of each way for both kinds of picture, and that of the parts."""
    console.print(f"[bold]jpeg[/bold]: {machine()}")
    for kind, deviation in NOISE.items():
        files = [photograph(name, deviation) for name in NAMES]
        megabytes = " ".join(f"{len(data) / 1e6:.2f}" for data in files)
        timings = compare(contenders(files), rounds=15, device="processor")
        per_image = {name: timing.divided(len(files)) for name, timing in timings.items()}
        print_table(f"12 megapixels, {kind} ({megabytes} MB), processor time", per_image, RIVAL, faster)
        found = per_image[OURS].median
        console.print(
            f"{1e3 * found:.1f} ms (at most {1e3 * TARGET_S:g} ms: {'met' if found <= TARGET_S else 'missed'})"
        )
        data = files[NAMES.index("coffee.png")]
        for name, timing in compare(parts(data), rounds=15, device="processor").items():
            console.print(f"  {name}: {1e3 * timing.median:.2f} ms")


def photograph(name: str, deviation: float, size: tuple[int, int] = CAMERA) -> bytes:
    """A file as a phone writes it: the largest part of a picture with these proportions, enlarged; noisy; on its side."""
    with resources.as_file(resources.files("skimage.data").joinpath(name)) as path, Image.open(path) as image:
        picture = ImageOps.fit(image.convert("RGB"), size, Image.Resampling.BICUBIC)
    noise = np.random.default_rng(0).normal(scale=deviation, size=(size[1], size[0], 3))
    noisy = Image.fromarray((np.asarray(picture) + noise).round().clip(0, 255).astype(np.uint8))
    exif, file = Image.Exif(), io.BytesIO()
    exif[_ORIENTATION] = _ON_ITS_SIDE
    noisy.save(file, "JPEG", quality=90, subsampling="4:2:0", exif=exif)
    return file.getvalue()


def contenders(files: list[bytes], size: int = SIZE) -> dict[str, Callable[[], list[Any]]]:
    """The ways from files to the network's input; each returns that of all files."""
    ways: dict[str, Callable[[bytes], Any]] = {
        RIVAL: partial(by_torchvision, size=size),
        "whole": partial(preprocess, spec=Preprocessing(size=size, jpeg="whole")),
        TURNED_FIRST: partial(preprocess, spec=Preprocessing(size=size, version=3)),
        OURS: partial(preprocess, spec=Preprocessing(size=size)),
    }
    return {name: partial(_all, way, files) for name, way in ways.items()}


def by_torchvision(data: bytes, size: int) -> Any:
    """As a user of torchvision does it: (3, size, size)."""
    transform = v2.Compose(
        [
            v2.Resize(size, antialias=True),
            v2.CenterCrop(size),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    return transform(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


def parts(data: bytes) -> dict[str, Callable[[], Any]]:
    """The steps of the reduced way, by name, and the entropy code nearly alone."""
    spec, limits = Preprocessing(size=SIZE), ImageLimits()
    scale = walk(data, limits, spec).scale
    stored = decode_as_stored(data, limits, spec)
    small = resize_and_crop(stored, spec)
    return {
        "walk over the file": partial(walk, data, limits, spec),
        f"decoding at 1/{scale}": partial(drafted, data, scale),
        "resizing and turning": partial(resize_and_crop, stored, spec),
        "for comparison: turning first": lambda: upright(stored.copy()),
        "normalizing": partial(to_array, small, spec),
        "decoding at 1/8": partial(drafted, data, 8),
    }


def drafted(data: bytes, scale: int) -> Image.Image:
    """What Pillow decodes at a scale."""
    image = Image.open(io.BytesIO(data))
    image.draft(None, (image.width // scale, image.height // scale))
    image.load()
    return image


def _all(way: Callable[[bytes], Any], files: list[bytes]) -> list[Any]:
    return [way(data) for data in files]
