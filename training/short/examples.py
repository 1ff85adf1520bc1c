"""Which images short embeddings are learned from, and their embeddings.

Images that trained the network vary too little within their classes. Held-out images are used where there are enough of
them. Otherwise all images are, cropped and mirrored as the network has not seen them: each once where classes have many
images, and in four views where they have few.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from rankone.model.bundle import Manifest
from rankone.model.network import Network
from rankone.model.preprocessing import Preprocessing
from rankone.training.data import DataSet, Split
from rankone.training.data.batches import mirrored
from rankone.training.embeddings import loaded
from rankone.training.encoder import Encoder
from rankone.training.processes import Resources
from rankone.training.recipe import Recipe
from rankone.training.selection import training_images
from rankone.training.short.learning import Examples

MAX_VIEWS: Final = 2048
"""Images that pass through the network. The map has at most 1,024 components."""
_MIN_PER_CLASS: Final = 4
"""Held-out images of a class, on average: fewer do not show how a class varies."""
_MANY_PER_CLASS: Final = 8
"""Images of a class, on average, of which one view each will do."""
_NUM_VIEWS: Final = 4
_CROPPED: Final = 0.8
"""Side of a cropped view, as a part of the image's."""

Views = Callable[[Tensor], Iterator[Tensor]]
"""Preprocessed images (b, 3, S, S) to the views of them that are learned from, each of the same shape."""


def as_they_are(images: Tensor) -> Iterator[Tensor]:
    """The images themselves."""
    yield images


def one_view(images: Tensor) -> Iterator[Tensor]:
    """Their middle, mirrored."""
    yield mirrored(_cropped(images, 0.5))


def four_views(images: Tensor) -> Iterator[Tensor]:
    """As they are, mirrored, and both ways cropped, at opposite corners."""
    yield images
    yield mirrored(images)
    yield _cropped(images, 0.0)
    yield mirrored(_cropped(images, 1.0))


@dataclass(frozen=True)
class ToLearnFrom:
    """Images, and in which views they are learned from; `source` says it to the user."""

    images: Split
    views: Views
    source: str
    has_classes: bool = True


def images_of_run(data: DataSet, recipe: Recipe) -> ToLearnFrom:
    """The images for the network of a run: held-out or validation images if there are enough, else all, cropped."""
    chosen = training_images(data, recipe)
    held_out = None if recipe.protocol == "paper" else chosen.held_out
    if held_out is not None and len(held_out) >= _MIN_PER_CLASS * len(set(held_out.labels)):
        images = held_out.spaced(MAX_VIEWS)
        return ToLearnFrom(images, as_they_are, f"{len(images):,} images that did not train the network")
    everything = chosen.fitted if held_out is None else chosen.fitted + held_out
    if len(everything) >= _MANY_PER_CLASS * len(set(everything.labels)):
        images = everything.spaced(MAX_VIEWS)
        return ToLearnFrom(images, one_view, f"{len(images):,} training images, cropped and mirrored")
    images = everything.spaced(MAX_VIEWS // _NUM_VIEWS)
    return ToLearnFrom(images, four_views, f"{len(images):,} training images, each also cropped and mirrored")


def images_of_bundle(data: DataSet, manifest: Manifest) -> ToLearnFrom:
    """The images for the network of a bundle: as `images_of_run` if `data` trained it, else the training images of `data`."""
    trained_on = manifest.dataset
    if trained_on is not None and (trained_on.name, trained_on.num_train) == (data.name, len(data.train)):
        return images_of_run(data, Recipe.model_validate(manifest.recipe))
    unseen = data.train if data.validation is None else data.train + data.validation
    images = unseen.spaced(MAX_VIEWS)
    return ToLearnFrom(images, as_they_are, f"{len(images):,} images of {data.name}, which did not train the network")


def without_classes(images: Split) -> ToLearnFrom:
    """Images of unknown classes, in four views each."""
    chosen = images.spaced(MAX_VIEWS // _NUM_VIEWS)
    source = f"{len(chosen):,} images without classes, each also cropped and mirrored"
    return ToLearnFrom(chosen, four_views, source, has_classes=False)


@torch.no_grad()
def embedded(
    network: Network, chosen: ToLearnFrom, spec: Preprocessing, resources: Resources, title: str = "short embeddings"
) -> Examples:
    """The embeddings of the images, or of their views, in float32 as the bundle will compute them.

    Raises:
        DataError: a file that cannot be read as an image.
        Interrupted: a stop was requested.
    """
    encoder = Encoder(network, resources.processes.device)
    network.eval()
    rows, images, first = [], [], 0
    for batch in loaded(chosen.images, spec, resources, title):
        for view in chosen.views(batch):
            resources.check_stop("stopped while learning short embeddings")
            rows.append(network.embedding_of(encoder(view)).cpu().numpy())
            images.append(np.arange(first, first + len(batch)))
        first += len(batch)
    places = np.concatenate(images)
    labels = np.array(chosen.images.labels)[places] if chosen.has_classes else None
    return Examples(np.concatenate(rows), places, labels, chosen.source)


def _cropped(images: Tensor, place: float) -> Tensor:
    """A square from the top left (place 0) to the bottom right (1), enlarged to the size of the images."""
    size = images.shape[-1]
    kept = round(_CROPPED * size)
    start = round(place * (size - kept))
    square = images[..., start : start + kept, start : start + kept]
    return F.interpolate(square, (size, size), mode="bilinear", align_corners=False)
