"""Batches of images for the network: in which order, how varied, and loaded by as many processes as asked for.

Order and variation are drawn from the seed, the epoch and the place in it alone, so that a resumed run repeats them.

Sources: Szegedy et al., Going Deeper with Convolutions, 2015 (crops); Cubuk et al., RandAugment, 2020. By torchvision.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Final, Literal

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rankone.model.preprocessing import Preprocessing, resize_box, to_array
from rankone.training.data.dataset import DataError, Split, by_label
from rankone.training.data.picture import picture, pixels

Kind = Literal["flip", "crop", "strong"]

_SCALES: Final = {"crop": (0.5, 1.0), "strong": (0.25, 1.0)}
"""Least and largest part of the image's area that a crop shows."""
_RATIO: Final = (3 / 4, 4 / 3)
_CLOSEST: Final = math.sqrt(min(least for least, _ in _SCALES.values()) * min(_RATIO))
"""Least part of the image's short side that the short side of a crop has."""
_COLOR: Final = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
_NUM_OPERATIONS, _MAGNITUDE = 2, 9

Augment = Callable[[Image.Image, int, Preprocessing], Image.Image]
"""An image, and its place in the epoch -> the network's input as 8-bit RGB."""


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


def generator(*numbers: int) -> torch.Generator:
    """A generator for this combination of numbers: (0, 1) and (1, 0) draw differently."""
    seed = 0
    for number in numbers:
        seed = (seed * 1_000_003 + number + 1) % (1 << 63)
    return torch.Generator().manual_seed(seed)


def shuffled(count: int, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """All indices below `count`, in the order of this epoch, in groups of a batch."""
    return in_groups(torch.randperm(count, generator=generator(seed, epoch)).tolist(), batch_size)


def balanced(labels: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """As many indices as there are labels, as many of each class as of any other (or one more), in groups of a batch.

    Of a class that has fewer images they come again, each equally often; of one that has more, other epochs draw the others.
    """
    drawing = generator(seed, epoch)
    members = by_label(labels)
    share, rest = divmod(len(labels), len(members))
    more = set(torch.randperm(len(members), generator=drawing)[:rest].tolist())
    chosen: list[int] = []
    for number, (_, indices) in enumerate(sorted(members.items())):
        chosen += islice(_forever(indices, drawing), share + (number in more))
    order = torch.randperm(len(chosen), generator=drawing).tolist()
    return in_groups([chosen[place] for place in order], batch_size)


def _forever(indices: Sequence[int], drawing: torch.Generator) -> Iterator[int]:
    """The indices in a random order, again and again."""
    while True:
        yield from (indices[place] for place in torch.randperm(len(indices), generator=drawing).tolist())


def in_groups(order: list[int], size: int) -> list[list[int]]:
    """The indices in groups of at most `size`."""
    return [order[start : start + size] for start in range(0, len(order), size)]


def in_order(count: int, size: int) -> list[list[int]]:
    """The indices 0 .. count - 1 in groups of at most `size`."""
    return in_groups(list(range(count)), size)


class _Files(Dataset["Tensor | DataError"]):
    def __init__(self, split: Split, spec: Preprocessing, augment: Augment | None) -> None:
        self._split, self._spec, self._augment = split, spec, augment

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, index: int) -> Tensor | DataError:
        try:
            path, banner = self._split.paths[index], self._split.banner
            if self._augment is None:
                return torch.from_numpy(pixels(path, self._spec, banner))
            varied = self._augment(picture(path, banner, for_crops(self._spec)), index, self._spec)
            return torch.from_numpy(to_array(varied, self._spec))
        except DataError as error:  # raised in a worker process, it would come out wrapped in a traceback
            return error


def _collate(loaded: Sequence[Tensor | DataError]) -> Tensor | DataError:
    images = [one for one in loaded if isinstance(one, Tensor)]
    return torch.stack(images) if len(images) == len(loaded) else next(e for e in loaded if isinstance(e, DataError))


def batches(
    split: Split,
    spec: Preprocessing,
    groups: Sequence[list[int]],
    *,
    workers: int = 0,
    augment: Augment | None = None,
) -> Iterator[Tensor]:
    """The images of every group of indices, (len(group), 3, size, size) float32; raises DataError as `picture` does."""
    loader = DataLoader(
        _Files(split, spec, augment),
        batch_sampler=list(groups),
        num_workers=workers,
        collate_fn=_collate,
        generator=torch.Generator(),  # or it would draw from the generator that v_0 is drawn from
    )
    for batch in loader:
        if isinstance(batch, DataError):
            raise batch
        yield batch


def mirrored(images: Tensor) -> Tensor:
    """Left and right exchanged."""
    return images.flip(3)
