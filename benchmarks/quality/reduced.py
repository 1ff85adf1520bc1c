"""`rankone bench reduced`: how near a JPEG that is decoded at a reduced scale is to the whole one, with learned filters.

Photographs, shrunk to a short side of `scale * room * 224` pixels and saved as JPEG (quality 90, 4:2:0), are decoded whole
and at 1 / `scale`, which leaves `room` times the 224 pixels of the network; `cbp-run`. Yardsticks are what else a picture may
meet: another kernel for the resize (Lanczos), and another quality of the same file (75). Then the files as they are, by the
rule of `Preprocessing(jpeg="reduced")`. Shrinking makes the pictures sharper than a camera does, so this is the hard case.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from rich.progress import track
from rich.table import Table

from benchmarks.quality.sources import learned_filters, wallpaper_files
from benchmarks.timing import console, machine, table
from rankone.model.network import Network, build_network
from rankone.model.preprocessing import Preprocessing, decode, preprocess, to_array, to_input
from rankone.model.preprocessing.errors import ImageLimits
from rankone.model.preprocessing.jpeg import reduction

SIZE: Final = 224
SIZES: Final = (224, 448)
SCALES: Final = (2, 4, 8)
ROOMS: Final = (1.0, 4 / 3, 3 / 2, 5 / 3, 2.0, 3.0)
_LEAST: Final = 1900
"""Pixels of the short side of a photograph that is used."""

Pixels = npt.NDArray[np.float32]


def main() -> None:
    """Prints cosines with the embedding of the whole picture: mean and least over the photographs."""
    console.print(f"[bold]reduced[/bold]: {machine()}")
    paths = [path for path in sorted(wallpaper_files().glob("*.jpg")) if min(Image.open(path).size) >= _LEAST]
    by_room(paths)
    for size in SIZES:
        as_they_are(paths, size)


def by_room(paths: Sequence[Path]) -> None:
    """The cosines of every scale and room, and the yardsticks."""
    network = build_network(weights=learned_filters().as_posix(), size=SIZE).eval()
    found, yardsticks = defaultdict[tuple[int, float], list[float]](list), defaultdict[str, list[float]](list)
    for path in track(paths, description="photographs"):
        picture = Image.open(path).convert("RGB")
        for scale in SCALES:
            for room in ROOMS:
                side = round(SIZE * scale * room)
                if side <= min(picture.size):
                    versions = variants(shrunk(picture, side), scale)
                    whole, reduced, *others = embed(network, np.stack(list(versions.values())))
                    found[scale, room].append(float(whole @ reduced))
                    for name, other in zip(list(versions)[2:], others, strict=True):
                        yardsticks[name].append(float(whole @ other))
    rows = table(
        f"{len(paths)} photographs, {SIZE} x {SIZE}: cosine with the whole picture", "", "pictures", "mean", "least"
    )
    for (scale, room), cosines in sorted(found.items()):
        _add(rows, f"1/{scale}, {room:.2f} times the pixels", cosines)
    for name, cosines in yardsticks.items():
        _add(rows, name, cosines)
    console.print(rows)


def as_they_are(paths: Sequence[Path], size: int) -> None:
    """The photographs as files of their own, by the rule; and how like different photographs are."""
    network = build_network(weights=learned_filters().as_posix(), size=size).eval()
    spec, whole = Preprocessing(size=size), Preprocessing(size=size, jpeg="whole")
    chosen = [path for path in paths if reduction(Image.open(path).size, spec) > 1]
    pairs = []
    for path in track(chosen, description=f"{size} x {size}"):
        data = path.read_bytes()
        pairs.append(embed(network, np.stack([preprocess(data, one) for one in (spec, whole)])))
    reduced, exact = (torch.stack([pair[i] for pair in pairs]) for i in (0, 1))
    rows = table(f"files as they are, {size} x {size}", "", "pictures", "mean", "least")
    _add(rows, "reduced by the rule", (reduced * exact).sum(1).tolist())
    likes = exact @ exact.T
    _add(rows, "different photographs", likes[~torch.eye(len(likes), dtype=torch.bool)].tolist())
    console.print(rows)


def variants(data: bytes, scale: int) -> dict[str, Pixels]:
    """A JPEG as the network's input: whole, reduced by `scale`, resized by Lanczos, and saved again with quality 75."""
    spec = Preprocessing(size=SIZE, jpeg="whole")
    picture = decode(data, ImageLimits(), spec)
    reduced = Image.open(io.BytesIO(data))
    reduced.draft(None, (reduced.width // scale, reduced.height // scale))
    left, top = ((side - min(picture.size)) / 2 for side in picture.size)
    box = (left, top, left + min(picture.size), top + min(picture.size))
    return {
        "whole": to_input(picture, spec),
        "reduced": to_input(reduced, spec),
        "resized by Lanczos instead of bilinearly": to_array(
            picture.resize((SIZE, SIZE), Image.Resampling.LANCZOS, box=box), spec
        ),
        "saved again with quality 75": preprocess(_jpeg(picture, 75), spec),
    }


def shrunk(picture: Image.Image, side: int) -> bytes:
    """The picture as a JPEG whose short side has `side` pixels."""
    factor = side / min(picture.size)
    size = (round(picture.width * factor), round(picture.height * factor))
    return _jpeg(picture.resize(size, Image.Resampling.LANCZOS), 90)


@torch.inference_mode()
def embed(network: Network, images: Pixels) -> torch.Tensor:
    """Embeddings of length 1, (n, d)."""
    return network.outputs(torch.from_numpy(images))["embedding"].double()


def _jpeg(picture: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return file.getvalue()


def _add(rows: Table, name: str, cosines: Sequence[float]) -> None:
    rows.add_row(name, str(len(cosines)), f"{np.mean(cosines):.5f}", f"{min(cosines):.5f}")
