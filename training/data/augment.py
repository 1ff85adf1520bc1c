"""Training images that differ each time they are seen: random crops, colours and RandAugment, drawn from the seed alone.

Sources: Szegedy et al., Going Deeper with Convolutions, 2015 (crops); Cubuk et al., RandAugment, 2020. By torchvision.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Final, Literal, Protocol

import torch
from PIL import Image

from rankone.model.preprocessing import Preprocessing, resize_box
from rankone.training.sampling import generator

Kind = Literal["flip", "crop", "strong"]

_SCALES: Final = {"crop": (0.5, 1.0), "strong": (0.25, 1.0)}
"""Least and largest part of the image's area that a crop shows."""
_RATIO: Final = (3 / 4, 4 / 3)
_CLOSEST: Final = math.sqrt(min(least for least, _ in _SCALES.values()) * min(_RATIO))
"""Least part of the image's short side that the short side of a crop has."""
_COLOR: Final = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
_NUM_OPERATIONS, _MAGNITUDE = 2, 9


class Augment(Protocol):
    """An image, and its place in the epoch -> the network's input as 8-bit RGB."""

    def __call__(self, image: Image.Image, place: int, spec: Preprocessing) -> Image.Image: ...


def augmentation(kind: Kind, seed: int, epoch: int) -> Augment | None:
    """How the images of an epoch are varied; None where nothing but mirroring is asked for, which batches do themselves."""
    return None if kind == "flip" else partial(_vary, kind, seed, epoch)


def for_crops(spec: Preprocessing) -> Preprocessing:
    """For decoding an image that is to be cropped: as many pixels are left for the smallest crop as `spec` asks for."""
    return replace(spec, short_side=math.ceil(spec.kept_side / _CLOSEST))


def _vary(kind: Kind, seed: int, epoch: int, image: Image.Image, place: int, spec: Preprocessing) -> Image.Image:
    from torchvision.transforms import RandomResizedCrop, v2

    with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator, which training reads too
        torch.manual_seed(generator(seed, epoch, place).initial_seed())
        top, left, height, width = RandomResizedCrop.get_params(image, list(_SCALES[kind]), list(_RATIO))
        varied = resize_box(image, (left, top, left + width, top + height), spec)
        if kind == "strong":
            varied = v2.RandAugment(_NUM_OPERATIONS, _MAGNITUDE)(v2.ColorJitter(**_COLOR)(varied))
    return varied
