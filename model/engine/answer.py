"""Whether an engine's answer can be one: of the shape that the manifest says, and of numbers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rankone.model.bundle import Manifest
from rankone.model.engine.base import Engine, Outputs, UnusableNetwork
from rankone.model.engine.precision import probe


def finite_rows(outputs: Outputs) -> npt.NDArray[np.bool_]:
    """Which of n answers hold neither NaN nor infinity, (n,)."""
    arrays = (outputs.embedding, outputs.logits)
    is_finite: npt.NDArray[np.bool_] = np.logical_and.reduce(
        [np.isfinite(array).all(axis=1) for array in arrays if array is not None]
    )
    return is_finite


def check_answer(engine: Engine, manifest: Manifest) -> None:
    """Runs one image.

    Raises:
        UnusableNetwork: the answer is not of the shape that the manifest says, or no number.
    """
    outputs = engine.run(probe(manifest.preprocessing.size)[:1])
    found = outputs.embedding.shape, None if outputs.logits is None else outputs.logits.shape
    expected = (1, manifest.dim), (1, len(manifest.classes)) if manifest.classes else None
    if found != expected:
        raise UnusableNetwork(
            f"the network of {manifest.name} {manifest.version} answers an image with embedding and logits of the shapes "
            f"{found[0]} and {found[1]}, and its manifest says {expected[0]} and {expected[1]}: export it again"
        )
    if not finite_rows(outputs).all():
        raise UnusableNetwork(
            f"the network of {manifest.name} {manifest.version} answers an image with NaN or infinity: export it from "
            "another epoch, or, if it is the precision, set RANKONE_PRECISION=float32"
        )
