"""A backbone with its weights: downloaded once, drawn from a seed, or read from a file."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from rankone.model.backbone.base import Backbone, WeightsError
from rankone.model.backbone.from_timm import (
    PREFIX,
    TimmBackbone,
    expected_colors,
    fitted,
    timm_backbone,
    weights_at_hand,
)
from rankone.model.backbone.table import BACKBONES

REDUCED: Final = 512
"""Channels to which a backbone with more is reduced, as many as VGG16 has."""
_FEATURES: Final = "features."


def build_backbone(
    name: str = "vgg16",
    weights: str = "imagenet",
    seed: int = 0,
    *,
    size: int = 448,
    reduce: int | None = REDUCED,
) -> Backbone:
    """A backbone with its weights.

    Args:
        name: a key of `BACKBONES`, or `timm/NAME`.
        weights: `imagenet` (those that torchvision or timm publishes under the name, downloaded once), `random` (drawn from
            `seed`), or the path of a `.safetensors` file or a state dict saved by `torch.save`, with the library's names.
        seed: draws random weights.
        size: side of the images, on which the positions of a vision transformer depend.
        reduce: where a network has more channels, a 1 x 1 convolution reduces them to this number; None for never.

    Raises:
        WeightsError: an unknown backbone, or weights that cannot be had or do not fit. Never a silent fallback.
    """
    backbone = _drawn(name, seed, size) if weights == "random" else _loaded(name, weights, size)
    if reduce is not None:
        backbone.reduce_to(reduce, torch.Generator().manual_seed(seed))
    return backbone


def colors_of(name: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and standard deviation by channel of the images that a network of timm learned from; None for torchvision's.

    These all learned from images with ImageNet's.
    """
    return expected_colors(name.removeprefix(PREFIX)) if name.startswith(PREFIX) else None


def imagenet_at_hand(name: str) -> bool:
    """Whether the weights called `imagenet` of a backbone are on this machine already."""
    if name.startswith(PREFIX):
        return weights_at_hand(name.removeprefix(PREFIX))
    url: str = _published(name).url
    return (Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]).exists()


def _drawn(name: str, seed: int, size: int) -> Backbone:
    """Of VGG16, weights by ourselves; of the others, as their library draws them, and the global generator left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = _unset(name, size)
    if name == "vgg16":
        _draw(backbone, torch.Generator().manual_seed(seed))
    return backbone


def _loaded(name: str, weights: str, size: int) -> Backbone:
    if weights != "imagenet":
        backbone, state = _drawn(name, 0, size), _from_file(Path(weights))
        _load(backbone, fitted(state, backbone) if isinstance(backbone, TimmBackbone) else state, weights)
        return backbone
    if name.startswith(PREFIX):
        return timm_backbone(name.removeprefix(PREFIX), size, pretrained=True)
    backbone = _drawn(name, 0, size)
    _load(backbone, _imagenet(name), weights)
    return backbone


def _unset(name: str, size: int) -> Backbone:
    if name.startswith(PREFIX):
        return timm_backbone(name.removeprefix(PREFIX), size)
    if name not in BACKBONES:
        raise WeightsError(f"unknown backbone {name!r}; known: {', '.join(BACKBONES)}, {PREFIX}NAME")
    return BACKBONES[name]()


def _draw(backbone: Backbone, generator: torch.Generator) -> None:
    """He et al., Delving Deep into Rectifiers, 2015, by fan-out, and no biases: torchvision's choice for VGG."""
    for layer in backbone.convolutions.children():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu", generator=generator)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)


def _published(name: str) -> Any:
    """The first weights that torchvision published: ImageNet's, by the training of the network's paper."""
    import torchvision

    return next(iter(torchvision.models.get_model_weights(name)))


def _imagenet(name: str) -> Mapping[str, Tensor]:
    try:
        return dict(_published(name).get_state_dict(progress=True, check_hash=True))
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
    """Takes the library's names (`features.0.weight`) and the bare ones (`0.weight`); a classifier is left aside."""
    wanted = backbone.convolutions.state_dict()
    found = {key: state.get(f"{_FEATURES}{key}", state.get(key)) for key in wanted}
    if missing := [key for key, value in found.items() if value is None]:
        raise WeightsError(
            f"the weights in {source} lack {len(missing)} of {len(wanted)} tensors, the first {missing[0]}"
        )
    try:
        backbone.convolutions.load_state_dict(found)
    except RuntimeError as error:
        raise WeightsError(f"the weights in {source} do not fit: {error}") from error
