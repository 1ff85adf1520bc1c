"""A VGG16 trunk in Keras' layout, for images as Caffe takes them -> weights for images as torchvision normalizes them.

Caffe's network takes `x - m`, BGR from 0 to 255. Ours takes `(x / 255 - m') / s'`, RGB. The first layer makes up for it:

    W1 <- W1 * 255 s'_c,    b1 <- b1 + sum_{c,ij} W1_c,ij (255 m'_c - m_c)      (with the old W1)

exactly, but for the zero padding at the border, which stands for another colour.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from benchmarks.quality.sources import HOME, SourceError, filters_h5
from rankone.model.preprocessing import IMAGENET_MEAN, IMAGENET_STD

CAFFE_MEAN_RGB: Final = (122.67892, 116.66877, 104.00699)

_PLACES: Final = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
_BLOCKS: Final = (2, 2, 3, 3, 3)

Arrays = dict[str, npt.NDArray[np.float32]]


def learned_filters(home: Path = HOME) -> Path:
    """`vgg16-edges.safetensors`, made where it is not there yet; a recipe names it as its weights."""
    path = home / "vgg16-edges.safetensors"
    if not path.exists():
        save_file(convert(_kernels(filters_h5(home))), path)
    return path


def convert(kernels: list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]) -> Arrays:
    """Kernels (H, W, in, out), BGR, and biases of the 13 convolutions -> torchvision's names, (out, in, H, W), RGB."""
    found: Arrays = {}
    for number, (place, (kernel, bias)) in enumerate(zip(_PLACES, kernels, strict=True)):
        weight = kernel.transpose(3, 2, 0, 1)
        if number == 0:
            weight = weight[:, ::-1]
            shift = 255 * np.array(IMAGENET_MEAN) - np.array(CAFFE_MEAN_RGB)
            found[f"{place}.bias"] = (bias + np.einsum("ocij,c->o", weight, shift)).astype(np.float32)
            weight = weight * (255 * np.array(IMAGENET_STD))[None, :, None, None]
        found[f"{place}.weight"] = np.ascontiguousarray(weight, dtype=np.float32)
        found.setdefault(f"{place}.bias", bias.astype(np.float32))
    return found


def _kernels(path: Path) -> list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
    try:
        import h5py
    except ImportError as error:
        raise SourceError("reading the filters needs the package h5py: make quality installs it") from error
    with h5py.File(path) as file:
        names = [
            f"block{block}/layers/conv2d{f'_{number}' if number else ''}/vars"
            for block, count in enumerate(_BLOCKS, 1)
            for number in range(count)
        ]
        return [(_array(file[f"{name}/0"]), _array(file[f"{name}/1"])) for name in names]


def _array(found: Any) -> npt.NDArray[np.float64]:
    return np.asarray(found[()], dtype=np.float64)
