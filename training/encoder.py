"""A network in training: its device, precision and memory layout, compiled or not."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rankone.model.engine.torch_engine import has_instructions
from rankone.model.errors import RankoneError
from rankone.model.network import Network


class PrecisionError(RankoneError, ValueError):
    """A precision that the device does not support."""


class Encoder:
    """Images -> what the classifier reads. The backbone in its precision, channels last; everything after it in float32.

    Sums of squares over 784 locations follow the backbone: in bfloat16, whose step is 1/256, they would lose the differences
    between images. Convolutions read channels last without reordering, on CPUs and on tensor cores. The network is moved to
    the device; with `compile`, the backbone goes through `torch.compile`.

    Raises:
        PrecisionError: a GPU without bfloat16.
    """

    def __init__(
        self,
        network: Network,
        device: torch.device,
        precision: Literal["float32", "bfloat16"] = "float32",
        *,
        compile: bool = False,  # noqa: A002
    ) -> None:
        on_gpu = device.type == "cuda"
        if precision == "bfloat16" and on_gpu and not torch.cuda.is_bf16_supported(including_emulation=False):
            raise PrecisionError(f"{torch.cuda.get_device_name(device)} has no bfloat16: use precision float32")
        if precision == "float32" and on_gpu:
            torch.backends.cudnn.allow_tf32 = False  # 10 bits would not be float32
        self.network = network.to(device)
        self.device, self.precision = device, precision
        network.backbone.to(memory_format=torch.channels_last)
        self._backbone = torch.compile(network.backbone) if compile else network.backbone

    def __call__(self, images: Tensor) -> Tensor:
        return self.network.represent_features(self.features(images))

    def features(self, images: Tensor) -> Tensor:
        """Images -> local features, (B, N, D) float32."""
        images = images.to(self.device, memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            return self._backbone(images).float()  # type: ignore[no-any-return]

    def classify(self, images: Tensor) -> Tensor:
        """Images -> logits."""
        assert self.network.classifier is not None
        return self.network.classifier(self(images))  # type: ignore[no-any-return]

    @property
    def description(self) -> str:
        """Which part runs in which precision, and why."""
        if self.precision == "float32":
            return "backbone and head in float32, as the recipe says"
        text = (
            "backbone in bfloat16, as the recipe says; Gram matrix, normalization, sketch and classifier in float32: "
            "sums of 784 squares need more than bfloat16's 8 bits"
        )
        if self.device.type == "cpu" and not has_instructions("bfloat16"):
            text += ". This CPU has no instructions for bfloat16, so a step takes about 17 times as long: use float32"
        return text
