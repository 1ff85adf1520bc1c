"""Torchvision's backbones by name, their weights not set.

VGG16 is built here, and torchvision imported for the others alone: its import takes three seconds.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise, takewhile
from typing import Final

from torch import nn
from torch.nn.utils import skip_init

from rankone.model.backbone.base import Backbone

_VGG16: Final = ((3, 64, 64), (64, 128, 128), (128, 256, 256, 256), (256, 512, 512, 512), (512, 512, 512, 512))
"""Channels before and after each convolution, in blocks with a max-pool between them."""
_HEAD: Final = ("avgpool", "fc", "classifier")
"""Where the head of a torchvision network begins; what a location is lies before it."""

_SHAPES: Final[Mapping[str, tuple[int, int]]] = {
    "vgg16_bn": (512, 16),
    "vgg19": (512, 16),
    "resnet18": (512, 32),
    "resnet34": (512, 32),
    "resnet50": (2048, 32),
    "resnet101": (2048, 32),
    "convnext_tiny": (768, 32),
    "convnext_base": (1024, 32),
    "efficientnet_v2_s": (1280, 32),
    "mobilenet_v3_large": (960, 32),
    "swin_t": (768, 32),
    "swin_b": (1024, 32),
}
"""Channels and stride of the last map."""


def vgg16() -> Backbone:
    """VGG16 up to `conv5_3` after ReLU, its weights not set: 512 channels, stride 16, so 28 x 28 locations at 448 x 448.

    With torchvision's names for the layers, those of its `features`.
    """
    layers: list[nn.Module] = []
    for block in _VGG16:
        for channels, next_channels in pairwise(block):
            convolution = skip_init(nn.Conv2d, channels, next_channels, kernel_size=3, padding=1)
            layers += [convolution, nn.ReLU(inplace=True)]
        layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
    return Backbone(nn.Sequential(*layers[:-1]), channels=512, stride=16)


def _from_torchvision(name: str) -> Backbone:
    """The network `name` up to its last map, with torchvision's names for the layers; its weights are drawn by torchvision.

    Of VGG without the last max-pool, as the paper has it.
    """
    import torchvision

    whole = torchvision.models.get_model(name, weights=None)
    layers = OrderedDict(takewhile(lambda child: child[0] not in _HEAD, whole.named_children()))
    if name.startswith("vgg"):
        layers["features"] = layers["features"][:-1]
    channels, stride = _SHAPES[name]
    return Backbone(nn.Sequential(layers), channels, stride)


BACKBONES: Final[dict[str, Callable[[], Backbone]]] = {
    "vgg16": vgg16,
    **{name: partial(_from_torchvision, name) for name in _SHAPES},
}
