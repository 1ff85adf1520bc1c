"""How an exported form is held against the network: on real images, in float64, at every batch size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rankone.model.bundle import ParityRecord
from rankone.model.errors import RankoneError
from rankone.model.network import Network

BATCH_SIZES: Final = (1, 2, 3, 7)
MIN_COSINE: Final = 0.99999
MAX_LOGIT_DIFFERENCE: Final = 1e-3
MIN_IMAGES: Final = max(BATCH_SIZES)

Outputs = tuple[npt.NDArray[np.floating], npt.NDArray[np.floating] | None]
Forward = Callable[[npt.NDArray[np.float32]], Outputs]


class ExportError(RankoneError, RuntimeError):
    """An exported form that differs from the network, or cannot be made; nothing was written."""


def check_parity(forward: Forward, reference: Outputs, images: npt.NDArray[np.float32]) -> ParityRecord:
    """Compares `forward` with the reference's outputs for `images` at every batch size.

    Raises:
        ExportError: a cosine under 0.99999, logits that differ by more than a thousandth of the largest, or a NaN.
    """
    cosines, differences = [], [0.0]
    for size in BATCH_SIZES:
        for start in range(0, len(images) - size + 1, size):
            rows = slice(start, start + size)
            embedding, logits = forward(images[rows])
            cosines.append(_cosine(embedding, reference[0][rows]))
            differences.append(_difference(logits, None if reference[1] is None else reference[1][rows]))
    cosine, difference = float(np.min(cosines)), float(np.max(differences))
    if not (cosine >= MIN_COSINE and difference <= MAX_LOGIT_DIFFERENCE):
        raise ExportError(
            f"an exported form differs from the network: cosine {cosine:.7f} (at least {MIN_COSINE}), "
            f"logits by {difference:.1e} of the largest (at most {MAX_LOGIT_DIFFERENCE})"
        )
    return ParityRecord(
        min_cosine=cosine, max_logit_difference=difference, batch_sizes=BATCH_SIZES, num_images=len(images)
    )


@torch.no_grad()  # inference mode would leave its mark on the weights, which come back from float64 as new ones
def reference_of(network: Network, images: npt.NDArray[np.float32]) -> Outputs:
    """The eager network's outputs in float64, image by image: what every exported form is held against."""
    network.double()
    try:
        rows = [as_arrays(network(torch.from_numpy(image[None]).double())) for image in images]
    finally:
        network.float()
    logits = [row[1] for row in rows if row[1] is not None]
    return np.concatenate([row[0] for row in rows]), np.concatenate(logits) if logits else None


def as_arrays(outputs: Tensor | tuple[Tensor, Tensor | None]) -> Outputs:
    """What a network or an exported form of it returned."""
    embedding, logits = (outputs, None) if isinstance(outputs, Tensor) else outputs
    return embedding.numpy(), None if logits is None else logits.numpy()


def _cosine(found: npt.NDArray[np.floating], expected: npt.NDArray[np.floating]) -> float:
    """The lowest cosine of the rows; two zero rows agree."""
    lengths = np.linalg.norm(found.astype(np.float64), axis=1) * np.linalg.norm(expected, axis=1)
    both_zero = ~found.any(1) & ~expected.any(1)
    products = (found.astype(np.float64) * expected).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.where(both_zero, 1.0, products / lengths).min())


def _difference(found: npt.NDArray[np.floating] | None, expected: npt.NDArray[np.floating] | None) -> float:
    """The largest difference of logits, relative to the largest logit (or 1); infinite where only one side has any."""
    if found is None or expected is None:
        return 0.0 if found is expected else np.inf
    return float(np.abs(found - expected).max() / max(1.0, np.abs(expected).max()))
