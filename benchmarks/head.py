"""The time of the head (pooling, normalization, element-wise step) against the backbone, 448 x 448, float32, on the CPU.

Target: at most 1.5 % of the backbone's time, for one image and for a batch of 8.
"""

from __future__ import annotations

from functools import partial

import torch

from benchmarks.timing import compare, console, machine, print_table
from rankone.model.network import build_network

SIZE = 448
TARGET = 0.015
RIVAL = "backbone (VGG16)"


@torch.inference_mode()
def main() -> None:
    """Prints, for batches of 1 and 8, the time of the backbone and of the default system's head."""
    console.print(f"[bold]head[/bold]: {machine()}")
    network = build_network(weights="random").eval()
    for batch in (1, 8):
        images = torch.randn(batch, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
        contenders = {
            RIVAL: partial(network.backbone, images),
            "head (cbp-run)": partial(network.pooling, network.backbone(images)),
        }
        timings = compare(contenders, rounds=20 // batch + 5)
        print_table(f"batch {batch}", timings, RIVAL, lambda ratio: f"{ratio:.2%} (at most {TARGET:.1%})")
