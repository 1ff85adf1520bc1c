"""The effect of RUN on the singular values of local features, image by image.

RUN on the Gram matrix and on the features have the same spectrum (Algorithm 3 of the paper); here it works on F / sqrt(N).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from rankone.model.network import Network
from rankone.model.normalization import RankOneUpdate
from rankone.model.preprocessing import Preprocessing
from rankone.training.data import Split
from rankone.training.data.batches import batches, in_order
from rankone.training.metrics import Doubles
from rankone.training.progress import progress

NUM_IMAGES: Final = 64
_BATCH_SIZE: Final = 8


@dataclass(frozen=True)
class Spectrum:
    """Descending singular values of `F / sqrt(N)`, one row an image: (images, min(N, D)) before and after RUN."""

    before: Doubles
    after: Doubles
    eta: float
    iterations: int
    own: bool
    """Whether this is the network's own RUN; if not, it shows what RUN with the paper's defaults would do."""


@torch.no_grad()
def spectrum(network: Network, split: Split, spec: Preprocessing, *, device: str = "cpu") -> Spectrum:
    """Of up to 64 evenly spaced images of `split`, by the network's own RUN, or the paper's if it has none."""
    network.to(device).eval()
    update, own = _update_of(network)
    images = split.spaced(NUM_IMAGES)
    groups = in_order(len(images), _BATCH_SIZE)
    pairs = [
        singular_values(network.backbone(batch.to(device)), update.to(device))
        for batch in progress(batches(images, spec, groups), [len(group) for group in groups], "singular values")
    ]
    before, after = (np.concatenate([pair[side].cpu().numpy() for pair in pairs]) for side in (0, 1))
    return Spectrum(before, after, eta=update.eta, iterations=update.iterations, own=own)


def singular_values(features_BND: Tensor, update: RankOneUpdate) -> tuple[Tensor, Tensor]:
    """Of local features scaled by `1 / sqrt(N)`, before and after `update`: twice (B, min(N, D)) float64, descending."""
    scaled_BND = features_BND * features_BND.shape[1] ** -0.5
    return torch.linalg.svdvals(scaled_BND.double()), torch.linalg.svdvals(update.features(scaled_BND).double())


def _update_of(network: Network) -> tuple[RankOneUpdate, bool]:
    """The network's RUN and True, or the paper's and False. On features, without the row that some statistics add."""
    channels, layer = network.backbone.channels, network.pooling.normalization
    if not isinstance(layer, RankOneUpdate):
        return RankOneUpdate(channels).eval(), False
    same = layer if layer.dim == channels else RankOneUpdate(channels, layer.eta, layer.iterations)
    return same.eval(), True
