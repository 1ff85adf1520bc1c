"""Batches of images for the network, loaded by as many processes as asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rankone.model.preprocessing import Preprocessing, to_array
from rankone.training.data.augment import Augment, for_crops
from rankone.training.data.dataset import DataError, Split
from rankone.training.data.picture import picture, pixels


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


def in_order(count: int, batch_size: int) -> list[list[int]]:
    """The indices 0 .. count - 1 in groups of at most `batch_size`."""
    return [list(range(start, min(start + batch_size, count))) for start in range(0, count, batch_size)]


def mirrored(images: Tensor) -> Tensor:
    """Left and right exchanged."""
    return images.flip(3)
