"""A network in training: its device, precision and memory layout, compiled or not; and its bottleneck before it is trained."""

from __future__ import annotations

from typing import Final, Literal

import torch
from torch import Tensor, nn

from rankone.model.engine.torch_engine import has_instructions
from rankone.model.errors import RankoneError
from rankone.model.network import Network
from rankone.model.preprocessing import Preprocessing
from rankone.training.data import Split
from rankone.training.data.batches import batches, in_order
from rankone.training.processes import Resources

_NUM_IMAGES: Final = 256
_BATCH_SIZE: Final = 16


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


@torch.no_grad()
def centre_bottleneck(encoder: Encoder, split: Split, spec: Preprocessing, resources: Resources) -> None:
    """Sets the batch norm of the bottleneck, if there is one, to mean and variance over images of `split`, at most 256.

    The convolution is drawn at random, and local features behind a ReLU have a large mean: as drawn, nearly every channel would
    be positive everywhere or nowhere, and ReLU would leave little to tell images apart.
    """
    if encoder.network.backbone.bottleneck is None:
        return
    _, norm, _ = encoder.network.backbone.bottleneck
    assert isinstance(norm, nn.BatchNorm1d)
    encoder.network.eval()
    momentum, norm.momentum = norm.momentum, None  # the plain mean over all batches
    norm.reset_running_stats()
    norm.train()
    count = min(len(split), _NUM_IMAGES)
    # batch norm averages batches, which must be of one size for a mean of images
    whole = count - count % _BATCH_SIZE or count
    chosen = split.spaced(whole)
    for images in batches(chosen, spec, in_order(len(chosen), _BATCH_SIZE), workers=resources.workers):
        encoder.features(images)
    norm.eval()
    norm.momentum = momentum
    resources.processes.broadcast(norm.buffers())
