"""The local features of all images by one backbone, computed once and kept on disk for every pooling and later comparisons.

The file is named by a digest of all that decides its content: weights, preprocessing and images. An interrupted computation is
continued.

Shapes: n images, N locations, D channels.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

import torch
from torch import Tensor

from rankone.model.network import Network
from rankone.training.data import DataSet, Split
from rankone.training.data.batches import in_order
from rankone.training.embeddings import BATCH_SIZE, Rows, digest, loaded, mapped, write_once
from rankone.training.encoder import Encoder, centre_bottleneck
from rankone.training.processes import Resources
from rankone.training.progress import print_line
from rankone.training.recipe import Recipe

_ROUNDS: Final = 5


@dataclass(frozen=True)
class Images:
    """All images of a data set in one order: to fit to, to choose with (if there are any), to test with."""

    data: DataSet

    @property
    def all_images(self) -> Split:
        """All of them."""
        train, *others = self.data.splits.values()
        return sum(others, start=train)

    @property
    def parts(self) -> tuple[slice, slice, slice]:
        """Where each of the three lies; the second may be empty."""
        first = len(self.data.train)
        second = first + (0 if self.data.validation is None else len(self.data.validation))
        return slice(0, first), slice(first, second), slice(second, len(self.all_images))


@dataclass(frozen=True)
class Features:
    """Of all images: read in batches, (b, N, D). `name` says what they were computed from, `ms` how long an image takes."""

    name: str
    rows: Rows
    shape: tuple[int, int]
    ms: float
    device: torch.device

    def starting_at(self, start: int) -> Iterator[Tensor]:
        """The batches from number `start` on, a multiple of the size of a batch."""
        for group in in_order(len(self.rows), BATCH_SIZE)[start // BATCH_SIZE :]:
            yield self.rows[group].view(len(group), *self.shape).to(self.device)


def network_of(recipe: Recipe, data: DataSet, resources: Resources) -> Network:
    """The network that a training by the recipe would start with, without a classifier.

    Raises:
        WeightsError: the weights are not available.
    """
    network = recipe.build_network(None, recipe.weights).eval()
    encoder = Encoder(network, resources.processes.device, recipe.precision)
    centre_bottleneck(encoder, data.train, recipe.preprocessing, resources)
    return network


@torch.no_grad()
def features(network: Network, recipe: Recipe, images: Images, folder: Path, resources: Resources) -> Features:
    """The features by the network's backbone, in a file in `folder`.

    Raises:
        DataError: a file that cannot be read as an image.
        Interrupted: a stop was requested.
    """
    encoder, whole = Encoder(network, resources.processes.device, recipe.precision), images.all_images
    network.eval()
    name = digest((recipe.preprocessing, encoder.precision, encoder.device.type, whole.fingerprint), network.backbone)
    image = torch.zeros(1, 3, recipe.size, recipe.size)
    ms = milliseconds(lambda: encoder.features(image))
    shape = encoder.features(image)[0].shape
    image_bytes = 4 * shape.numel()
    path = folder / f"{name}.f32"
    if not path.exists():
        print_line(f"{recipe.backbone}: local features take {len(whole) * image_bytes / 1e9:.2f} GB in {folder}")

    def rows_from(start: int) -> Iterator[Tensor]:
        for batch in loaded(whole, recipe.preprocessing, resources, f"{recipe.backbone}: features", start=start):
            resources.check_stop("stopped; what is computed is kept, and the same command resumes")
            yield encoder.features(batch)

    write_once(path, len(whole) * image_bytes, BATCH_SIZE * image_bytes, rows_from)
    return Features(name, Rows(list(mapped(path, shape.numel()))), (shape[0], shape[1]), ms, encoder.device)


def milliseconds(call: Callable[[], Tensor]) -> float:
    """The median time of a call, without the first."""
    seconds = []
    for _ in range(1 + _ROUNDS):
        started = time.perf_counter()
        call().cpu()  # waits for a GPU
        seconds.append(time.perf_counter() - started)
    return 1e3 * median(seconds[1:])
