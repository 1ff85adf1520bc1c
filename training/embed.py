"""Embeddings of images on disk by a network that is not being trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from rich.progress import track
from torch import Tensor

from model.errors import Interrupted
from model.network import Network
from model.preprocessing import Preprocessing
from training.images import batches, in_order, mirrored
from training.interrupt import StopRequest

BATCH_SIZE = 16
"""Images a forward without gradients: fills two cores or a GPU, and fits either's memory at 448 x 448."""


@torch.no_grad()
def embed(
    network: Network,
    paths: Sequence[Path],
    spec: Preprocessing,
    *,
    mirror: bool = False,
    device: str = "cpu",
    workers: int = 0,
    stop: StopRequest | None = None,
    description: str = "embedding",
) -> Tensor:
    """The embeddings of the images in `paths`, (n, d) on `device`; of their mirror images with `mirror`.

    Raises:
        DataError: a file that cannot be read as an image.
        Interrupted: `stop` was requested.
    """
    network.eval()
    groups = in_order(len(paths), BATCH_SIZE)
    rows = [torch.empty(0, network.pooling.out_dim, device=device)]
    loaded = batches(paths, spec, groups, workers=workers)
    for images in track(loaded, description=description, total=len(groups), disable=len(groups) < 2):
        if stop:
            raise Interrupted("stopped while embedding")
        rows.append(network.embed((mirrored(images) if mirror else images).to(device)))
    return torch.cat(rows)
