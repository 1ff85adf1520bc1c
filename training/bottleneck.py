"""The 1 x 1 convolution behind a backbone of many channels, before it was trained."""

from __future__ import annotations

from typing import Final

import torch
from torch import nn

from rankone.model.preprocessing import Preprocessing
from rankone.training.data import Split
from rankone.training.data.batches import batches, in_order
from rankone.training.encoder import Encoder
from rankone.training.processes import Resources

_NUM_IMAGES: Final = 256
_BATCH_SIZE: Final = 16


@torch.no_grad()
def centre_bottleneck(encoder: Encoder, split: Split, spec: Preprocessing, resources: Resources) -> None:
    """Sets the batch norm of the bottleneck, if there is one, to mean and variance over images of `split`, at most 256.

    The convolution is drawn at random, and local features behind a ReLU have a large mean: as drawn, nearly every channel would
    be positive everywhere or nowhere, and ReLU would leave little to tell images apart.
    """
    if encoder.network.backbone.bottleneck is None:
        return
    _, norm, _ = encoder.network.backbone.bottleneck
    assert isinstance(norm, nn.BatchNorm1d)
    encoder.network.eval()
    momentum, norm.momentum = norm.momentum, None  # the plain mean over all batches
    norm.reset_running_stats()
    norm.train()
    count = min(len(split), _NUM_IMAGES)
    whole = (
        count - count % _BATCH_SIZE or count
    )  # batch norm averages batches, which must be of one size for a mean of images
    chosen = split.spaced(whole)
    for images in batches(chosen, spec, in_order(len(chosen), _BATCH_SIZE), workers=resources.workers):
        encoder.features(images)
    norm.eval()
    norm.momentum = momentum
    resources.processes.broadcast(norm.buffers())
