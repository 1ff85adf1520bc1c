"""The convolutional backbone: images -> local features, one row a location of the last convolution."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from rankone.model.errors import RankoneError

_CONV5_3_RELU: Final = 30


class WeightsError(RankoneError, ValueError):
    """The weights that were asked for cannot be had; the message says what to do."""


class Backbone(nn.Module):
    """Convolutions without a head: (B, 3, S, S) normalized images -> (B, N, channels) local features, N = (S / stride)^2.

    Attributes:
        channels: D of the local features.
        stride: pixels between two locations.
    """

    def __init__(self, convolutions: nn.Sequential, channels: int, stride: int) -> None:
        super().__init__()
        self.convolutions = convolutions
        self.channels = channels
        self.stride = stride

    def forward(self, images: Tensor) -> Tensor:
        return self.convolutions(images).flatten(2).transpose(1, 2)  # type: ignore[no-any-return]


def vgg16() -> Backbone:
    """VGG16 up to `conv5_3` after ReLU, its weights not set: 512 channels, stride 16, so 28 x 28 locations at 448 x 448."""
    with torch.device("meta"):  # its classifier, 124 of 138 million weights, is never made
        whole = torchvision.models.vgg16(weights=None, init_weights=False)
    return Backbone(whole.features[:_CONV5_3_RELU].to_empty(device="cpu"), channels=512, stride=16)


BACKBONES: Final[Mapping[str, Callable[[], Backbone]]] = {"vgg16": vgg16}

_IMAGENET: Final = {"vgg16": torchvision.models.VGG16_Weights.IMAGENET1K_V1}


def build_backbone(name: str = "vgg16", weights: str = "imagenet", seed: int = 0) -> Backbone:
    """A backbone with its weights.

    Args:
        name: a key of `BACKBONES`.
        weights: `imagenet` (through torchvision, which downloads them once), `random` (drawn from `seed`), or the path of
            a `.safetensors` file or a state dict saved by `torch.save`, with torchvision's names for the layers.
        seed: draws random weights.

    Raises:
        WeightsError: an unknown backbone, or weights that cannot be had or do not fit. Never a silent fallback.
    """
    if name not in BACKBONES:
        raise WeightsError(f"unknown backbone {name!r}; known: {', '.join(BACKBONES)}")
    backbone = BACKBONES[name]()
    if weights == "random":
        _draw(backbone, torch.Generator().manual_seed(seed))
    else:
        _load(backbone, _imagenet(name) if weights == "imagenet" else _from_file(Path(weights)), weights)
    return backbone


def _draw(backbone: Backbone, generator: torch.Generator) -> None:
    """He et al., Delving Deep into Rectifiers, 2015, by fan-out, and no biases: torchvision's choice for VGG."""
    for layer in backbone.convolutions:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu", generator=generator)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)


def _imagenet(name: str) -> Mapping[str, Tensor]:
    try:
        return dict(_IMAGENET[name].get_state_dict(progress=True, check_hash=True))
    except (OSError, RuntimeError) as error:  # no network, a proxy, a full disk; RuntimeError is a hash that differs
        raise WeightsError(
            f"the ImageNet weights of {name} could not be downloaded ({error}). Download them elsewhere and give the file "
            "(--weights PATH), or train from random weights (--weights random)."
        ) from error


def _from_file(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise WeightsError(f"weights must be 'imagenet', 'random' or a file; there is no file {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, SafetensorError, OSError, RuntimeError, ValueError, EOFError) as error:
        raise WeightsError(f"{path} is not a .safetensors file or a plain state dict: {error}") from error
    if not isinstance(state, dict):
        raise WeightsError(f"{path} holds a {type(state).__name__}, not a state dict")
    return state


def _load(backbone: Backbone, state: Mapping[str, Tensor], source: str) -> None:
    """Takes torchvision's names (`features.0.weight`) and the bare ones (`0.weight`); a classifier is left aside."""
    wanted = backbone.convolutions.state_dict()
    found = {key: state.get(f"features.{key}", state.get(key)) for key in wanted}
    if missing := [key for key, value in found.items() if value is None]:
        raise WeightsError(
            f"the weights in {source} lack {len(missing)} of {len(wanted)} tensors, the first {missing[0]}"
        )
    try:
        backbone.convolutions.load_state_dict(found)
    except RuntimeError as error:
        raise WeightsError(f"the weights in {source} do not fit: {error}") from error
