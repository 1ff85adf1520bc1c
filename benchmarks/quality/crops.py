"""Four crops of each of 400 photographed textures, and their embeddings by several poolings, computed once and kept.

A class is a picture, and its crops are the quadrants of it: no two crops share a pixel.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import torch
from PIL import Image
from rich.progress import track
from torch import Tensor

from benchmarks.quality.sources import HOME, learned_filters, texture_files
from rankone.model.backbone import build_backbone
from rankone.model.composition import Composition
from rankone.model.network import Network
from rankone.model.preprocessing import Preprocessing, to_array
from rankone.model.reduction import Floats

NUM_CLASSES: Final = 400
NUM_CROPS: Final = 4
SIDE: Final = 128
_FOLDERS: Final = ("base", "buildings", "ctp1", "dirt", "material", "mattn", "misc", "nature", "streets", "terrain")
_MAPS: Final = ("_nm", "_sm", "_gm", "_hm")
"""Endings of files that are not photographs: normal, gloss, glow and height maps."""
_MIN_SIDE: Final = 256
_MIN_DEVIATION: Final = 12
_BATCH: Final = 16


def features(home: Path = HOME) -> Floats:
    """Local features of all crops, (1600, 64, 512), by the learned filters; crops of a class are neighbours."""

    def computed() -> Floats:
        return _applied(build_backbone("vgg16", learned_filters(home).as_posix()).eval(), home, "features")

    return _kept(home / "short" / f"conv5_3-{SIDE}.npy", computed)


def embeddings(name: str, pooling: Composition, home: Path = HOME) -> Floats:
    """Embeddings of all crops by a pooling, (1600, d), in the order of `features`."""

    @torch.inference_mode()
    def computed() -> Floats:
        backbone = build_backbone("vgg16", "random")
        network, rows = Network(backbone, pooling.build(backbone.channels), None).eval(), features(home)
        found = []
        for start in track(range(0, len(rows), _BATCH), description=name):
            local = torch.from_numpy(np.array(rows[start : start + _BATCH]))
            found.append(network.embedding_of(network.represent_features(local)).numpy())
        return np.concatenate(found)

    digest = hashlib.sha256(repr(pooling).encode()).hexdigest()[:8]
    return np.array(_kept(home / "short" / f"{name}-{digest}.npy", computed))


def embedded_by(network: Network, home: Path = HOME) -> Floats:
    """Embeddings of all crops by a whole network, (1600, d), in the order of `features`; not kept."""
    return _applied(network.eval().embed, home, "crops")


def crops_of(home: Path = HOME) -> Iterator[Image.Image]:
    """The four quadrants of the largest square of each picture, 128 x 128."""
    for path in pictures(home):
        square = _square(path)
        for top in (0, SIDE):
            for left in (0, SIDE):
                yield square.crop((left, top, left + SIDE, top + SIDE))


@cache
def pictures(home: Path = HOME) -> list[Path]:
    """Draws the same 400 pictures every time, from all that are large enough, unique and have no flat quadrant."""
    textures, seen, found = texture_files(home), set[str](), list[Path]()
    paths = [path for name in _FOLDERS for path in sorted((textures / f"tex_{name}").iterdir())]
    for path in paths:
        if path.suffix not in (".png", ".jpg") or path.stem.endswith(_MAPS):
            continue
        with Image.open(path) as image:
            if min(image.size) < _MIN_SIDE:
                continue
        square = np.asarray(_square(path), np.float32).reshape(2, SIDE, 2, SIDE, 3)
        digest = hashlib.sha256(square.tobytes()).hexdigest()
        if digest not in seen and square.std(axis=(1, 3)).mean(axis=-1).min() > _MIN_DEVIATION:
            seen.add(digest)
            found.append(path)
    return sorted(random.Random(0).sample(found, NUM_CLASSES))  # noqa: S311 - pictures, not secrets


def _square(path: Path) -> Image.Image:
    with Image.open(path) as opened:
        image = opened.convert("RGBA").convert("RGB")
    side = min(image.size)
    return image.crop((0, 0, side, side)).resize((2 * SIDE, 2 * SIDE), Image.Resampling.LANCZOS)


@torch.inference_mode()
def _applied(call: Callable[[Tensor], Tensor], home: Path, title: str) -> Floats:
    """What `call` makes of all crops, in batches."""
    crops, spec, found = list(crops_of(home)), Preprocessing(size=SIDE), []
    for start in track(range(0, len(crops), _BATCH), description=title):
        images = np.stack([to_array(crop, spec) for crop in crops[start : start + _BATCH]])
        found.append(call(torch.from_numpy(images)).numpy())
    rows: Floats = np.concatenate(found)
    return rows


def _kept(path: Path, computed: Callable[[], Floats]) -> Floats:
    """The rows in `path`, mapped; computed and written there if it is missing."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npy")
        np.save(partial, computed())
        partial.replace(path)
    rows: Floats = np.load(path, mmap_mode="r")
    return rows
