"""The backbones of timm, `timm/NAME`: convolutional networks by their last map, transformers by their patch tokens.

Source: Wightman, PyTorch Image Models, https://github.com/huggingface/pytorch-image-models. DINOv2 is
`timm/vit_small_patch14_dinov2`, and with register tokens `timm/vit_small_patch14_reg4_dinov2`.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Final

from torch import Tensor, nn

from rankone.model.backbone.base import Backbone, WeightsError
from rankone.model.statistics import local_features

PREFIX: Final = "timm/"
_POSITIONS: Final = "pos_embed"


class TimmBackbone(Backbone):
    """A network of timm without its head. Class and register tokens are dropped: they are no locations."""

    def __init__(self, layers: nn.Module) -> None:
        channels: Any = layers.num_features
        info: Any = layers.feature_info
        super().__init__(layers, channels, info[-1]["reduction"])

    def locations(self, images: Tensor) -> Tensor:
        layers: Any = self.convolutions
        found: Tensor = layers.forward_features(images)
        if found.dim() == 3:
            return found[:, getattr(layers, "num_prefix_tokens", 0) :]
        if getattr(layers, "output_fmt", "NCHW") == "NHWC":
            return found.flatten(1, 2)
        return local_features(found)


def timm_backbone(name: str, size: int, *, pretrained: bool = False) -> TimmBackbone:
    """The network `name` of timm for images of `size` x `size` pixels; its positions, if it has any, fit that size.

    Raises:
        WeightsError: timm is not installed or has no such network, or the weights cannot be downloaded.
    """
    timm, known = _library(), _known(name)
    if pretrained and not known.has_weights:
        raise WeightsError(f"timm has no weights of {name}; give a file (--weights PATH), or --weights random")
    options = {"img_size": size} if known.fixed_input_size else {}
    try:
        return TimmBackbone(timm.create_model(name, pretrained=pretrained, num_classes=0, **options))
    except Exception as error:  # of the hub, its HTTP client or the network itself: they share no class
        problem = "its weights could not be downloaded" if pretrained else f"it does not take images of {size} pixels"
        raise WeightsError(f"timm/{name}: {problem} ({error})") from error


def expected_colors(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation by channel that the weights of timm's `name` expect."""
    known = _known(name)
    return tuple(known.mean), tuple(known.std)


def fitted(state: Mapping[str, Tensor], backbone: Backbone) -> dict[str, Tensor]:
    """The weights of a file, their table of positions resampled where the network has another number of patches."""
    layers: Any = backbone.convolutions
    found, wanted = state.get(_POSITIONS), getattr(layers, _POSITIONS, None)
    if found is None or wanted is None or found.shape == wanted.shape or found.dim() != 3:
        return dict(state)
    from timm.layers.pos_embed import resample_abs_pos_embed

    prefix = 0 if getattr(layers, "no_embed_class", False) else layers.num_prefix_tokens
    grid = list(layers.patch_embed.grid_size)
    return {**state, _POSITIONS: resample_abs_pos_embed(found, grid, num_prefix_tokens=prefix)}


def weights_at_hand(name: str) -> bool:
    """Whether the weights of timm's `name` are in the cache of the hub."""
    known = _known(name)
    if not known.hf_hub_id:
        return False
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(known.hf_hub_id, "model.safetensors"), str)


def _known(name: str) -> Any:
    """What timm knows of the network `name`; raises WeightsError if that is nothing."""
    timm = _library()
    known = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    if known is None:
        close = ", ".join(f"{PREFIX}{other}" for other in get_close_matches(name, timm.list_models()))
        raise WeightsError(f"timm has no network {name!r}" + (f"; similar: {close}" if close else ""))
    return known


def _library() -> Any:
    try:
        import timm
    except ModuleNotFoundError as error:
        if error.name != "timm":
            raise
        raise WeightsError("backbones named timm/… need timm: pip install 'rankone[timm]'") from error
    return timm
