"""What every backbone is: layers without a head, and a 1 x 1 convolution behind those that have many channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from rankone.model.errors import RankoneError
from rankone.model.statistics import local_features


class WeightsError(RankoneError, ValueError):
    """A backbone or its weights are not available; the message says what to do."""


class Backbone(nn.Module):
    """Layers without a head: (B, 3, S, S) normalized images -> (B, N, channels) local features, N = (S / stride)^2.

    The layers may be a transformer's too. They are called `convolutions` as in the weights of every bundle.

    Attributes:
        channels: D of the local features.
        stride: pixels between two locations.
        bottleneck: the 1 x 1 convolution with batch norm and ReLU of `reduce_to`, if there is one.
    """

    def __init__(self, layers: nn.Module, channels: int, stride: int) -> None:
        super().__init__()
        self.convolutions = layers
        self.channels = channels
        self.stride = stride
        self.bottleneck: nn.Sequential | None = None

    def forward(self, images: Tensor) -> Tensor:
        features_BND = self.locations(images)
        if self.bottleneck is None:
            return features_BND
        return self.bottleneck(features_BND.transpose(1, 2)).transpose(1, 2)  # type: ignore[no-any-return]

    def locations(self, images: Tensor) -> Tensor:
        """The local features before they are reduced."""
        return local_features(self.convolutions(images))

    def reduce_to(self, channels: int, generator: torch.Generator) -> None:
        """Puts a 1 x 1 convolution, batch norm and ReLU behind the layers, if these have more than `channels` channels.

        A Gram matrix of 2,048 channels holds four million numbers. Source: Li et al., Towards Faster Training of Global
        Covariance Pooling Networks by Iterative Matrix Square Root Normalization, 2018, section 4.1. A location is a position
        of a sequence here, so that tokens are reduced like pixels.
        """
        if self.channels <= channels:
            return
        # a convolution that is made the usual way draws from the global generator
        convolution = skip_init(nn.Conv1d, self.channels, channels, kernel_size=1, bias=False)
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu", generator=generator)
        self.bottleneck = nn.Sequential(convolution, nn.BatchNorm1d(channels), nn.ReLU())
        self.channels = channels
