"""The check of an exported form: on real images, against the network in float64, at several batch sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import torch

from rankone.model.bundle import ParityRecord
from rankone.model.engine import Outputs
from rankone.model.engine.base import Images
from rankone.model.engine.check import largest_difference, lowest_cosine
from rankone.model.errors import RankoneError
from rankone.model.network import Network

BATCH_SIZES: Final = (1, 2, 3, 7)
MIN_COSINE: Final = 0.99999
MAX_LOGIT_DIFFERENCE: Final = 1e-3
MIN_IMAGES: Final = max(BATCH_SIZES)

EngineRun = Callable[..., Outputs]
"""An engine's `run`."""


class ExportError(RankoneError, RuntimeError):
    """A form cannot be exported, or differs from the network; nothing was written."""


def check_parity(run: EngineRun, reference: Outputs, images: Images) -> ParityRecord:
    """Compares an engine's outputs with the reference for `images`, (n, 3, size, size), at every batch size.

    Raises:
        ExportError: a cosine under 0.99999, logits that differ by more than a thousandth of the largest, or a NaN.
    """
    cosines, shorts, differences = [], list[float](), [0.0]
    wants_features = reference.features is not None
    for size in BATCH_SIZES:
        for start in range(0, len(images) - size + 1, size):
            rows = slice(start, start + size)
            found = run(images[rows], features=True) if wants_features else run(images[rows])
            cosines.append(lowest_cosine(found.embedding, reference.embedding[rows]))
            expected = reference.at(rows)
            differences.append(largest_difference(found.logits, expected.logits))
            if found.short is not None and expected.short is not None:
                shorts.append(lowest_cosine(found.short, expected.short))
            elif found.short is not expected.short:
                shorts.append(np.nan)
            if found.features is not None and expected.features is not None:
                cosines.append(lowest_cosine(found.features.reshape(size, -1), expected.features.reshape(size, -1)))
            elif found.features is not expected.features:
                cosines.append(np.nan)
    cosine, difference = float(np.min(cosines)), float(np.max(differences))
    short = float(np.min(shorts)) if shorts else None
    if not (cosine >= MIN_COSINE and difference <= MAX_LOGIT_DIFFERENCE and (short is None or short >= MIN_COSINE)):
        of_short = "" if short is None else f", of short embeddings {short:.7f}"
        raise ExportError(
            f"an exported form differs from the network: cosine {cosine:.7f}{of_short} (at least {MIN_COSINE}), "
            f"logits by {difference:.1e} of the largest (at most {MAX_LOGIT_DIFFERENCE})"
        )
    return ParityRecord(
        min_cosine=cosine,
        max_logit_difference=difference,
        min_short_cosine=short,
        batch_sizes=BATCH_SIZES,
        num_images=len(images),
    )


@torch.no_grad()  # in inference mode, the weights that come back from float64 could not be trained any more
def reference_of(network: Network, images: Images, *, features: bool = False) -> Outputs:
    """The eager network's outputs, computed in float64 image by image, and rounded to float32."""
    network.double()
    try:
        rows = [network.outputs(torch.from_numpy(image[None]).double(), features=features) for image in images]
    finally:
        network.float()
    return Outputs(**{name: torch.cat([row[name].float() for row in rows]).numpy() for name in rows[0]})
