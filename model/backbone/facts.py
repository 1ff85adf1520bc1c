"""What a backbone costs and gives: by shapes alone, on torch's meta device, and by the clock of this machine."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median

import torch

from rankone.model.backbone.build import build_backbone, imagenet_at_hand


@dataclass(frozen=True)
class Facts:
    """Of a backbone at a size.

    Attributes:
        channels: D of the local features before they are reduced.
        stride: pixels between two locations.
        locations: N of an image.
        parameters: without a head and the reduction.
        gflop: of one image, a multiplication and an addition counted as two.
        at_hand: whether the weights called `imagenet` are on this machine.
    """

    name: str
    size: int
    channels: int
    stride: int
    locations: int
    parameters: int
    gflop: float
    at_hand: bool


@torch.no_grad()
def facts_of(name: str, size: int) -> Facts:
    """The facts of a backbone.

    Raises:
        WeightsError: an unknown backbone.
    """
    from torch.utils.flop_counter import FlopCounterMode  # which imports triton

    with torch.device("meta"):
        backbone = build_backbone(name, "random", size=size, reduce=None).to("meta").eval()
        with FlopCounterMode(display=False) as counter:
            features_BND = backbone(torch.empty(1, 3, size, size))
    return Facts(
        name=name,
        size=size,
        channels=features_BND.shape[2],
        stride=backbone.stride,
        locations=features_BND.shape[1],
        parameters=sum(parameter.numel() for parameter in backbone.parameters()),
        gflop=counter.get_total_flops() / 1e9,
        at_hand=imagenet_at_hand(name),
    )


@torch.inference_mode()
def milliseconds(name: str, size: int, rounds: int = 3) -> float:
    """The median time of one image on this machine's CPU, with random weights; raises WeightsError as `facts_of` does."""
    backbone = build_backbone(name, "random", size=size, reduce=None).eval().to(memory_format=torch.channels_last)
    image = torch.zeros(1, 3, size, size).to(memory_format=torch.channels_last)
    seconds = []
    for _ in range(1 + rounds):
        started = time.perf_counter()
        backbone(image)
        seconds.append(time.perf_counter() - started)
    return 1e3 * median(seconds[1:])
