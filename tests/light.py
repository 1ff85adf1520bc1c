"""A backbone of a single layer, for tests of how networks are trained, and not of what they are."""

from __future__ import annotations

from torch import nn

from rankone.model.backbone import Backbone


def one_layer() -> Backbone:
    """512 channels at a stride of 16, as VGG16's, from one convolution."""
    return Backbone(nn.Sequential(nn.Conv2d(3, 512, 16, stride=16), nn.ReLU()), channels=512, stride=16)
