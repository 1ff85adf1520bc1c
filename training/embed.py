"""Images on disk as a network that is not being trained represents them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from model.errors import Interrupted
from model.network import Network
from model.preprocessing import Preprocessing
from training.datasets import Split
from training.images import batches, in_order, mirrored
from training.interrupt import StopRequest

BATCH_SIZE = 16
"""Images a forward without gradients: fills two cores or a GPU, and fits either's memory at 448 x 448."""


@torch.no_grad()
def represent(
    network: Network,
    split: Split,
    spec: Preprocessing,
    *,
    mirror: bool = False,
    device: str = "cpu",
    workers: int = 0,
    stop: StopRequest | None = None,
    kept: Path | None = None,
    description: str = "embedding",
) -> Tensor:
    """What the classifier reads of the images of `split`, (n, d) on `device`; of their mirror images with `mirror`.

    `network.embedding_of` makes embeddings of it.

    With a directory `kept`, every batch is kept there as it is done, and those that are there are not computed again.

    Raises:
        DataError: a file that cannot be read as an image.
        Interrupted: `stop` was requested.
    """
    network.eval()
    groups = in_order(len(split), BATCH_SIZE)
    done = {number: rows for number in range(len(groups)) if (rows := _kept(kept, number)) is not None}
    missing = [number for number in range(len(groups)) if number not in done]
    loaded = batches(split, spec, [groups[number] for number in missing], workers=workers)
    progress = track(zip(missing, loaded, strict=True), description=description, total=len(groups), completed=len(done))
    for number, images in progress:
        if stop:
            raise Interrupted("stopped while embedding")
        done[number] = network.represent((mirrored(images) if mirror else images).to(device)).cpu()
        _keep(kept, number, done[number])
    return torch.cat([torch.empty(0, network.pooling.out_dim), *(done[number] for number in range(len(groups)))]).to(
        device
    )


def _kept(kept: Path | None, number: int) -> Tensor | None:
    path = None if kept is None else kept / f"{number:06d}.npy"
    return torch.from_numpy(np.load(path, allow_pickle=False)) if path is not None and path.exists() else None


def _keep(kept: Path | None, number: int, rows: Tensor) -> None:
    if kept is None:
        return
    kept.mkdir(parents=True, exist_ok=True)
    partial = kept / f"{number:06d}.partial"
    with partial.open("wb") as file:
        np.save(file, rows.numpy())
    partial.replace(kept / f"{number:06d}.npy")
