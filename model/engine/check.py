"""Checks of an engine's answers: their shape and finiteness, and how far they are from a reference.

Only the backbone ever runs in a lower precision. Behind it, 784 local features are squared and summed: 8 or 11 bits lose
what distinguishes two images, and float16 overflows at 65,504.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from rankone.model.bundle import Manifest
from rankone.model.engine.base import Engine, EngineError, Images, Outputs, Precision, UnusableNetwork

MIN_COSINE: Final[Mapping[Precision, float]] = {"float32": 0.9999, "bfloat16": 0.999, "float16": 0.999}
"""Of an embedding with the one that float32 on the CPU gives. Two engines in float32 on one CPU reach 0.99999.

That of int8 depends on the bundle: `Int8Record.least_cosine`."""

_NUM_PROBES: Final = 3
_LOW, _HIGH = -2.1, 2.6
"""Black and white, preprocessed."""


def finite_rows(outputs: Outputs) -> npt.NDArray[np.bool_]:
    """Which of n answers contain neither NaN nor infinity, (n,)."""
    is_finite: npt.NDArray[np.bool_] = np.logical_and.reduce(
        [np.isfinite(array).reshape(len(array), -1).all(axis=1) for array in outputs.arrays.values()]
    )
    return is_finite


def lowest_cosine(found: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> float:
    """The lowest cosine of two rows of matrices (n, dim). Two zero rows agree: 1. NaN if a value is NaN or one row is zero."""
    found, expected = found.astype(np.float64), expected.astype(np.float64)
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    are_both_zero = ~found.any(axis=1) & ~expected.any(axis=1)  # a black image's embedding is 0
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.where(are_both_zero, 1.0, (found * expected).sum(axis=1) / lengths).min())


def largest_difference(found: npt.NDArray[np.float32] | None, expected: npt.NDArray[np.float32] | None) -> float:
    """The largest difference of logits, relative to the largest logit (or 1); infinite where only one side has logits."""
    if found is None or expected is None:
        return 0.0 if found is expected else np.inf
    return float(np.abs(found - expected).max() / max(1.0, np.abs(expected).max()))


def check_answer(engine: Engine, manifest: Manifest) -> None:
    """Runs one image.

    Raises:
        UnusableNetwork: the answer does not have the shape that the manifest says, or is not finite.
    """
    outputs = engine.run(probe(manifest.preprocessing.size)[:1], features=True)
    found = {name: array.shape for name, array in outputs.arrays.items()}
    expected = {name: (1, *shape) for name, shape in manifest.shapes.items()}
    if found != expected:
        raise UnusableNetwork(
            f"the network of {manifest.name} {manifest.version} answers an image with outputs of the shapes {found}, and its "
            f"manifest says {expected}: export it again"
        )
    if not finite_rows(outputs).all():
        raise UnusableNetwork(
            f"the network of {manifest.name} {manifest.version} answers an image with NaN or infinity: export it from "
            "another epoch, or, if it is the precision, set RANKONE_PRECISION=float32"
        )


def check_precision(engine: Engine, reference: Engine, size: int, least: float) -> float:
    """The lowest cosine of `engine` with `reference` on the probes.

    Raises:
        EngineError: it is lower than `least`.
    """
    cosine = probe_cosine(engine, reference, size)
    if not cosine >= least:
        raise EngineError(
            f"the {engine.name} engine in {engine.precision} on {engine.provider} differs from float32 on the CPU: "
            f"cosine {cosine:.6f}, and at least {least:.6g} is required. Set RANKONE_PRECISION=float32, "
            "or another engine"
        )
    return cosine


def probe_cosine(engine: Engine, reference: Engine, size: int) -> float:
    """The lowest cosine of the embeddings of two engines, full or short, on the probes."""
    images = probe(size)
    found, expected = engine.run(images).arrays, reference.run(images).arrays
    return min(lowest_cosine(found[name], expected[name]) for name in expected if name != "logits")


def probe(size: int) -> Images:
    """Synthetic images, (3, 3, size, size) preprocessed: noise whose amplitude at frequency f is about 1/f, as in photographs.

    Source: Field, Relations between the statistics of natural images and the response properties of cortical cells, 1987.
    Their colours are correlated.
    """
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    frequency[0, 0] = np.inf
    white = rng.standard_normal((_NUM_PROBES, 1, size, size)) + 0.3 * rng.standard_normal((_NUM_PROBES, 3, size, size))
    pink = np.fft.irfft2(np.fft.rfft2(white) / frequency, s=(size, size))
    images: Images = (pink / pink.std(axis=(1, 2, 3), keepdims=True)).clip(_LOW, _HIGH).astype(np.float32)
    return images
