"""Local features that are computed once, for many networks whose backbone is the same and stays as it is."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from rankone.model.backbone import Backbone


class RememberedFeatures(Backbone):
    """A backbone that keeps the local features of every image it has seen, up to `max_bytes`; further ones are computed anew.

    Only right while its weights do not change: for evaluation, and for training that leaves them alone.
    """

    def __init__(self, backbone: Backbone, max_bytes: int = 2 << 30) -> None:
        super().__init__(backbone.convolutions, backbone.channels, backbone.stride)
        self._left = max_bytes
        self._kept: dict[bytes, Tensor] = {}

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        keys = [hashlib.blake2b(image.numpy().tobytes(), digest_size=16).digest() for image in images.cpu()]
        unknown = [number for number, key in enumerate(keys) if key not in self._kept]
        computed = dict(zip(unknown, super().forward(images[unknown]), strict=True)) if unknown else {}
        for number, features_ND in computed.items():
            size = features_ND.numel() * features_ND.element_size()
            if size <= self._left:
                self._left -= size
                self._kept[keys[number]] = features_ND.clone()
        return torch.stack(
            [computed[number] if number in computed else self._kept[key] for number, key in enumerate(keys)]
        )
