"""Statistics of local features: what a pooling system knows of an image.

The second-order ones are Gram matrices of the features as they are, centred, or with a constant channel 1 beside them: the
mean then stands in the row and column of that channel.

Shapes: B images, N locations, D channels; `features_BND` has one row a location.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from rankone.model.shared import at_least_float32, without_autocast


def local_features(map_BDHW: Tensor) -> Tensor:
    """The map of a convolutional network as local features, (B, D, H, W) -> (B, H W, D), one row a location."""
    if map_BDHW.dim() != 4:
        raise ValueError(f"a map must be (batch, channels, height, width), got shape {tuple(map_BDHW.shape)}")
    return map_BDHW.flatten(2).transpose(1, 2)


def gram(features_BND: Tensor) -> Tensor:
    """`F^T F / N`, (B, N, D) -> (B, D, D), in float32 or float64 whatever the features come in.

    F is scaled by 1/sqrt(N) before the product: summed first, the entries of a real image pass float16's 65,504.
    Source: Lin et al., Bilinear CNN Models for Fine-grained Visual Recognition, 2015, equation 1, averaged.
    """
    _check_features(features_BND)
    with without_autocast(features_BND):
        scaled_BND = at_least_float32(features_BND) * features_BND.shape[1] ** -0.5
        return torch.matmul(scaled_BND.transpose(1, 2), scaled_BND)


def covariance(features_BND: Tensor) -> Tensor:
    """`(F - mu)^T (F - mu) / N`, (B, N, D) -> (B, D, D): the mean is subtracted, no N x N matrix is made.

    Source: Li et al., Is Second-order Information Helpful for Large-scale Visual Recognition?, 2017, equation 1.
    """
    _check_features(features_BND)
    features_BND = at_least_float32(features_BND)
    return gram(features_BND - features_BND.mean(dim=1, keepdim=True))


def moment(features_BND: Tensor) -> Tensor:
    """`A^T A = [[1, mu^T], [mu, B]]` with `A = [1, F] / sqrt(N)`, (B, N, D) -> (B, D + 1, D + 1).

    Source: Gou et al., MoNet: Moments Embedding Network, 2018, equation 3.
    """
    return gram(_with_ones(features_BND, before=True))


def gaussian(features_BND: Tensor) -> Tensor:
    """`[[B, mu], [mu^T, 1]]`, (B, N, D) -> (B, D + 1, D + 1): the embedding of N(mu, Sigma), as B = Sigma + mu mu^T.

    Source: Wang et al., G2DeNet: Global Gaussian Distribution Embedding Network, 2017, equation 3.
    """
    return gram(_with_ones(features_BND, before=False))


class LocalFeatures(nn.Module):
    """`local_features` as a layer, (B, D, H, W) -> (B, H W, D): what a pooling needs in front of it in another network."""

    def forward(self, map_BDHW: Tensor) -> Tensor:
        return local_features(map_BDHW)


class Statistic(nn.Module):
    """A statistic as a layer.

    Attributes:
        order: 2 for a matrix (B, dim, dim), 1 for a vector (B, dim).
        added: dim - D.
    """

    order: ClassVar[int] = 2
    added: ClassVar[int] = 0


class Gram(Statistic):
    """`gram` as a layer, (B, N, D) -> (B, D, D)."""

    def forward(self, features_BND: Tensor) -> Tensor:
        return gram(features_BND)


class Covariance(Statistic):
    """`covariance` as a layer, (B, N, D) -> (B, D, D)."""

    def forward(self, features_BND: Tensor) -> Tensor:
        return covariance(features_BND)


class Moment(Statistic):
    """`moment` as a layer, (B, N, D) -> (B, D + 1, D + 1)."""

    added = 1

    def forward(self, features_BND: Tensor) -> Tensor:
        return moment(features_BND)


class Gaussian(Statistic):
    """`gaussian` as a layer, (B, N, D) -> (B, D + 1, D + 1)."""

    added = 1

    def forward(self, features_BND: Tensor) -> Tensor:
        return gaussian(features_BND)


class Maximum(Statistic):
    """The largest value of every channel, (B, N, D) -> (B, D)."""

    order = 1

    def forward(self, features_BND: Tensor) -> Tensor:
        _check_features(features_BND)
        return at_least_float32(features_BND).amax(dim=1)


class Sum(Statistic):
    """The sum of every channel, (B, N, D) -> (B, D)."""

    order = 1

    def forward(self, features_BND: Tensor) -> Tensor:
        _check_features(features_BND)
        return at_least_float32(features_BND).sum(dim=1)


def _with_ones(features_BND: Tensor, *, before: bool) -> Tensor:
    """A constant channel 1 before or behind the others."""
    _check_features(features_BND)
    features_BND = at_least_float32(features_BND)
    ones_BN1 = torch.ones_like(features_BND[:, :, :1])
    return torch.cat([ones_BN1, features_BND] if before else [features_BND, ones_BN1], dim=2)


def _check_features(features_BND: Tensor) -> None:
    if features_BND.dim() != 3:
        raise ValueError(f"local features must be (batch, locations, channels), got shape {tuple(features_BND.shape)}")
