"""A backbone of a single layer, for tests of how networks are trained, and not of what they are."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from torch import nn

import model.backbone
from model.backbone import Backbone


def one_layer() -> Backbone:
    """512 channels at a stride of 16, as VGG16's, from one convolution."""
    return Backbone(nn.Sequential(nn.Conv2d(3, 512, 16, stride=16), nn.ReLU()), channels=512, stride=16)


@pytest.fixture(scope="module")
def light_backbone() -> Iterator[None]:
    """Within the module, `vgg16` is `one_layer`. Not for modules that use a run or bundle of the whole session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(model.backbone.BACKBONES, "vgg16", one_layer)
        yield
