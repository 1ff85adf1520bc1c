"""What engines are measured on: a bundle, and photographs as it wants them."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from benchmarks.timing import console
from rankone.model.bundle import Bundle, open_bundle
from rankone.model.engine.base import Images
from rankone.model.network import build_network
from rankone.model.preprocessing import preprocess
from rankone.training.data import evenly_spaced, load_photos
from rankone.training.export import MIN_IMAGES, Description, write_bundle
from rankone.training.recipe import Recipe

_JPEG_SIZE: Final = (640, 480)


@contextmanager
def bundle_of(path: Path | None) -> Iterator[Bundle]:
    """The bundle in `path`; without one, the default network with random weights, 448 x 448, exported while this lasts.

    Raises:
        BundleError: there is no bundle in `path`.
    """
    if path is not None:
        yield open_bundle(path)
        return
    console.print(
        "no bundle named (--bundle DIR): exporting the default network with random weights, which takes minutes"
    )
    recipe = Recipe(weights="random")
    description = Description(name="random", version="0", classes=None, metrics={}, dataset=None)
    with tempfile.TemporaryDirectory() as folder:
        images = np.stack([preprocess(jpeg, recipe.preprocessing) for jpeg in jpegs(MIN_IMAGES)])
        yield write_bundle(build_network(weights="random"), recipe, images, Path(folder, "bundle"), description)


def photographs(bundle: Bundle, count: int) -> Images:
    """(count, 3, size, size), preprocessed."""
    return np.stack([preprocess(jpeg, bundle.manifest.preprocessing) for jpeg in jpegs(count)])


def jpegs(count: int) -> list[bytes]:
    """Photographs of 640 x 480 as JPEG files, repeated if there are fewer of them."""
    paths = load_photos().test.paths
    files = [_jpeg(paths[i]) for i in evenly_spaced(len(paths), min(count, len(paths)))]
    return [files[i % len(files)] for i in range(count)]


def _jpeg(path: Path) -> bytes:
    file = io.BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").resize(_JPEG_SIZE).save(file, "JPEG", quality=90)
    return file.getvalue()
