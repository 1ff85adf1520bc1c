"""A backbone of a single layer, for tests of how networks are trained, and not of what they are."""

from __future__ import annotations

from torch import nn

from rankone.model.backbone import Backbone


def one_layer(channels: int = 512) -> Backbone:
    """Channels at a stride of 16, as many as VGG16's if not given, from one convolution."""
    return Backbone(nn.Sequential(nn.Conv2d(3, channels, 16, stride=16), nn.ReLU()), channels=channels, stride=16)
